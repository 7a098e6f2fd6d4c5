"""From a polled record to its acknowledged outcome: the only file that knows all the stages between, and moves work.

    submit ─> parse ─┬─ refusal ────────────────────────────────> dead letter ─┐
                     ├─ deletion ─────> order of the product ───> tombstone ───┤
                     └─ event ─> photo ─> order ─> batch ─> engine ─> result ──┴─> acknowledged ─> offset finished
                                   └ not there yet: the answer without it, and a retry beside it

A retry goes the same way, but asks the view first, before it begins and before it is published, and keeps no place in
the order of live events: it waits for the view, they never wait for it.
The service (live) and the replay (a range) give it records under leases; it gives back finished offsets, and says which
leases failed. It knows nothing of assignments and commits, and holds no Kafka consumer.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

import structlog

from consumer.batching import Batcher
from consumer.budget import Budget
from consumer.events import Code, Deletion, Event, Refusal, parse
from consumer.fetch import Fetched, LargeBodies
from consumer.held_order import HeldOrder, Unknown
from consumer.last_results import KEPT, LastResults
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.order import order_of, takes_held_order
from consumer.ordering import Ordering, SentOrders
from consumer.outcomes import Outcomes
from consumer.preparing import Fetcher, Preparer
from consumer.publishing import Publisher, now_ms
from consumer.records import Incoming, Outgoing
from consumer.results import best_possible
from consumer.retries import Delay, Delays, retry_record
from consumer.reuse import Answer, Reuse
from consumer.settings import Settings
from consumer.stages import Stage, Stages
from consumer.view_guard import LateGuard
from consumer.work import Work
from consumer.worker import Answers, EngineThread, Model
from mmcat.listing import ImageStatus, Prepared, Result

log = structlog.get_logger("mmcat.pipeline")


class Outranked(Protocol):
    """Asked before a record is published, where work is done out of the input's order (replay)."""

    def __call__(self, record: Outgoing) -> bool:
        """Whether the view holds something newer. May block while the view is away."""
        ...


class Pipeline:
    """The stages, joined.

    Args:
        on_failed: a record of this lease was not taken by the broker: the lease has ended, read its partition again.
        on_death: a thread died; the process must end.
        on_outcomes: told of acknowledged outcomes of one lease, in any order.
        outranked: None publishes everything (live events come in order).
        late: whom retries ask; None: there are none, and a photo that is not there now is never asked for again.
        held_order: says which order a deletion without a version takes; None: such a deletion is a dead letter.
        bodies: what the fetcher holds of large photos; None: it counts nothing.
        last: told of answers; None: nobody asks.
        attempt: written into results; 0 is live.
        reuse: whether answers that the view holds may be reused, if the settings say so.
    """

    def __init__(
        self,
        settings: Settings,
        model: Model,
        fetcher: Fetcher,
        delivery: Outcomes[Work],
        metrics: Metrics,
        *,
        on_failed: Callable[[Lease], None],
        on_death: Callable[[BaseException], None],
        on_outcomes: Callable[[Lease, Sequence[Work]], None] | None = None,
        outranked: Outranked | None = None,
        late: LateGuard | None = None,
        held_order: HeldOrder | None = None,
        bodies: LargeBodies | None = None,
        last: LastResults | None = None,
        attempt: int = 0,
        reuse: bool = False,
    ) -> None:
        self._settings, self._model, self._metrics = settings, model, metrics
        self._outranked, self._last, self._attempt = outranked, last, attempt
        self._late, self._held_order = late, held_order
        self._delays = Delays.of(settings) if late is not None else Delays(())
        beside = (lambda: 0) if bodies is None else (lambda: bodies.bytes)
        self.budget = Budget(settings.limits.in_flight_bytes, settings.limits.in_flight_listings, beside)
        self._live_order: Ordering[Work] = Ordering()
        self._late_order: Ordering[Work] = Ordering()
        self._sent_orders = SentOrders()
        self._publisher = Publisher(
            settings,
            model.info,
            delivery,
            metrics,
            self.budget,
            delays=self._delays,
            sent_orders=self._sent_orders if held_order is not None else None,
            on_failed=on_failed,
            on_outcomes=on_outcomes,
            attempt=attempt,
        )
        batch = settings.batch
        self._batcher: Batcher[Work] = Batcher(batch.max_listings, batch.max_bytes, batch.max_age_ms / 1000)
        self._engine = EngineThread(model, self._batcher, settings.model.top_k, self._answered, on_death)
        self._preparer = Preparer(
            settings,
            model,
            fetcher,
            metrics,
            resize=self._publisher.resize,
            worked=self._worked,
            on_ready=self._ordered,
            on_missing=self._without_photo,
            on_death=on_death,
        )
        reuse = reuse and settings.reuse.max_age_s > 0
        self._reuse = Reuse(settings, model.info, metrics, self._asked, on_death) if reuse else None
        self.stages = Stages({"fetch": settings.photo.concurrency, "decode": settings.photo.decode_threads})
        limit = settings.limits.in_flight_listings
        metrics.watch(
            {"in_flight": lambda: self.budget.items, "limit": lambda: limit, "ready": lambda: len(self._batcher)}
        )
        metrics.in_flight_bytes.set_function(lambda: self.budget.bytes)

    def start(self) -> None:
        """Start the threads."""
        self._preparer.start()
        self._engine.start()
        for asked in (self._reuse, self._late, self._held_order):
            if asked is not None:
                asked.start()

    def stop(self) -> None:
        """End the threads; what is unfinished is dropped. Wait for `budget.wait_empty` before, to finish it."""
        for asked in (self._reuse, self._late, self._held_order):
            if asked is not None:
                asked.stop()
        self._batcher.close()
        self._engine.stop()
        self._engine.join(5.0)
        self._preparer.stop()

    def submit(self, records: Sequence[tuple[Incoming, Lease]]) -> None:
        """Take records in the order of their partitions. Does not block. Their leases have been told (`start`)."""
        if not records:
            return
        started, now = time.perf_counter(), time.monotonic()
        works = [Work(incoming, lease, now, incoming.size_bytes) for incoming, lease in records]
        self.budget.add(sum(work.size_bytes for work in works), len(works))
        events = [work for work in works if self._enter(work)]
        if events and self._reuse is not None:
            self._reuse.ask(events)
        else:
            self._preparer.take(events)
        self._worked("take", time.perf_counter() - started)

    def _enter(self, work: Work) -> bool:
        """Parse, and take a place in the order of the product; returns whether it is an event that may be answered."""
        incoming = work.incoming
        parsed = parse(incoming.key, incoming.value, max_bytes=self._settings.limits.event_bytes)
        order = None if isinstance(parsed, Refusal) else order_of(incoming, parsed, self._settings.order_by)
        if order is None or incoming.fault:
            parsed = self._refused(incoming, parsed)
        work.parsed, work.order = parsed, order
        if isinstance(parsed, Refusal):
            self._publisher.dead(work, parsed.code, parsed.detail)
            return False
        if incoming.key is None:
            self._metrics.keyless.inc()
        work.product_id = parsed.product_id
        self._ordering(work).enter(work)
        if self._late is not None and incoming.attempt and order is not None:
            self._late.ask(self._best_possible(work, order), partial(self._begin_late, work))
            return False
        if isinstance(parsed, Deletion):
            self._ordered([work])
            return False
        return True

    def _asked(self, works: Sequence[tuple[Work, Answer | None]]) -> None:
        """In the thread that asks the view: what is held of these events is theirs too, or nothing is."""
        reused: list[Work] = []
        for work, answer in works:
            if answer is not None:
                work.answer = answer
                reused.append(work)
        self._ordered(reused)
        self._preparer.take([work for work, answer in works if answer is None])

    def drop_waiting(self) -> None:
        """Give up what waits for a view that is away: it has no outcome, so it is read again."""
        for asked in (self._late, self._held_order):
            if asked is not None and asked.waiting:
                asked.abandon()

    def _ordering(self, work: Work) -> Ordering[Work]:
        return self._late_order if work.incoming.attempt else self._live_order

    def _refused(self, incoming: Incoming, parsed: Event | Deletion | Refusal) -> Event | Deletion | Refusal:
        """Why a record cannot be worked that is no event, has no order, or is no retry; what finds its order can be."""
        if incoming.fault:
            return Refusal(Code.RETRY_HEADERS, incoming.fault)
        if isinstance(parsed, Refusal):
            return parsed
        if self._held_order is not None and takes_held_order(incoming, parsed, self._settings.order_by):
            return parsed
        return Refusal(Code.VERSION_MISSING, "order_by is version: the event has none, or none that can be read")

    # late ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _best_possible(self, work: Work, order: int) -> Outgoing:
        deleted = isinstance(work.parsed, Deletion)
        generation = self._model.info.created_ms
        return best_possible(work.incoming, work.product_id, order, generation, deleted=deleted)

    def _begin_late(self, work: Work, outranked: bool | None) -> None:
        """In the guard's thread: the view was asked whether a retry is worth its while."""
        work.polled_at = time.monotonic()  # the time it waited for the view is not the photo's
        if outranked is None or work.lease.ended:
            self._go(self._drop(work))
        elif outranked:
            self._publisher.superseded(work)
            self._go(self._conclude([work]))
        else:
            self._preparer.take([work])

    def _without_photo(self, work: Work, fetched: Fetched) -> None:
        """The photo is not there: finally, or a later attempt asks for it again."""
        delay = self._delay_after(work.incoming, fetched)
        if delay is not None and work.incoming.answered:  # with what it has it was answered before
            self._go(self._drop(work) if work.lease.ended else self._hand_on(work, delay))
            return
        status = fetched.status
        if delay is not None:
            work.later, status = retry_record(work.incoming, delay, now_ms()), ImageStatus.PENDING
        self._preparer.without_photo(work, status)

    def _hand_on(self, work: Work, delay: Delay) -> list[Work]:
        """No outcome now: a later attempt has it."""
        self._publisher.hand_on(work, delay)
        return self._leave([work])

    def _delay_after(self, incoming: Incoming, fetched: Fetched) -> Delay | None:
        age_s = time.time() - incoming.origin.timestamp_ms / 1000
        if not fetched.retryable or (fetched.not_found and age_s >= self._settings.photo.fresh_s):
            return None
        return self._delays.after(incoming.place.topic, fetched.retry_after_s)

    # order, batch ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _ordered(self, works: Sequence[Work]) -> None:
        """Nothing but the order of their products keeps these any more."""
        self._go([work for work in works if self._ordering(work).mark_ready(work)])

    def _go(self, works: Sequence[Work]) -> None:
        """It is the turn of each of these within its product."""
        ready: list[Work] = []
        turns = deque(works)
        while turns:
            work = turns.popleft()
            if work.lease.ended:
                turns += self._drop(work)
            elif work.failed is not None:
                turns += self._model_failed(work, work.failed)
            elif work.answer is not None:
                self._publisher.reused(work, work.answer, _now())
                turns += self._publish([work])
            elif work.order is None:
                self._ask_order(work)
            elif isinstance(work.parsed, Deletion):
                self._publisher.tombstone(work, work.order)
                turns += self._publish([work])
            else:
                ready.append(work)
        self._batcher.put([(work, work.size_bytes) for work in ready])

    def _ask_order(self, work: Work) -> None:
        """A deletion without a version stays the first of its product until it is known which order it takes."""
        assert self._held_order is not None  # noqa: S101 (without it such a deletion is a refusal)
        live = not (work.incoming.attempt or self._attempt)
        within_s = self._settings.photo.deadline_s if live else math.inf
        sent = self._sent_orders.highest(work.product_id)
        self._held_order.ask(work.product_id, work.incoming.origin, within_s, partial(self._told_order, work, sent))

    def _told_order(self, work: Work, sent: int, held: int | Unknown) -> None:
        """In the thread that asked.

        Args:
            sent: the highest order that was on its way when it was asked.
        """
        if isinstance(held, int):
            work.order = max(sent, held)
            self._go([work])
        elif held is Unknown.ABANDONED or work.lease.ended:
            self._go(self._drop(work))
        elif held is Unknown.LATER:
            self._publisher.superseded(work)
            self._go(self._conclude([work]))
        elif (delay := self._delays.after(work.incoming.place.topic)) is not None:
            self._go(self._hand_on(work, delay))
        else:
            self._publisher.dead(work, Code.VERSION_MISSING, held.value)
            self._go(self._leave([work]))

    # engine, outcome ──────────────────────────────────────────────────────────────────────────────────────────────

    def _answered(self, answers: Answers[Work], seconds: float) -> None:
        """In the engine thread: a batch has its answers."""
        now, started = _now(), time.perf_counter()
        self._count_shared([work.prepared for work, _ in answers])
        published: list[Work] = []
        next_turns: list[Work] = []
        probabilities: list[float] = []
        for work, answer in answers:
            if work.lease.ended:
                next_turns += self._drop(work)
            elif isinstance(answer, Exception):
                next_turns += self._model_failed(work, answer)
            else:
                self._publisher.result(work, answer, now)
                published.append(work)
                probabilities.append(answer.probability)
        self._metrics.path_probability.observe_all(probabilities)
        if self._last is not None:
            self._last.add(answer for _, answer in answers[-KEPT:] if isinstance(answer, Result))
        self._go([*next_turns, *self._publish(published)])
        self._worked("model", seconds)
        self._worked("publish", time.perf_counter() - started)
        self._metrics.batch.observe(len(answers))
        log.info("batch", listings=len(answers), seconds=round(seconds, 4), in_flight=self.budget.items)

    def _count_shared(self, batch: Sequence[Prepared]) -> None:
        """How many photos and titles of a batch were those of another listing in it."""
        photos, titles = [one.digest for one in batch if one.digest], [one.text for one in batch if one.text]
        self._metrics.shared_work.labels("photo").inc(len(photos) - len(set(photos)))
        self._metrics.shared_work.labels("title").inc(len(titles) - len(set(titles)))

    def _model_failed(self, work: Work, error: Exception) -> list[Work]:
        self._publisher.dead(work, Code.MODEL_FAILED, f"{type(error).__name__}: {error}")
        return self._leave([work])

    def _publish(self, works: Sequence[Work]) -> list[Work]:
        """Send outcomes, unless something newer is there; returns the next of their products that may go."""
        concluded: list[Work] = []
        for work in works:
            if self._late is not None and work.incoming.attempt:
                self._publisher.lighten(work)
                self._late.ask(work.records[0], partial(self._publish_late, work))
                continue
            if self._outranked is not None and self._outranked(work.records[0]):
                self._publisher.superseded(work)
            concluded.append(work)
        return self._conclude(concluded)

    def _publish_late(self, work: Work, outranked: bool | None) -> None:
        """In the guard's thread: the view was asked about the outcome of a retry."""
        if outranked is None or work.lease.ended:
            self._go(self._drop(work))
            return
        if outranked:
            self._publisher.superseded(work)
        self._go(self._conclude([work]))

    def _conclude(self, works: Sequence[Work]) -> list[Work]:
        """Their outcomes are as they are; returns the next of their products that may go."""
        self._publisher.send(works)
        return self._leave(works)

    def _drop(self, work: Work) -> list[Work]:
        """Its lease ended: whoever holds the partition now reads it again."""
        self._publisher.drop(work)
        return self._leave([work])

    def _leave(self, works: Sequence[Work]) -> list[Work]:
        """Make way in the order of their products; returns the next of each that only this held up."""
        return [then for work in works if (then := self._ordering(work).leave(work)) is not None]

    def _worked(self, stage: Stage, seconds: float) -> None:
        self._metrics.stage.labels(stage).observe(seconds)
        self.stages.worked(stage, seconds)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
