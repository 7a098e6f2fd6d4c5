"""What is done after each way in which a transaction can fail; the client is the test's, its errors are librdkafka's.

On a real broker this is tests/integration/test_exactly_once.py; here is what cannot be made to happen there at will.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.budget import Budget
from consumer.errors import FatalError
from consumer.health import Health
from consumer.kafka import TRANSACTION_TIMEOUT_S
from consumer.offsets import Lease, Partition
from consumer.records import Outgoing
from consumer.transactional import TransactionalClient
from consumer.transactions import Transactions
from tests.support.waiting import eventually


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def error(code: int, *, fatal: bool = False, retriable: bool = False, abort: bool = False) -> KafkaException:
    return KafkaException(KafkaError(code, "made by the test", fatal, retriable, abort))


@dataclass
class ScriptedProducer:
    """Raises what the script says at the next call of a name, and writes down what was called."""

    script: dict[str, list[KafkaException]]
    calls: list[str]
    before: Callable[[str], None] = lambda _: None

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> None:
            self.before(name)
            if name not in ("poll", "produce"):
                self.calls.append(name)
            if self.script.get(name):
                raise self.script[name].pop(0)

        return call


@dataclass
class Group:
    metadata: object = None
    other: bool = False
    asked: int = 0
    committed: list[tuple[Partition, int]] = field(default_factory=list)

    def replaced(self) -> bool:
        self.asked += 1
        return self.other

    def moved(self, partition: Partition, offset: int) -> None:
        self.committed.append((partition, offset))


@dataclass
class Sent:
    lease: Lease
    offset: int
    records: list[Outgoing]


@dataclass
class Bench:
    transactions: Transactions[Sent]
    script: dict[str, list[KafkaException]]
    calls: list[str]
    clock: Clock
    group: Group
    deaths: list[BaseException]
    made: list[ScriptedProducer]
    before: list[Callable[[str], None]]
    lost: set[str]
    told: dict[int, bool] = field(default_factory=dict)
    lease: Lease = field(default_factory=lambda: Lease(("in", 0)))

    def outcome(self, offset: int, topic: str = "out") -> None:
        self.lease.start(offset)
        self.send(self.lease, offset, topic, lambda ok: self.told.update({offset: ok}))

    def send(self, lease: Lease, offset: int, topic: str, told: Callable[[bool], None]) -> None:
        self.transactions.send([Sent(lease, offset, [Outgoing(topic, b"key", b"value", [])])], lambda _, ok: told(ok))

    def until(self, look: Callable[[], object], what: str) -> None:
        """Time passes while the test waits."""

        def later() -> object:
            self.clock.now += 0.2
            return look()

        eventually(later, what)


@pytest.fixture
def bench() -> Iterator[Bench]:
    script: dict[str, list[KafkaException]] = {}
    calls: list[str] = []
    made: list[ScriptedProducer] = []
    before: list[Callable[[str], None]] = []
    clock, group, deaths = Clock(), Group(), []  # type: ignore[var-annotated]

    def look(name: str) -> None:
        for one in before:
            one(name)

    def make() -> Producer:
        made.append(ScriptedProducer(script, calls, look))
        return cast(Producer, made[-1])

    client = TransactionalClient(make, clock)
    lost: set[str] = set()
    transactions: Transactions[Sent] = Transactions(
        client,
        "group-one",
        0.1,
        Health(),
        unwritable=lambda topics: lost & set(topics),
        patient="dead",
        shadow_s=10.0,
        on_death=deaths.append,
        clock=clock,
    )
    transactions.start(group, Budget(10**6, 100))
    yield Bench(transactions, script, calls, clock, group, deaths, made, before, lost)
    transactions.stop()


COMMITTED = ["init_transactions", "begin_transaction", "send_offsets_to_transaction", "commit_transaction"]


def test_outcomes_and_the_offset_after_them_are_committed_together(bench: Bench) -> None:
    bench.outcome(0)
    bench.outcome(1)
    bench.until(lambda: bench.told == {0: True, 1: True}, "both are committed")
    assert bench.calls[:4] == COMMITTED
    bench.transactions.commit(0.0)
    assert bench.group.committed[-1] == (("in", 0), 2)


@pytest.mark.parametrize("ok", [True, False])
def test_what_a_transaction_held_is_told_of_together_each_once_and_in_order(bench: Bench, ok: bool) -> None:
    if not ok:
        bench.script["commit_transaction"] = [error(KafkaError.ILLEGAL_GENERATION, abort=True)]
    told: list[tuple[list[int], bool]] = []

    def on_done(works: Sequence[Sent], ok: bool) -> None:
        told.append(([work.offset for work in works], ok))

    bench.lease.start(0, 1, 2)
    works = [Sent(bench.lease, offset, [Outgoing("out", b"key", b"value", [])]) for offset in (2, 0, 1)]
    bench.transactions.send(works, on_done)
    bench.until(lambda: told, "they have their word")
    assert told == [([0, 1, 2], ok)]


def test_what_may_succeed_when_it_is_asked_again_is_asked_again(bench: Bench) -> None:
    bench.script["commit_transaction"] = [error(KafkaError._TIMED_OUT, retriable=True)] * 2
    bench.outcome(0)
    bench.until(lambda: bench.told, "it has its word")
    assert bench.told == {0: True}
    assert bench.calls == [*COMMITTED, "commit_transaction", "commit_transaction"]


def test_after_an_abort_the_producer_stays_and_the_lease_has_ended(bench: Bench) -> None:
    bench.script["commit_transaction"] = [error(KafkaError.ILLEGAL_GENERATION, abort=True)]
    bench.outcome(0)
    bench.until(lambda: bench.told, "it has its word")
    bench.until(lambda: bench.lease.ended, "nothing of the lease is committed any more")
    assert bench.told == {0: False}
    assert bench.calls == [*COMMITTED, "abort_transaction"]
    assert len(bench.made) == 1


@pytest.mark.parametrize(
    "doubt",
    [
        error(KafkaError._FATAL, fatal=True),
        error(KafkaError._STATE),
        error(KafkaError.UNKNOWN_PRODUCER_ID),
        error(KafkaError.INVALID_TXN_STATE),
    ],
    ids=lambda one: one.args[0].name(),
)
def test_after_what_is_not_clearly_abortable_the_producer_is_made_anew(bench: Bench, doubt: KafkaException) -> None:
    bench.script["commit_transaction"] = [doubt]
    bench.outcome(0)
    bench.until(lambda: bench.told, "it has its word")
    assert bench.told == {0: False}
    bench.until(lambda: len(bench.made) == 2, "another is made")
    assert "abort_transaction" not in bench.calls
    assert not bench.deaths
    bench.lease = Lease(("in", 0))
    bench.outcome(0)
    bench.until(lambda: bench.told == {0: True}, "it goes on with it")


def test_a_commit_without_an_answer_in_time_leaves_a_doubt(bench: Bench) -> None:
    bench.script["commit_transaction"] = [error(KafkaError._TIMED_OUT, retriable=True)] * 10
    bench.before.append(lambda name: setattr(bench.clock, "now", bench.clock.now + 4 * (name == "commit_transaction")))
    bench.outcome(0)
    bench.until(lambda: bench.told, "it has its word")
    bench.until(lambda: len(bench.made) == 2, "another is made")
    assert bench.told == {0: False}
    assert bench.lease.ended


@pytest.mark.parametrize("hangs", ["send_offsets_to_transaction", "commit_transaction"])
def test_a_call_that_never_comes_back_leaves_a_doubt_and_not_a_service_that_stands_still(
    bench: Bench, hangs: str
) -> None:
    """As librdkafka's do where the coordinator goes away."""
    released = threading.Event()

    def hang(name: str) -> None:
        if name == hangs and len(bench.made) == 1:
            released.wait()

    bench.before.append(hang)
    bench.outcome(0)
    bench.until(lambda: bench.told == {0: False}, "it is given up")
    bench.until(lambda: len(bench.made) == 2, "another producer is made")
    bench.lease = Lease(("in", 0))
    bench.outcome(0)
    bench.until(lambda: bench.told == {0: True}, "it goes on with it")
    released.set()
    assert not bench.deaths


def test_after_an_abort_that_fails_the_producer_is_made_anew(bench: Bench) -> None:
    bench.script["send_offsets_to_transaction"] = [error(KafkaError.UNKNOWN_MEMBER_ID, abort=True)]
    bench.script["abort_transaction"] = [error(KafkaError._FATAL, fatal=True)]
    bench.outcome(0)
    bench.until(lambda: len(bench.made) == 2, "another is made")
    assert bench.told == {0: False}


@pytest.mark.parametrize("call", ["begin_transaction", "send_offsets_to_transaction", "commit_transaction"])
@pytest.mark.parametrize("code", [KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH])
def test_a_fenced_one_stops_with_one_sentence(bench: Bench, call: str, code: int) -> None:
    bench.script[call] = [error(code, fatal=True)]
    bench.outcome(0)
    bench.until(lambda: bench.deaths, "it says so")
    assert isinstance(bench.deaths[0], FatalError)
    assert "another process has taken over transactional.id group-one: stop one of the two" in str(bench.deaths[0])
    assert bench.told == {0: False}
    assert len(bench.made) == 1, "it does not fence its successor"


@pytest.mark.parametrize("failing", ["produce", "commit_transaction"])
def test_who_may_not_write_a_topic_any_more_stops_with_one_sentence(bench: Bench, failing: str) -> None:
    bench.lost.add("out")
    bench.script[failing] = [error(KafkaError.TOPIC_AUTHORIZATION_FAILED, abort=True)]
    bench.outcome(0)
    bench.until(lambda: bench.deaths, "it says so")
    assert isinstance(bench.deaths[0], FatalError)
    assert "does not let us write out any more" in str(bench.deaths[0])
    assert bench.told == {0: False}
    assert bench.calls[-1] == "abort_transaction", "no reader waits for it"


def test_a_dead_letter_topic_that_may_not_be_written_holds_up_its_own_partitions_alone(bench: Bench) -> None:
    bench.lost.add("dead")
    bench.script["commit_transaction"] = [error(KafkaError.TOPIC_AUTHORIZATION_FAILED, abort=True)]
    bench.outcome(0, "dead")
    bench.until(lambda: bench.told == {0: False}, "it is given back")
    bench.lease = Lease(("in", 0))
    bench.before.append(lambda name: committed.append(name) if name == "commit_transaction" else None)
    committed: list[str] = []
    bench.outcome(0, "dead")
    other = Lease(("in", 1))
    other.start(0)
    bench.send(other, 0, "out", lambda ok: bench.told.update({1: ok}))
    bench.until(lambda: bench.told == {0: True, 1: True}, "both are committed")
    assert len(committed) == 2, "each in a transaction of its own"
    assert not bench.deaths


@pytest.mark.parametrize(
    "code", [KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED]
)
def test_who_may_not_use_its_name_or_its_group_any_more_stops_with_one_sentence(bench: Bench, code: int) -> None:
    bench.script["send_offsets_to_transaction"] = [error(code, abort=True)]
    bench.outcome(0)
    bench.until(lambda: bench.deaths, "it says so")
    assert isinstance(bench.deaths[0], FatalError)
    assert "does not let us commit transactions any more" in str(bench.deaths[0])
    assert len(bench.made) == 1


@pytest.mark.parametrize("replaced", [False, True])
def test_one_whose_time_was_up_goes_on_unless_the_group_has_another_in_its_place(bench: Bench, replaced: bool) -> None:
    bench.group.other = replaced
    bench.script["commit_transaction"] = [error(KafkaError._FENCED, fatal=True)]
    late = TRANSACTION_TIMEOUT_S * 2
    bench.before.append(
        lambda name: setattr(bench.clock, "now", bench.clock.now + late * (name == "commit_transaction"))
    )
    bench.outcome(0)
    bench.until(lambda: bench.told, "it has its word")
    if replaced:
        bench.until(lambda: bench.deaths, "it stops")
    else:
        bench.until(lambda: len(bench.made) == 2, "another producer is made: the broker had been away")
        assert not bench.deaths


def test_one_whose_time_was_up_waits_for_its_own_shadow_to_leave_the_group_and_goes_on(bench: Bench) -> None:
    bench.group.other = True
    bench.script["commit_transaction"] = [error(KafkaError._FENCED, fatal=True)]
    bench.before.append(
        lambda name: setattr(
            bench.clock, "now", bench.clock.now + TRANSACTION_TIMEOUT_S * 2 * (name == "commit_transaction")
        )
    )
    bench.outcome(0)
    bench.until(lambda: bench.group.asked, "the group is asked")
    assert len(bench.made) == 1, "a new producer would fence the other"
    bench.group.other = False
    bench.until(lambda: len(bench.made) == 2, "the shadow is gone")
    assert not bench.deaths


def test_a_lease_that_ended_while_its_transaction_was_open_is_not_committed(bench: Bench) -> None:
    def revoke(name: str) -> None:
        if name == "begin_transaction":
            bench.lease.end()

    bench.before.append(revoke)
    bench.outcome(0)
    bench.until(lambda: bench.told, "it has its word")
    assert bench.told == {0: False}
    assert bench.calls == ["init_transactions", "begin_transaction", "abort_transaction"]


def test_giving_up_commits_what_may_go_and_ends_the_leases_in_one_step(bench: Bench) -> None:
    bench.until(lambda: bench.made and bench.calls, "it is open")
    bench.lease.start(0)
    bench.outcome(1)  # past the gap at 0
    other = Lease(("in", 1))
    other.start(0)
    told: list[bool] = []
    bench.send(other, 0, "out", told.append)

    def end() -> dict[Partition, int]:
        assert told == [True], "committed before its lease ends"
        return {one.partition: last for one in (bench.lease, other) if (last := one.end()) is not None}

    bench.transactions.give_up(end, 30.0)
    bench.until(lambda: bench.told == {1: False}, "what waited past the gap is dropped")
    bench.transactions.commit(0.0)
    assert bench.group.committed == [(("in", 1), 1)]


def test_without_time_to_commit_nothing_of_what_is_given_up_is_committed_later(bench: Bench) -> None:
    bench.lease.start(0)
    bench.outcome(1)
    bench.transactions.give_up(lambda: bench.lease.end() and {}, 0.0)  # type: ignore[arg-type, return-value]
    bench.lease.finish(0)
    bench.until(lambda: bench.told == {1: False}, "it is dropped")
    assert "commit_transaction" not in bench.calls


def test_the_end_aborts_what_is_open(bench: Bench) -> None:
    bench.outcome(0)
    eventually(lambda: "begin_transaction" in bench.calls, "a transaction is open")
    bench.transactions.stop()
    assert bench.calls[-1] == "abort_transaction"
    assert bench.told == {0: False}
