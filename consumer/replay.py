"""Categorizes a range of a topic again, beside the live service and without disturbing it.

    plan ─> first pass (what is newest) ─> read ─> sieve ─> pipeline ─> guard ─> broker, or a comparison

It reads the offsets of its plan (`replay_plan`, `replay_reader`) twice: first to learn which event of each product is
the last, then to work. What the range or the view outdates costs neither photo nor model (`replay_sieve`); the rest
goes through the same pipeline as live events, and the view is asked before anything is published (`view_guard`):
what it ranks higher is `superseded`. While the view is away it waits. What was done is committed under the plan's
group: stopped and started again, a replay goes on there. As-of replays (into a shadow topic) skip nothing and ask
nobody; comparisons (`replay_diff`) write nothing.

The race that the view cannot see (a live result that is not in it yet) is mended by rank where the topic is read.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import structlog

from consumer.delivery import Delivery
from consumer.errors import FatalError
from consumer.fetch import LargeBodies, PhotoFetcher
from consumer.held_order import HeldOrder
from consumer.kafka import KafkaException, TopicPartition, make_producer
from consumer.metrics import Metrics
from consumer.offsets import Lease, Offsets
from consumer.pipeline import Pipeline
from consumer.records import Incoming
from consumer.replay_pace import Pace
from consumer.replay_plan import Plan, Summary, left, refuse_unfit
from consumer.replay_range import open_consumer
from consumer.replay_reader import RangeReader
from consumer.replay_sieve import OUTDATED, Sieve, Unneeded
from consumer.replay_sinks import Compare, Comparing, Shadow, Sink
from consumer.settings import Settings
from consumer.spans import Span
from consumer.view import View
from consumer.view_guard import ViewGuard
from consumer.work import Work
from consumer.worker import Model

log = structlog.get_logger("mmcat.replay")

OUTCOMES: Final = ("result", "tombstone", "dead_letter", "superseded")
CONSUME_RECORDS: Final = 500
IDLE_S: Final = 0.02
PROGRESS_S: Final = 0.2

Progress = Callable[[str, int, int], None]
"""Called now and then with the stage, how many offsets of it are done, and how many there are."""


class Replay:
    """One run of a plan: constructed, then `run` once.

    Args:
        settings: of the live service, its topics and view above all.
        model: that answers.
        plan: what to work; its group says what of it is done.
        on_progress: told now and then.
        compare: told of each outcome instead of the broker; nothing is written and nothing committed then.
        sample: work about so many of the events only, all of a product or none; None: all.
    """

    def __init__(
        self,
        settings: Settings,
        model: Model,
        plan: Plan,
        *,
        on_progress: Progress | None = None,
        compare: Compare | None = None,
        sample: int | None = None,
    ) -> None:
        self._settings, self._model, self._plan = settings, model, plan
        self._on_progress, self._compare = on_progress, compare
        self._stopping = threading.Event()  # nothing more is read
        self._abandoned = threading.Event()  # nothing more is waited for
        self._death: BaseException | None = None
        self._failed: deque[Lease] = deque()
        self._pace = Pace(plan.rate)
        self._told_at = time.monotonic()
        self._metrics = Metrics()
        self._unneeded: Counter[Unneeded] = Counter()
        view = View.from_settings(settings.view)
        self._guard = ViewGuard(view, self._abandoned, keep_seen=not plan.allow_blind)
        self._sieve = Sieve(settings, model.info.created_ms, self._guard, sample)
        self._consumer = open_consumer(settings, plan.group)
        self._offsets = Offsets()
        self._spans: tuple[Span, ...] = ()

    def stop(self) -> None:
        """Read nothing more, finish what is in flight, commit; safe from a signal handler or another thread."""
        self._stopping.set()

    @property
    def waiting(self) -> bool:
        """Whether it stands still because the view is away."""
        return self._guard.waiting

    def run(self) -> Summary:
        """Replay what the plan's group has not done; blocks until it is done or stopped.

        Raises:
            ConfigError: the plan cannot be worked with this model, these settings, this broker.
            FatalError: a part died, or the broker refuses; what was finished is committed.
            KafkaException: the broker is away before the first record.
        """
        began = time.monotonic()
        try:
            refuse_unfit(self._settings, self._plan, self._model.info)
            self._spans = left(self._consumer, self._plan)
            self._total = sum(span.at_most for span in self._spans)
            log.info("replay_started", topic=self._plan.topic, group=self._plan.group, at_most=self._total)
            complete = self._first_pass() and self._work()
        finally:
            self._guard.close()
            self._consumer.close()
        if self._death is not None:
            raise FatalError(f"the replay stopped, a part of it died: {self._death!r}") from self._death
        return Summary(self._plan, self._outcomes(), self._superseded(), time.monotonic() - began, complete)

    # What happens in the poll thread.
    def _first_pass(self) -> bool:
        """Learn what is newest in the range; returns False when stopped. As-of replays outdate nothing."""
        if self._plan.as_of:
            return True
        reader = RangeReader(self._consumer, self._plan.topic, self._spans)
        read = 0
        while reader.open and not self._stopping.is_set():
            records = reader.read(CONSUME_RECORDS)
            self._sieve.note(records)
            read += len(records)
            self._tell("looking ahead", read)
        return not self._stopping.is_set()

    def _work(self) -> bool:
        """Send the range through the pipeline; returns whether all of it has its outcomes."""
        self._sink = self._make_sink()
        topics = self._settings.topics.model_copy(update={"output": self._plan.output})
        bodies = LargeBodies(self._settings.limits.large_photo_bytes)
        self._pipeline = Pipeline(
            self._settings.model_copy(update={"topics": topics}),
            self._model,
            PhotoFetcher.from_settings(self._settings.photo, bodies),
            self._sink,
            self._metrics,
            on_failed=self._failed.append,
            on_death=self._died,
            outranked=None if self._plan.as_of else self._guard,
            held_order=self._held_order(),
            bodies=bodies,
            attempt=1,
        )
        self._reader = RangeReader(self._consumer, self._plan.topic, self._spans)
        for one in self._spans:
            self._offsets.begin((self._plan.topic, one.partition))
        self._sink.start()
        self._pipeline.start()
        try:
            return self._read()
        finally:
            self._end()

    def _held_order(self) -> HeldOrder | None:
        """Says which order deletions without a version take; as-of replays ask nobody, and have dead letters."""
        by_version = self._settings.order_by == "version" and not self._plan.as_of
        return HeldOrder(self._settings, self._died) if by_version else None

    def _make_sink(self) -> Sink:
        if self._compare is not None:
            return Comparing(self._plan.output, self._guard, self._abandoned, self._compare)
        limit = {"message.max.bytes": self._settings.limits.dead_letter_bytes}
        delivery: Delivery[Work] = Delivery(make_producer(self._settings.kafka, extra=limit), self._died)
        return Shadow(delivery, self._plan.output) if self._plan.as_of else delivery

    def _read(self) -> bool:
        """Poll until everything in the range has its outcome; returns False when it was stopped before."""
        committed_at = time.monotonic()
        while self._reader.open or self._pipeline.budget.items or self._failed:
            if self._stopping.is_set():
                return False
            self._read_again()
            if not self._poll():
                return False
            now = time.monotonic()
            if now - committed_at >= self._settings.commit_interval_s:
                self._commit(self._offsets.changed())
                committed_at = now
            self._tell("replaying", self._passed())
        self._offsets.end([lease.partition for lease in self._offsets.leases])
        self._commit({(self._plan.topic, span.partition): span.end for span in self._spans})  # past empty offsets too
        self._tell("replaying", self._total, last=True)
        return True

    def _poll(self) -> bool:
        """Take what there is room for; returns False when stopped with records in hand, which were never begun."""
        budget = self._pipeline.budget
        budget.wait_room(IDLE_S)
        allowed = self._pace.allowed(min(CONSUME_RECORDS, budget.room))
        if not allowed or not self._reader.open:
            self._stopping.wait(IDLE_S)
            return True
        records = self._reader.read(allowed)
        reasons = [None] * len(records) if self._plan.as_of else self._sieve.sift(records, self._stopping)
        if reasons is None:
            return False
        needed: list[tuple[Incoming, Lease]] = []
        for record, reason in zip(records, reasons, strict=True):
            lease = self._offsets.lease((record.place.topic, record.place.partition))
            if lease is None or lease.ended:
                continue  # to be read again from where it failed
            lease.start(record.place.offset)
            if reason is None:
                needed.append((record, lease))
            else:
                lease.finish(record.place.offset)
                self._unneeded[reason] += 1
        self._pace.spend(len(needed))
        self._pipeline.submit(needed)
        return True

    def _read_again(self) -> None:
        """Where the broker did not take a record, go back to the first one that has no outcome."""
        while self._failed:
            lease = self._failed.popleft()
            if (start := lease.end()) is None:
                continue  # another record of the same lease failed before: it was begun anew already
            self._offsets.begin(lease.partition)
            self._reader.again(lease.partition[1], start)
            log.warning("replay_reads_again", partition=lease.partition[1], offset=start)

    def _commit(self, offsets: dict[tuple[str, int], int]) -> None:
        if not offsets or self._compare is not None:
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
        self._sink.stop()
        self._commit(last)

    # What is said of it.
    def _tell(self, stage: str, done: int, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is not None and (last or now - self._told_at >= PROGRESS_S):
            self._on_progress(stage, done, self._total)
            self._told_at = now

    def _passed(self) -> int:
        done = {lease.partition[1]: lease.committable() for lease in self._offsets.leases}
        return sum((done[span.partition] or span.start) - span.start for span in self._spans)

    def _outcomes(self) -> dict[str, int]:
        value = self._metrics.registry.get_sample_value
        found = {one: int(value("mmcat_listings_total", {"outcome": one}) or 0) for one in OUTCOMES}
        found["superseded"] = sum(self._superseded().values())
        return found

    def _superseded(self) -> dict[str, int]:
        value = self._metrics.registry.get_sample_value
        after_work = int(value("mmcat_listings_total", {"outcome": "superseded"}) or 0) - self._guard.unanswered
        return {
            **{str(reason): self._unneeded[reason] for reason in OUTDATED},
            "photo_seen": self._guard.seen_kept,
            "outranked": after_work - self._guard.seen_kept,
        }

    # What other threads tell.
    def _died(self, error: BaseException) -> None:
        self._death = error
        self._stopping.set()
