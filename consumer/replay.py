"""Categorizes a range of a topic again, beside the live service and without disturbing it.

It reads a bounded range (`replay_range`, `spans`) under a group of its own, sends it through the same pipeline, and
asks the view before it publishes (`view_guard`): what the view ranks higher is `superseded`. While the view is away
it waits. What was done is committed under its group: stopped and started again under it, a replay goes on there.

The race that the view cannot see (a live result that is not in it yet) is mended by rank where the topic is read.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from consumer.delivery import Delivery
from consumer.errors import FatalError
from consumer.fetch import PhotoFetcher
from consumer.intake import incoming
from consumer.kafka import (
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
    make_producer,
)
from consumer.metrics import Metrics
from consumer.offsets import Lease, Offsets
from consumer.pipeline import Pipeline
from consumer.records import Incoming
from consumer.replay_pace import Pace
from consumer.replay_range import Range, Survey, look, open_consumer, survey
from consumer.settings import Settings
from consumer.spans import Remaining, Span
from consumer.view import View
from consumer.view_guard import ViewGuard
from consumer.worker import Model

__all__ = ["Progress", "Range", "Replay", "Summary", "Survey", "look"]

log = structlog.get_logger("mmcat.replay")

OUTCOMES = ("result", "tombstone", "dead_letter", "superseded")
CONSUME_S = 0.05
CONSUME_RECORDS = 500
IDLE_S = 0.02
BROKER_S = 15.0
PROGRESS_S = 0.2

Progress = Callable[[int, int], None]
"""Called now and then with how many offsets of the range are done and how many there are."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a replay did.

    Args:
        survey: what the range held when it began.
        group_id: under which it can be gone on with.
        outcomes: how many of each.
        seconds: how long it took.
        complete: whether the whole range has its outcomes; False when it was stopped.
    """

    survey: Survey
    group_id: str
    outcomes: dict[str, int]
    seconds: float
    complete: bool

    def summary(self) -> dict[str, object]:
        """As JSON."""
        records = sum(self.outcomes.values())
        return {
            **self.survey.summary(),
            "group": self.group_id,
            "records": records,
            "outcomes": self.outcomes,
            "seconds": round(self.seconds, 3),
            "records_per_second": round(records / self.seconds, 1) if self.seconds else None,
            "complete": self.complete,
        }


class Replay:
    """One replay: constructed, then `run` once.

    Args:
        settings: of the live service, its topics and view above all.
        model: that answers.
        wanted: the range.
        rate: records a second at most; None is as fast as it goes.
        on_progress: told now and then.

    Raises:
        ConfigError: the range cannot be replayed under these settings.
    """

    def __init__(
        self,
        settings: Settings,
        model: Model,
        wanted: Range,
        *,
        rate: float | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self._settings, self._wanted, self._on_progress = settings, wanted, on_progress
        self._stopping = threading.Event()  # nothing more is read
        self._abandoned = threading.Event()  # nothing more is waited for
        self._death: BaseException | None = None
        self._failed: deque[Lease] = deque()
        self._pace = Pace(rate)
        self._metrics = Metrics()
        self._guard = ViewGuard(View.from_settings(settings.view), self._abandoned)
        self._consumer = open_consumer(settings, wanted)
        producer = make_producer(settings.kafka, extra={"message.max.bytes": settings.limits.dead_letter_bytes})
        self._delivery = Delivery(producer, self._died)
        self._pipeline = Pipeline(
            settings,
            model,
            PhotoFetcher.from_settings(settings.photo),
            self._delivery,
            self._metrics,
            on_failed=self._failed.append,
            on_death=self._died,
            outranked=self._guard,
            attempt=1,
        )
        self._offsets = Offsets()
        self._remaining = Remaining(())
        self._spans: tuple[Span, ...] = ()

    def stop(self) -> None:
        """Read nothing more, finish what is in flight, commit; safe from a signal handler or another thread."""
        self._stopping.set()

    @property
    def waiting(self) -> bool:
        """Whether it stands still because the view is away."""
        return self._guard.waiting

    def run(self) -> Summary:
        """Replay the range; blocks until it is done or stopped.

        Raises:
            ConfigError: the topic cannot be replayed.
            FatalError: a part died, or the broker refuses; what was finished is committed.
            KafkaException: the broker is away before the first record.
        """
        began = time.monotonic()
        try:
            found = survey(self._consumer, self._wanted.topic, self._wanted.start, self._wanted.end)
            self._begin(found)
            self._delivery.start()
            self._pipeline.start()
            try:
                complete = self._read()
            finally:
                self._end()
        finally:
            self._consumer.close()
        if self._death is not None:
            raise FatalError(f"the replay stopped, a part of it died: {self._death!r}") from self._death
        return Summary(found, self._wanted.group_id, self._outcomes(), time.monotonic() - began, complete)

    # What happens in the poll thread.
    def _begin(self, found: Survey) -> None:
        """Assign what the group has not done yet."""
        topic = found.topic
        asked = [TopicPartition(topic, span.partition) for span in found.spans]
        done = {one.partition: one.offset for one in self._consumer.committed(asked, timeout=BROKER_S)} if asked else {}
        starts = {span.partition: max(span.start, done.get(span.partition, 0)) for span in found.spans}
        left = [Span(one.partition, starts[one.partition], one.end) for one in found.spans]
        self._spans = tuple(one for one in left if one.start < one.end)
        self._remaining = Remaining(self._spans)
        self._consumer.assign([TopicPartition(topic, one.partition, one.start) for one in self._spans])
        for one in self._spans:
            self._offsets.begin((topic, one.partition))
        log.info("replay_started", topic=topic, group=self._wanted.group_id, at_most=self._total)

    def _read(self) -> bool:
        """Poll until everything in the range has its outcome; returns False when it was stopped before."""
        committed_at = told_at = time.monotonic()
        while self._remaining.open or self._pipeline.budget.items or self._failed:
            if self._stopping.is_set():
                return False
            self._read_again()
            self._poll()
            now = time.monotonic()
            if now - committed_at >= self._settings.commit_interval_s:
                self._commit(self._offsets.changed())
                committed_at = now
            if self._on_progress is not None and now - told_at >= PROGRESS_S:
                self._on_progress(self._passed(), self._total)
                told_at = now
        self._offsets.end([lease.partition for lease in self._offsets.leases])
        self._commit({(self._wanted.topic, span.partition): span.end for span in self._spans})  # past empty offsets too
        if self._on_progress is not None:
            self._on_progress(self._total, self._total)
        return True

    def _poll(self) -> None:
        budget = self._pipeline.budget
        allowed = 0 if budget.full() else self._pace.allowed(min(CONSUME_RECORDS, budget.room))
        if not allowed or not self._remaining.open:
            self._stopping.wait(IDLE_S)
            return
        polled = self._consumer.consume(allowed, CONSUME_S)
        taken = [work for message in polled if (work := self._taken(message)) is not None]
        self._pace.spend(len(taken))
        self._pipeline.submit(taken)

    def _taken(self, message: Message) -> tuple[Incoming, Lease] | None:
        """What a polled message means: a record of the range, the end of a partition, or an error."""
        partition, offset, error = message.partition(), message.offset(), message.error()
        if error is not None:
            self._told(error, partition, offset)
            return None
        if partition is None or offset is None or not self._remaining.record(partition, offset):
            return None
        lease = self._offsets.lease((self._wanted.topic, partition))
        if lease is None or lease.ended:
            return None
        lease.start(offset)
        return incoming(message), lease

    def _told(self, error: KafkaError, partition: int | None, offset: int | None) -> None:
        if error.code() == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
            self._remaining.end_of_partition(partition, offset)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET and partition is not None:
            where = TopicPartition(self._wanted.topic, partition)
            low, _ = self._consumer.get_watermark_offsets(where, timeout=BROKER_S)
            log.warning("replay_records_gone", partition=partition, up_to=low)
            if (start := self._remaining.gone_up_to(partition, low)) is not None:
                self._consumer.seek(TopicPartition(self._wanted.topic, partition, start))
        elif error.fatal() or error.code() in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
            KafkaError.UNKNOWN_TOPIC_OR_PART,
        ):
            raise FatalError(f"the broker refuses to let {self._wanted.topic} be read: {error.str()}")

    def _read_again(self) -> None:
        """Where the broker did not take a record, go back to the first one that has no outcome."""
        while self._failed:
            lease = self._failed.popleft()
            if (start := lease.end()) is None:
                continue  # another record of the same lease failed before: it was begun anew already
            topic, partition = lease.partition
            self._offsets.begin(lease.partition)
            end = next(span.end for span in self._spans if span.partition == partition)
            self._remaining.again(Span(partition, start, end))
            self._consumer.seek(TopicPartition(topic, partition, start))
            log.warning("replay_reads_again", partition=partition, offset=start)

    def _commit(self, offsets: dict[tuple[str, int], int]) -> None:
        if not offsets:
            return
        try:
            self._consumer.commit(
                offsets=[TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()],
                asynchronous=False,
            )
        except KafkaException as error:  # nothing is lost: the next commit says it again
            log.warning("replay_commit_failed", error=error.args[0].str())
            self._offsets.forget(offsets)

    def _end(self) -> None:
        """Finish what is in flight up to a deadline, then stop the parts; the group reads what is left another time."""
        if self._death is None:
            self._pipeline.budget.wait_empty(self._settings.shutdown_s)
        last = self._offsets.end([lease.partition for lease in self._offsets.leases])
        self._abandoned.set()  # under an ended lease nothing is finished, so what is called outranked now is not lost
        self._pipeline.stop()
        self._delivery.stop()
        self._guard.close()
        self._commit(last)

    @property
    def _total(self) -> int:
        return sum(span.at_most for span in self._spans)

    def _passed(self) -> int:
        left = {lease.partition[1]: lease.committable() for lease in self._offsets.leases}
        return sum((left[span.partition] or span.start) - span.start for span in self._spans)

    def _outcomes(self) -> dict[str, int]:
        value = self._metrics.registry.get_sample_value
        found = {one: int(value("mmcat_listings_total", {"outcome": one}) or 0) for one in OUTCOMES}
        found["superseded"] -= self._guard.unanswered
        return found

    # What other threads tell.
    def _died(self, error: BaseException) -> None:
        self._death = error
        self._stopping.set()
