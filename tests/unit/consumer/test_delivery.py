"""What a record's report means: a right that was lost ends the process, all else is told to whoever sent it, once."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery import Delivery
from consumer.errors import FatalError
from consumer.kafka import KafkaError, KafkaException, Producer
from consumer.offsets import Lease
from consumer.records import Outgoing
from tests.support.waiting import eventually

TOO_LARGE = "too-large"
REFUSED = "refused"


@dataclass
class Sent:
    offset: int
    topics: Sequence[str]
    lease: Lease = field(default_factory=lambda: Lease(("in", 0)))

    @property
    def records(self) -> list[Outgoing]:
        return [Outgoing(topic, b"k", b"v", []) for topic in self.topics]


def message(topic: str) -> Any:
    return type("Message", (), {"topic": lambda self: topic})()


class Refusing:
    """A producer whose broker refuses every record with the same error."""

    def __init__(self, code: int) -> None:
        self._error = KafkaError(code)
        self._reports: list[Callable[[], None]] = []

    def produce(self, topic: str, *_: Any, on_delivery: Callable[..., None], **__: Any) -> None:
        self._reports.append(lambda: on_delivery(self._error, message(topic)))

    def poll(self, timeout_s: float) -> None:
        reports, self._reports = self._reports, []
        for report in reports:
            report()


@pytest.mark.parametrize(
    ("code", "topic", "ends"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "categorized", True),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "review", True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "dead-letter", False),
        (KafkaError.MSG_SIZE_TOO_LARGE, "categorized", False),
    ],
)
def test_a_right_to_write_that_was_lost_ends_the_process(code: int, topic: str, ends: bool) -> None:
    deaths: list[BaseException] = []
    told: list[bool] = []
    delivery: Delivery[Sent] = Delivery(cast(Producer, Refusing(code)), deaths.append, patient="dead-letter")
    delivery.start()
    delivery.send([Sent(0, [topic])], lambda _, ok: told.append(ok))
    eventually(lambda: told, "it is told", every_s=0.001)
    delivery.stop()
    assert told == [False]
    assert [type(death) for death in deaths] == ([FatalError] if ends else [])


def test_what_has_come_when_it_stops_is_told() -> None:
    told: list[bool] = []
    delivery: Delivery[Sent] = Delivery(cast(Producer, Refusing(KafkaError.MSG_SIZE_TOO_LARGE)), lambda _: None)
    delivery.start()
    delivery.send([Sent(0, ["categorized"])], lambda _, ok: told.append(ok))
    delivery.stop()
    assert told == [False]


class Scripted:
    """A producer that does not take records of one topic, and whose broker refuses those of another."""

    def __init__(self) -> None:
        self._reports: list[tuple[Callable[..., None], str]] = []
        self._lock = threading.Lock()

    def produce(self, topic: str, *_: Any, on_delivery: Callable[..., None], **__: Any) -> None:
        if topic == TOO_LARGE:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        with self._lock:
            self._reports.append((on_delivery, topic))

    def poll(self, timeout_s: float) -> None:
        with self._lock:
            reports, self._reports = self._reports, []
        for on_delivery, topic in reports:
            error = KafkaError(KafkaError._MSG_TIMED_OUT) if topic == REFUSED else None
            on_delivery(error, message(topic))


@given(st.lists(st.lists(st.lists(st.sampled_from(["out", "review", TOO_LARGE, REFUSED]), max_size=3), max_size=5)))
def test_each_piece_of_work_is_told_once_and_is_well_if_all_its_records_are(batches: list[list[list[str]]]) -> None:
    delivery: Delivery[Sent] = Delivery(cast(Producer, Scripted()), lambda _: None)
    told: list[tuple[int, bool]] = []
    works = [[Sent(index * 10 + at, topics) for at, topics in enumerate(batch)] for index, batch in enumerate(batches)]
    delivery.start()
    try:
        for batch in works:
            delivery.send(batch, lambda some, ok: told.extend((work.offset, ok) for work in some))
        every = [work for batch in works for work in batch]
        eventually(lambda: len(told) >= len(every), "all are told", every_s=0.0005)
    finally:
        delivery.stop()
    assert sorted(told) == sorted((one.offset, not {TOO_LARGE, REFUSED} & {*one.topics}) for one in every)


class Full:
    """A producer whose queue stays full."""

    def produce(self, *_: Any, **__: Any) -> None:
        raise BufferError

    def poll(self, timeout_s: float) -> None:
        """Nothing was sent."""


def test_what_finds_the_queue_full_while_it_is_stopped_is_told_too() -> None:
    delivery: Delivery[Sent] = Delivery(cast(Producer, Full()), lambda _: None)
    told: list[tuple[int, bool]] = []
    delivery.start()
    delivery.stop()
    delivery.send([Sent(3, ["out", "review"])], lambda some, ok: told.extend((work.offset, ok) for work in some))
    assert told == [(3, False)]
