"""Hands records to the broker; tells when all records of a piece of work are acknowledged, or one is not.

Owns the producer and the thread of its delivery reports. After results.py and dead_letters.py; before offsets.py.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from consumer.errors import FatalError
from consumer.kafka import KafkaError, KafkaException, Message, Producer
from consumer.offsets import Lease
from consumer.records import Outgoing

log = structlog.get_logger("mmcat.delivery")

POLL_S: Final = 0.1
FULL_S: Final = 0.02
MAY_NOT_WRITE: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


class Outcomes(Protocol):
    """Where the pipeline puts what became of a record: `Delivery` at least once, `Transactions` exactly once."""

    def send(self, records: Sequence[Outgoing], on_done: Callable[[bool], None], lease: Lease, offset: int) -> None:
        """Take what became of the record at `offset`, none to be sent included.

        `on_done` runs once, in any thread: True when all of it is the broker's for good, False when it never will be.
        """
        ...


class Delivery:
    """Sends groups of records; thread-safe. The records of one key keep the order of the calls.

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
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def start(self) -> None:
        """Start to listen for reports."""
        self._thread.start()

    def send(self, records: Sequence[Outgoing], on_done: Callable[[bool], None], lease: Lease, offset: int) -> None:
        """Hand the records over; `on_done` runs once in the thread of the reports: True when the broker has them all.

        Blocks while the producer's queue is full, which the service's own budget keeps from happening.
        """
        if not records:
            on_done(True)
            return
        report = _Report(len(records), on_done, self._failed)
        for record in records:
            try:
                self._produce(record, report)
            except (KafkaException, ValueError) as error:  # ValueError: larger than message.max.bytes allows
                log.error("record_not_taken", topic=record.topic, error=str(error)[:300])
                report.count(False)

    def _failed(self, error: KafkaError, topic: str | None) -> None:
        log.error("delivery_failed", topic=topic, error=error.name(), detail=error.str())
        if error.code() in MAY_NOT_WRITE and topic != self._patient:
            self._on_death(FatalError(f"the broker does not let us write {topic}: {error.str()}"))

    def stop(self) -> None:
        """Listen no longer: reports that have not come are not waited for."""
        self._stopping.set()
        self._thread.join(POLL_S * 5)

    def _produce(self, record: Outgoing, report: "_Report") -> None:
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, on_delivery=report.delivered, headers=[*record.headers]
                )
            except BufferError:
                # The queue is full: the thread of the reports makes room.
                if self._stopping.wait(FULL_S):
                    report.count(False)
                    return
            else:
                return

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._producer.poll(POLL_S)
        except BaseException as error:  # without reports nothing would ever be committed: tell, whatever it was
            self._on_death(error)


class _Report:
    """Counts the acknowledgements of one group of records."""

    __slots__ = ("_left", "_lock", "_ok", "_on_done", "_on_failed")

    def __init__(
        self, records: int, on_done: Callable[[bool], None], on_failed: Callable[[KafkaError, str | None], None]
    ) -> None:
        self._left = records
        self._ok = True
        self._on_done, self._on_failed = on_done, on_failed
        self._lock = threading.Lock()

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """librdkafka's delivery report."""
        if error is not None:
            self._on_failed(error, message.topic())
        self.count(error is None)

    def count(self, ok: bool) -> None:
        with self._lock:
            self._ok = self._ok and ok
            self._left -= 1
            done = self._left == 0
        if done:
            self._on_done(self._ok)
