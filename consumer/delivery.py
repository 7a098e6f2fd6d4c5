"""Hands records to the broker; tells when all records of a piece of work are acknowledged, or one is not.

Owns the producer and the thread of its delivery reports. They come one by one, each with the interpreter's lock taken
for it from threads that have work to do: so they are let gather first, no more is done in them than to count, and what
came together is told together. After results.py and dead_letters.py; before offsets.py.
"""

import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final, Generic

import structlog

from consumer.errors import FatalError
from consumer.kafka import KafkaError, KafkaException, Message, Producer
from consumer.outcomes import Done, W
from consumer.records import Outgoing

log = structlog.get_logger("mmcat.delivery")

POLL_S: Final = 0.1
GATHER_S: Final = 0.02  # reports that come meanwhile are taken together (decision 0021)
FULL_S: Final = 0.02
MAY_NOT_WRITE: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


class Delivery(Generic[W]):
    """Sends pieces of work; thread-safe. The records of one key keep the order of the calls.

    Args:
        producer: idempotent, acks=all; only this object polls it.
        on_death: gets what ended the thread of the reports, and the loss of the right to write, if either comes.
        patient: a topic whose refusal only holds up its records; None: there is none such.
    """

    def __init__(
        self, producer: Producer, on_death: Callable[[BaseException], None], patient: str | None = None
    ) -> None:
        self._producer = producer
        self._on_death = on_death
        self._patient = patient
        self._lock = threading.Lock()
        self._ended: list[_Report[W]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def start(self) -> None:
        """Start to listen for reports."""
        self._thread.start()

    def send(self, works: Sequence[W], on_done: Done[W]) -> None:
        """Hand the records over; `on_done` runs in the thread of the reports, or in this one where there are none.

        Blocks while the producer's queue is full, which the service's own budget keeps from happening.
        """
        if not_sent := [work for work in works if not work.records]:
            on_done(not_sent, True)
        for work in works:
            if not work.records:
                continue
            report = _Report(work, on_done, len(work.records), self)
            for record in work.records:
                try:
                    self._produce(record, report)
                except (KafkaException, ValueError) as error:  # ValueError: larger than message.max.bytes allows
                    log.error("record_not_taken", topic=record.topic, error=str(error)[:300])
                    self._not_taken(report)

    def reported(self, report: "_Report[W]", error: KafkaError | None, message: Message) -> None:
        """The broker's word on one record."""
        if error is not None:
            self._failed(error, message.topic())
        self.count(report, error is None)

    def count(self, report: "_Report[W]", ok: bool) -> None:
        """One record less; told of with the next `_tell` if it was the last."""
        with self._lock:
            report.ok = report.ok and ok
            report.left -= 1
            if report.left == 0:
                self._ended.append(report)

    def _not_taken(self, report: "_Report[W]") -> None:
        """Of this record no report will come, perhaps of none any more: it is told at once."""
        self.count(report, False)
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
        for (on_done, ok), reports in groupby(ended, key=lambda report: (report.on_done, report.ok)):
            on_done([report.work for report in reports], ok)

    def _failed(self, error: KafkaError, topic: str | None) -> None:
        log.error("delivery_failed", topic=topic, error=error.name(), detail=error.str())
        if error.code() in MAY_NOT_WRITE and topic != self._patient:
            self._on_death(FatalError(f"the broker does not let us write {topic}: {error.str()}"))

    def stop(self) -> None:
        """Listen no longer: reports that have not come are not waited for."""
        self._stopping.set()
        self._thread.join(POLL_S * 5)

    def _produce(self, record: Outgoing, report: "_Report[W]") -> None:
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, on_delivery=report, headers=[*record.headers]
                )
            except BufferError:
                # The queue is full: the thread of the reports makes room.
                if self._stopping.wait(FULL_S):
                    self._not_taken(report)
                    return
            else:
                return

    def _run(self) -> None:
        try:
            while not self._stopping.wait(GATHER_S):
                self._producer.poll(POLL_S)
                self._tell()
            self._producer.poll(0)  # what has come by now is told
            self._tell()
        except BaseException as error:  # without reports nothing would ever be committed: tell, whatever it was
            self._on_death(error)


class _Report(Generic[W]):
    """What the broker has not answered yet of one piece of work; librdkafka calls it with each answer."""

    __slots__ = ("_delivery", "left", "ok", "on_done", "work")

    def __init__(self, work: W, on_done: Done[W], records: int, delivery: Delivery[W]) -> None:
        self.work, self.on_done, self.left, self.ok = work, on_done, records, True
        self._delivery = delivery

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self._delivery.reported(self, error, message)
