"""Keeps the view equal to the output topic: reads it with a reader group of its own and applies what it reads.

Before it: the pipeline, which only ever writes the topic. After it: whoever reads Redis. It runs as a thread of the
service, or alone (`mmcat cache-writer`).

The group `<group_id>-view` shares the partitions out; where to read on from stands in the view and nowhere else, so a
view that was lost, emptied or replaced is filled again without anybody's doing. Offsets are committed to Kafka as well,
but only for those who watch lag there. Whenever anything is in doubt (a rebalance, an answer that did not come, a
position that somebody else moved) the writer drops what it holds and reads on from the positions in the view: to apply
a record twice changes nothing.

Where a record ranked below what the view holds stands last in the topic, the winner is published again (repair.py)
before the position moves past it.
"""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from consumer.errors import FatalError, ViewError
from consumer.kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
    fenced,
    make_consumer,
    polled,
)
from consumer.metrics import Metrics
from consumer.repair import Outranked, Repairer
from consumer.settings import Settings
from consumer.view import FROM_BEGINNING, Positions, Ranked, View, ViewAwayError
from consumer.view_topic import ViewTopic, read_record

log = structlog.get_logger("mmcat.view")

BATCH_RECORDS: Final = 500
POLL_S: Final = 0.1
# How often the positions are confirmed while nothing is published: how long a view that was emptied can stay empty.
CHECK_S: Final = 1.0
COMMIT_S: Final = 5.0
FENCED_S: Final = 1.0  # before another client joins
BACKOFF_S: Final = (0.1, 5.0)  # first and longest wait for what is away; doubles, and half of it is random
# The whole assignment is given anew after each doubt, which cooperative assignors and KIP-848 do not allow. A short
# stop of the view at a rebalance costs nothing.
# The queue: after the view was emptied the client fetches ahead all that it may. With 24 MiB that took 60 MB for good.
GROUP: Final = {
    "partition.assignment.strategy": "range",
    "group.protocol": "classic",
    "enable.partition.eof": True,
    "queued.max.messages.kbytes": 4 * 1024,
}


class ViewWriter:
    """A thread that owns its Kafka consumer and its connection to the view. Constructed, then `start`ed, once.

    Args:
        settings: `kafka`, `topics.output` and `view` are used.
        metrics: of the service; `view_up`, `view_writes` and `lag{role="view"}` are kept.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._topic = settings.topics.output
        self._view = View.from_settings(settings.view)
        self._broker = ViewTopic(settings.kafka, self._topic, metrics)
        self._thread = threading.Thread(target=self._run, name="mmcat-view", daemon=True)
        self._stopping = threading.Event()
        self._moved = threading.Condition()
        self._next: dict[int, int] = {}  # owned partition → first offset not settled, as it stands in the view
        self._read: dict[int, int] = {}  # owned partition → first offset not read
        self._ends: dict[int, int] = {}  # partition → where the broker said that there is no more
        self._outranked = Outranked()
        self._repairer = Repairer(settings)
        self._owned: tuple[int, ...] = ()
        self._topic_id = ""
        self._in_doubt = True
        self._failures = 0
        self._confirmed = self._committed = time.monotonic()
        self.reason: str | None = None
        """Why the view is not being written, in one sentence; None while all is well."""
        self.error: BaseException | None = None
        """What ended the thread unasked: a ViewError leaves the rest of the service whole, anything else does not."""
        self.moved_at = time.monotonic()
        """When the thread last finished a turn of its loop; a turn takes 30 s at most, with all servers hanging."""
        metrics.view_up.set(0)

    def start(self) -> None:
        """Start the thread; does not wait for broker or view."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ask the thread to finish its batch and leave the group; returns whether it did within `timeout_s`."""
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def applied(self) -> dict[int, int]:
        """Partition to the first offset that is not settled (in the view, and repaired if need be), of those owned."""
        with self._moved:
            return dict(self._next)

    def wait_until(self, next_offsets: Mapping[int, int], timeout_s: float) -> bool:
        """Wait until every record below these offsets is settled; returns whether that came in time."""

        def there() -> bool:
            return all(self._next.get(partition, FROM_BEGINNING) >= end for partition, end in next_offsets.items())

        with self._moved:
            return self._moved.wait_for(there, timeout_s)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._read_on()
        except ViewError as error:
            self.reason, self.error = str(error), error
            log.error("view_stopped", reason=self.reason)
        except Exception as error:  # the edge of the thread: whoever watches it decides
            self.reason = f"the view writer died: {error}"
            self.error = error
            log.exception("view_writer_died")
        finally:
            self._metrics.view_up.set(0)
            self._view.close()

    def _read_on(self) -> None:
        """With one client, for as long as it can; a static member that is fenced is of no use any more.

        That may be its own shadow's work, see `Assignment.replaced`. If it is another process's, the service finds out.
        """
        consumer = make_consumer(self._settings.kafka, group_id=f"{self._settings.kafka.group_id}-view", extra=GROUP)
        try:
            consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._lost, on_lost=self._lost)
            while not self._stopping.is_set():
                self._turn(consumer)
            self._broker.commit(consumer, self._next)
        except _FencedError as error:
            self.reason = str(error)
            self._metrics.view_up.set(0)
            log.warning("view_reader_fenced")
            self._given_up()
            self._stopping.wait(FENCED_S)
        finally:
            consumer.close()

    def _turn(self, consumer: Consumer) -> None:
        """One turn: make sure where to read on from, read, apply; or wait a little for what is away."""
        try:
            if self._in_doubt:
                self._resume(consumer)
            self._apply(consumer, polled(consumer, BATCH_RECORDS, POLL_S))
            self._repair()
            self._advance()
            if time.monotonic() - self._committed >= COMMIT_S:
                self._committed = time.monotonic()
                self._broker.commit(consumer, self._next)
                self._broker.show_lag(consumer, self._next)
        except ViewAwayError as error:
            self._metrics.view_up.set(0)
            self._wait(consumer, "view_away", str(error))
        except (KafkaException, TimeoutError) as error:
            if isinstance(error, KafkaException):
                _refuse_fatal(error.args[0])
            self._wait(consumer, "view_broker_away", str(error))
        self.moved_at = time.monotonic()

    def _resume(self, consumer: Consumer) -> None:
        """Take up reading at the positions in the view, on a connection that is known to be good.

        Raises:
            ViewError: the positions are of another topic than the broker has under this name now.
        """
        owned = self._owned
        try:
            self._view.connect()
        except ViewError as error:  # an evicting policy can be mended while we wait
            raise ViewAwayError(str(error)) from error
        topic_id, partitions = self._broker.identity()
        beginning = dict.fromkeys(owned, FROM_BEGINNING)
        self._view.begin_positions(self._topic, Positions(topic_id, partitions, beginning))
        kept = self._view.positions(self._topic)
        if kept is None:
            raise ViewAwayError("the view was emptied at this moment")
        self._broker.refuse_other(kept, topic_id, partitions)
        with self._moved:
            self._next = {partition: kept.next_offsets.get(partition, FROM_BEGINNING) for partition in owned}
        self._read, self._ends = dict(self._next), {}
        self._outranked.clear()
        self._topic_id = topic_id
        if owned:
            consumer.assign([TopicPartition(self._topic, one, offset) for one, offset in self._next.items()])
        self._in_doubt = False
        self._failures = 0
        self.reason = None
        self._metrics.view_up.set(1)
        log.info("view_resumed", topic=self._topic, positions=self._next)

    def _apply(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        """Apply a batch, and note what the view outranks."""
        records: list[Ranked] = []
        for message in messages:
            if message.error() is not None:
                self._react(message)
                continue
            partition, offset = message.partition(), message.offset()
            if partition not in self._read or offset is None:
                continue  # from before a rebalance
            self._read[partition] = offset + 1
            record = read_record(message)
            if record is None:
                self._metrics.view_writes.labels("unreadable").inc()
                log.warning("view_record_unreadable", topic=self._topic, partition=partition, offset=offset)
            else:
                records.append(record)
        places = [TopicPartition(self._topic, one) for one in {record.partition for record in records}]
        ends = {one.partition: consumer.get_watermark_offsets(one, cached=True)[1] for one in places}
        for record, applied in zip(records, self._view.apply(records), strict=True):
            self._metrics.view_writes.labels(applied.outcome).inc()
            self._outranked.took(record, applied, ends[record.partition])

    def _repair(self) -> None:
        """Publish the winner again where it is sure that it does not stand later in the topic."""
        if self._in_doubt or not (due := self._outranked.due(self._read, self._ends)):
            return
        self._metrics.view_writes.labels("repaired").inc(self._repairer.publish(self._view, due))
        for one in due:
            self._outranked.settle(one.product_id, one.partition)

    def _advance(self) -> None:
        """Move the positions past what is settled; now and then look after the view while there is nothing to write."""
        if self._in_doubt:
            return
        moves = {one: (self._next[one], self._outranked.settled(one, end)) for one, end in self._read.items()}
        if time.monotonic() - self._confirmed < CHECK_S:
            moves = {one: move for one, move in moves.items() if move[0] != move[1]}
            if not moves:
                return
        self._move(moves)

    def _move(self, moves: Mapping[int, tuple[int, int]]) -> None:
        if not self._view.move_positions(self._topic, self._topic_id, moves):
            log.warning("view_positions_changed", topic=self._topic)
            self._in_doubt = True
            return
        self._confirmed = time.monotonic()
        with self._moved:
            self._next.update((partition, end) for partition, (_, end) in moves.items())
            self._moved.notify_all()

    def _react(self, message: Message) -> None:
        """What an error that stands in for a record means.

        Raises:
            FatalError: the client cannot go on.
        """
        error, partition = message.error(), message.partition()
        if error is None:
            return
        _refuse_fatal(error)
        if error.code() == KafkaError._PARTITION_EOF:
            end = self._ends[partition or 0] = message.offset() or 0
            if partition in self._read:  # past what has no record too: the marks of transactions, what was compacted
                self._read[partition] = max(self._read[partition], end)
            return
        log.warning("view_read_error", topic=self._topic, partition=partition, code=error.name(), detail=error.str())
        gone = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
        if error.code() in gone and partition in self._next:
            # Retention passed the position by (or the log was cut): what is still there is all that can be applied.
            self._move({partition: (self._next[partition], FROM_BEGINNING)})
            self._in_doubt = True
        elif error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID):
            self._in_doubt = True

    def _assigned(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._owned = tuple(sorted(one.partition for one in partitions))
        self._in_doubt = True
        consumer.assign([])  # until `_resume` knows where to read on from

    def _lost(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._given_up()
        consumer.unassign()

    def _given_up(self) -> None:
        for partition in self._owned:
            self._broker.forget_lag(partition)
        self._owned = ()
        self._in_doubt = True
        with self._moved:
            self._next = {}
        self._read = {}

    def _wait(self, consumer: Consumer, event: str, detail: str) -> None:
        """Drop what is under way and stay in the group for a while, reading nothing."""
        first, longest = BACKOFF_S
        pause_s = min(longest, first * 2**self._failures) * random.uniform(0.5, 1.0)
        if detail != self.reason:
            log.warning(event, detail=detail, next_try_s=round(pause_s, 2))
        self.reason = detail
        self._failures = min(self._failures + 1, 16)
        self._in_doubt = True
        if self._owned:
            consumer.assign([])
        until = time.monotonic() + pause_s
        while not self._stopping.is_set() and (left_s := until - time.monotonic()) > 0:
            for message in polled(consumer, 1, min(left_s, POLL_S)):
                if (error := message.error()) is not None:
                    _refuse_fatal(error)


class _FencedError(Exception):
    """The reader's client is fenced."""


def _refuse_fatal(error: KafkaError) -> None:
    if fenced(error):
        raise _FencedError(f"the view's reader is fenced: {error.str()}")
    if error.fatal():
        raise FatalError(f"the view's consumer cannot go on: {error.str()}")
