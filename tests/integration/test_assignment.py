"""What is done with partitions, on a real broker: where they start, when they rest, what is said of them.

The poll loop is the test's own, and so is the clock: a rest is over when the test says so.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from consumer.assignment import REST_S, Assignment
from consumer.budget import Budget
from consumer.ending import COMMIT_S, Ending
from consumer.guard import Guard
from consumer.health import Health
from consumer.intake import incoming
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.settings import Settings
from mmcat.cli.servers import LocalKafka
from tests.support.broker import DEADLINE_S, TopicNames, create_topics, random_topics, reader, send, warm_groups
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

RECORDS = 12


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Member:
    """A member of the group with the parts of the service that an assignment needs, polled by the test.

    Args:
        told: errors that may come in place of records.
    """

    assignment: Assignment
    health: Health
    budget: Budget
    ending: Ending
    clock: Clock
    errors: list[KafkaError]
    polled: list[tuple[int, int]] = field(default_factory=list)
    leases: dict[int, Lease] = field(default_factory=dict)
    told: tuple[int, ...] = (KafkaError._PARTITION_EOF,)

    def turn(self) -> "Member":
        """One turn of the poll loop: partition and offset of what comes are kept."""
        self.assignment.pause_or_resume()
        for message in self.assignment.consumer.consume(50, 0.05):
            if (error := message.error()) is not None:
                assert error.code() in self.told, error
                continue
            ((record, lease),) = self.assignment.start([incoming(message)])
            self.polled.append((record.origin.partition, record.origin.offset))
            self.leases[record.origin.partition] = lease
        return self

    def until(self, look: Callable[[], object], what: str, *others: "Member") -> None:
        eventually(lambda: [one.turn() for one in (self, *others)] and look(), what)

    def offsets(self, partition: int) -> list[int]:
        return [offset for one, offset in self.polled if one == partition]

    def finish(self, partition: int) -> None:
        """Everything polled of a partition has its outcome."""
        for offset in self.offsets(partition):
            self.leases[partition].finish(offset)


@contextmanager
def _member(bootstrap: str, topics: TopicNames, group: str, kind: type[Assignment] = Assignment) -> Iterator[Member]:
    settings = Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": bootstrap, "group_id": group, "heartbeat.interval.ms": 300},
            "topics": {"input": topics.input},
            "retry": {"delays": ()},
        }
    )
    health, budget, clock = Health(), Budget(10**6, 100), Clock()
    ending = Ending(1.0, clock)
    errors: list[KafkaError] = []
    guard = Guard(settings.guard, clock)
    assignment = kind(settings, Metrics(), health, budget, guard, ending=ending, on_error=errors.append, clock=clock)
    assignment.subscribe()
    try:
        yield Member(assignment, health, budget, ending, clock, errors)
    finally:
        ending.begin(drain=False)
        ending.leave({"group": assignment.leave})


@pytest.fixture
def filled(kafka: str, topics: TopicNames) -> TopicNames:
    """An input topic with records in every partition."""
    send(kafka, topics.input, [(b"key %d" % number, b"{}", {}) for number in range(RECORDS * 3)])
    return topics


@pytest.fixture
def member(kafka: str, filled: TopicNames, group_id: str) -> Iterator[Member]:
    """One that has polled all records, and finished none."""
    with _member(kafka, filled, group_id) as one:
        one.until(lambda: len(one.polled) == RECORDS * 3, "all records come")
        one.polled.clear()
        yield one


def test_a_partition_that_was_sought_back_rests_before_it_is_read_again(member: Member) -> None:
    lease = member.leases[0]
    lease.finish(0)
    member.assignment.seek_back(lease)
    member.assignment.seek_back(member.leases[1])
    member.clock.now = REST_S - 0.01
    for _ in range(10):
        member.turn()
    assert member.polled == []
    member.clock.now = REST_S
    member.until(lambda: {0, 1} == {one for one, _ in member.polled}, "both are read again")
    assert member.offsets(0)[0] == 1, "from the gap"
    assert member.offsets(1)[0] == 0
    assert lease.ended


def test_records_that_fail_together_are_one_attempt(member: Member) -> None:
    for _ in range(5):
        member.assignment.seek_back(member.leases[0])
    member.clock.now = REST_S
    member.until(lambda: member.polled, "it is read again")
    member.assignment.seek_back(member.leases[0])
    member.polled.clear()
    member.clock.now = 2 * REST_S - 0.01
    for _ in range(10):
        member.turn()
    assert member.polled == [], "the second attempt rests as the first did"
    member.clock.now = 2 * REST_S
    member.until(lambda: member.offsets(0)[:1] == [0], "it is read again")


def test_room_that_comes_while_it_waits_pauses_nothing_and_none_pauses_all(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = member.budget.wait_room

    def comes(timeout_s: float) -> None:
        releasing = threading.Thread(target=member.budget.release, args=(1, 20))
        releasing.start()
        wait(timeout_s)
        releasing.join()

    member.budget.add(1, 100)
    with monkeypatch.context() as patched:
        patched.setattr(member.budget, "wait_room", comes)
        assert not member.turn().assignment.paused
    member.budget.add(1, 20)
    assert member.turn().assignment.paused
    member.budget.release(2, 100)


def test_a_budget_that_fills_and_empties_does_not_end_a_rest(member: Member) -> None:
    member.assignment.seek_back(member.leases[0])
    for _ in range(100):
        member.budget.add(1)
    member.turn()
    for _ in range(100):
        member.budget.release(1)
    for _ in range(10):
        member.turn()
    assert member.polled == []
    for _ in range(100):
        member.budget.add(1)
    member.clock.now = REST_S
    for _ in range(10):
        member.turn()
    assert member.polled == [], "rested, but the budget is full"
    for _ in range(100):
        member.budget.release(1)
    member.until(lambda: member.offsets(0)[:1] == [0], "it is read again")


def test_readiness_names_the_partition_until_what_is_committed_has_moved_past(member: Member) -> None:
    member.leases[0].finish(0)
    member.assignment.seek_back(member.leases[0])
    assert "0 (from offset 1)" in member.health.missing["deliveries"]
    member.clock.now = REST_S
    last = member.leases[1]
    member.until(lambda: member.polled, "it is read again")
    for offset in range(3):
        last.finish(offset)
    member.assignment.commit(DEADLINE_S)
    assert "deliveries" in member.health.missing, "another partition's commit says nothing of this one"
    member.leases[0].finish(1)
    assert "deliveries" in member.health.missing, "finished, not committed yet"
    member.assignment.commit()
    member.until(lambda: "deliveries" not in member.health.missing, "its commit has moved past")


def test_a_rest_survives_others_coming_and_is_forgotten_with_the_partition(
    member: Member, kafka: str, filled: TopicNames, group_id: str
) -> None:
    for partition in range(3):
        member.assignment.seek_back(member.leases[partition])
    before = dict(member.leases)
    with _member(kafka, filled, group_id) as other:
        other.until(lambda: other.polled, "the other one gets a partition", member)
        for _ in range(10):
            member.turn()
        gone = {partition for partition, _ in other.polled}
        assert member.polled == [], "what is kept still rests"
        named = member.health.missing["deliveries"]
        assert [f"{one} (from" in named for one in range(3)] == [one not in gone for one in range(3)]
        assert all(one.ended for one in before.values())
    member.until(lambda: {one for one, _ in member.polled} == gone, "what comes back is read at once")
    member.clock.now = REST_S
    member.until(lambda: len({one for one, _ in member.polled}) == 3, "the others when they have rested")
    assert all(member.offsets(one)[0] == 0 for one in range(3))


class RefusesSeeks:
    """A consumer whose seeks are refused, as they are while its reader is being started."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def seek(self, _where: TopicPartition) -> None:
        raise KafkaException(KafkaError(KafkaError._STATE))


def test_where_a_seek_is_refused_the_partition_rests_too_and_is_read_from_the_gap(member: Member) -> None:
    member.leases[0].finish(0)
    member.assignment._consumer = cast(Consumer, RefusesSeeks(member.assignment.consumer))
    member.assignment.seek_back(member.leases[0])
    for _ in range(10):
        member.turn()
    assert member.polled == []
    member.clock.now = REST_S
    member.until(lambda: member.offsets(0)[:1] == [1], "it is read again")


def test_giving_partitions_up_with_the_broker_away_waits_no_longer_than_there_is_time(
    apache_kafka: str, group_id: str
) -> None:
    names = random_topics()
    with LocalKafka() as broker:
        create_topics(broker.bootstrap, [names.input], 1)
        send(broker.bootstrap, names.input, [(b"key", b"{}", {})])
        with _member(broker.bootstrap, names, group_id) as member:
            member.until(lambda: member.polled, "the record comes")
            member.finish(0)
            broker.kill()
            member.ending.begin()
            member.clock.now += member.ending.drain_s + COMMIT_S - 0.2  # so long the broker may still take
            member.assignment.consumer.unsubscribe()
            started = time.monotonic()
            member.until(lambda: member.leases[0].ended, "it is given up")
            assert time.monotonic() - started < 5.0, "the client itself waits a minute"


# where the group committed ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """An Apache Kafka that can be told to answer nobody about a topic."""
    rules = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with LocalKafka(settings=rules) as broker:
        warm_groups(broker.bootstrap)
        yield broker.bootstrap


def _deny(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    where = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL)
    made = admin.create_acls([AclBinding(*where, "User:*", "*", AclOperation.DESCRIBE, AclPermissionType.DENY)])
    for future in made.values():
        future.result(DEADLINE_S)


def _allow(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    where = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL)
    gone = admin.delete_acls([AclBindingFilter(*where, "User:*", "*", AclOperation.ANY, AclPermissionType.ANY)])
    for future in gone.values():
        future.result(DEADLINE_S)


class DeniedWhenAssigned(Assignment):
    """Where the broker stops to answer just before the group's committed offsets are asked for."""

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        _deny(self._settings.kafka.bootstrap_servers, self._settings.topics.input)
        super()._assigned(consumer, partitions)


@pytest.fixture
def denied(apache_kafka: str, guarded: str, group_id: str) -> Iterator[Member]:
    """A member of a group that committed 5, and cannot see that."""
    names = random_topics()
    create_topics(guarded, [names.input], 1)
    send(guarded, names.input, [(b"key", b"{}", {})] * 8)
    with reader(guarded, **{"group.id": group_id}) as before:
        before.commit(offsets=[TopicPartition(names.input, 0, 5)], asynchronous=False)
    with _member(guarded, names, group_id, DeniedWhenAssigned) as one:
        one.told += (KafkaError.TOPIC_AUTHORIZATION_FAILED,)  # the client asks too, and may be answered first
        yield one


def test_a_partition_whose_committed_offset_is_not_known_is_asked_for_again_and_not_begun_anew(
    denied: Member, guarded: str
) -> None:
    topic = denied.assignment._settings.topics.input

    def relent() -> None:
        eventually(lambda: denied.errors, "an answer with an error")
        _allow(guarded, topic)

    helper = threading.Thread(target=relent)
    helper.start()
    denied.until(lambda: denied.polled, "it starts when the broker answers")
    helper.join()
    assert denied.offsets(0)[0] == 5
    assert denied.errors[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert "assignment" not in denied.health.missing


def test_a_service_that_is_to_end_does_not_ask_for_ever(denied: Member, guarded: str) -> None:
    def told() -> None:
        eventually(lambda: denied.errors, "an answer with an error")
        assert "assignment" in denied.health.missing
        denied.ending.begin()

    helper = threading.Thread(target=told)
    helper.start()
    denied.until(lambda: denied.ending.told, "the poll loop is free again")
    helper.join()
    assert denied.polled == []
