"""From a polled record to its acknowledged outcome: the only file that knows all the stages between.

    submit ─> parse ─┬─ refusal ────────────────────────────────> dead letter ─┐
                     ├─ deletion ─────> order of the product ───> tombstone ───┤
                     └─ event ─> photo ─> order ─> batch ─> engine ─> result ──┴─> acknowledged ─> offset finished
                                   └ not there yet: the answer without it, and a retry beside it

A retry goes the same way, but asks the view first, before it begins and before it is published, and keeps no place in
the order of live events: it waits for the view, they never wait for it.
The service (live) and the replay (a range) give it records under leases; it gives back finished offsets, and says which
leases failed. It knows nothing of assignments and commits, and holds no Kafka consumer.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from typing import Final, Protocol

import structlog

from consumer.batching import Batcher
from consumer.budget import Budget
from consumer.dead_letters import dead_letter
from consumer.delivery import Outcomes
from consumer.events import Code, Deletion, Event, Refusal, parse
from consumer.feature_cache import FeatureCache
from consumer.fetch import Fetched, LargeBodies, Validators
from consumer.fetch.bodies import SMALL_BYTES
from consumer.held_order import HeldOrder, Unknown
from consumer.known_photos import Known, KnownPhotos
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.order import order_of, takes_held_order
from consumer.ordering import Ordering, SentOrders
from consumer.records import Incoming, Outgoing
from consumer.results import (
    Answered,
    Audit,
    Reason,
    Reused,
    best_possible,
    result_record,
    reused_record,
    review_copy,
    tombstone,
)
from consumer.retries import Delay, Delays, retry_record
from consumer.reuse import Answer, Reuse
from consumer.settings import Settings
from consumer.stages import Stage, Stages
from consumer.view_guard import LateGuard
from consumer.work import UNPREPARED, Work
from consumer.worker import Answers, EngineThread, Model
from mmcat.listing import ImageStatus, Listing, PhotoVectors, Prepared, Result

log = structlog.get_logger("mmcat.pipeline")

# What a listing with a photo weighs until its pixels are there: a photo so small waits for nobody, what is larger is
# counted by fetch/bodies.py.
PHOTO_RESERVE_BYTES: Final = SMALL_BYTES
# Headers and framing of a dead letter, below what the topic accepts.
DEAD_LETTER_ROOM_BYTES: Final = 32 * 1024


class Fetcher(Protocol):
    """What the pipeline needs of a photo fetcher; it lives in the pipeline's loop."""

    async def start(self) -> None:
        """Open the pool."""

    async def close(self) -> None:
        """Close it."""

    async def fetch(self, url: str, deadline: float, known: Validators | None = None) -> Fetched:
        """Fetch by a monotonic deadline, but not what is known and unchanged; raises nothing but cancellation."""
        ...


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
        on_outcome: told of every acknowledged outcome, with the lease and the offset of its record.
        outranked: None publishes everything (live events come in order).
        late: whom retries ask; None: there are none, and a photo that is not there now is never asked for again.
        held_order: says which order a deletion without a version takes; None: such a deletion is a dead letter.
        bodies: what the fetcher holds of large photos; None: it counts nothing.
        attempt: written into results; 0 is live.
        reuse: whether answers that the view holds may be reused, if the settings say so.
    """

    def __init__(
        self,
        settings: Settings,
        model: Model,
        fetcher: Fetcher,
        delivery: Outcomes,
        metrics: Metrics,
        *,
        on_failed: Callable[[Lease], None],
        on_death: Callable[[BaseException], None],
        on_outcome: Callable[[Lease, int, str], None] | None = None,
        outranked: Outranked | None = None,
        late: LateGuard | None = None,
        held_order: HeldOrder | None = None,
        bodies: LargeBodies | None = None,
        attempt: int = 0,
        reuse: bool = False,
    ) -> None:
        self._settings, self._model, self._fetcher = settings, model, fetcher
        self._delivery, self._metrics = delivery, metrics
        # A look-up of labels costs as much as a hash of the event: once per label, not once per listing.
        self._photos, self._listings = cache(metrics.photo.labels), cache(metrics.listings.labels)
        self._on_failed, self._on_death, self._on_outcome = on_failed, on_death, on_outcome
        self._outranked, self._attempt = outranked, attempt
        self._late, self._held_order = late, held_order
        self._delays = Delays.of(settings) if late is not None else Delays(())
        self._version = version("mmcat")
        self._audit = Audit.of(settings.review)
        beside = (lambda: 0) if bodies is None else (lambda: bodies.bytes)
        self.budget = Budget(settings.limits.in_flight_bytes, settings.limits.in_flight_listings, beside)
        self._live_order: Ordering[Work] = Ordering()
        self._late_order: Ordering[Work] = Ordering()
        self._sent_orders = SentOrders()
        batch = settings.batch
        self._batcher: Batcher[Work] = Batcher(batch.max_listings, batch.max_bytes, batch.max_age_ms / 1000)
        self._engine = EngineThread(model, self._batcher, settings.model.top_k, self._answered, on_death)
        self._decoders = ThreadPoolExecutor(settings.photo.decode_threads, "decode")
        self._features = FeatureCache.from_settings(settings.feature_cache, metrics)
        model.keep_features(self._features)
        self._known = None if self._features is None else KnownPhotos(self._features, model)
        self._looking = ThreadPoolExecutor(1, "known")  # one: it asks for all photos of a poll at once
        self._loop = asyncio.new_event_loop()
        self._loop_thread = threading.Thread(target=self._run_loop, name="fetch", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
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
        self._loop_thread.start()
        asyncio.run_coroutine_threadsafe(self._fetcher.start(), self._loop).result()
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
        if self._loop_thread.is_alive():
            with suppress(TimeoutError):  # a fetch that does not let go dies with the process
                asyncio.run_coroutine_threadsafe(self._close_loop(), self._loop).result(5.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop_thread.join(5.0)
        for pool in (self._decoders, self._looking):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._features is not None:
            self._features.close()
        if not self._loop_thread.is_alive():
            self._loop.close()

    def submit(self, records: Sequence[tuple[Incoming, Lease]]) -> None:
        """Take records in the order of their partitions. Does not block. Their leases have been told (`start`)."""
        events: list[Work] = []
        started = time.perf_counter()
        for incoming, lease in records:
            work = Work(incoming, lease, time.monotonic())
            self.budget.add(work.size_bytes)
            parsed = self._parsed(incoming)
            if isinstance(parsed, Refusal):
                self._dead(work, parsed.code, parsed.detail)
                continue
            if incoming.key is None:
                self._metrics.keyless.inc()
            work.parsed, work.product_id = parsed, parsed.product_id
            work.order = order = order_of(incoming, parsed, self._settings.order_by)
            self._ordering(work).enter(work)
            if self._late is not None and incoming.attempt and order is not None:
                self._late.ask(self._best_possible(work, order), partial(self._begin_late, work))
            elif isinstance(parsed, Deletion):
                self._prepare(work, None, None)
            else:
                events.append(work)
        if events and self._reuse is not None:
            self._reuse.ask(events)
        else:
            self._infer(events)
        if records:
            self._worked("take", time.perf_counter() - started)

    def _asked(self, works: Sequence[tuple[Work, Answer | None]]) -> None:
        """In the thread that asks the view: what is held of these events is theirs too, or nothing is."""
        for work, answer in works:
            if answer is not None:
                work.answer = answer
                self._ordered(work)
        self._infer([work for work, answer in works if answer is None])

    def _infer(self, works: Sequence[Work]) -> None:
        """The way of an event to the model."""
        fetches: list[Work] = []
        for work in works:
            if self._has_photo(work):
                fetches.append(work)
            else:
                self._prepare(work, None, None)
        if fetches:
            self._loop.call_soon_threadsafe(self._spawn, fetches)

    def drop_waiting(self) -> None:
        """Give up what waits for a view that is away: it has no outcome, so it is read again."""
        for asked in (self._late, self._held_order):
            if asked is not None and asked.waiting:
                asked.abandon()

    def _ordering(self, work: Work) -> Ordering[Work]:
        return self._late_order if work.incoming.attempt else self._live_order

    # parse ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _parsed(self, incoming: Incoming) -> Event | Deletion | Refusal:
        if incoming.fault:
            return Refusal(Code.RETRY_HEADERS, incoming.fault)
        order_by = self._settings.order_by
        parsed = parse(incoming.key, incoming.value, max_bytes=self._settings.limits.event_bytes)
        if isinstance(parsed, Refusal) or order_of(incoming, parsed, order_by) is not None:
            return parsed
        if self._held_order is not None and takes_held_order(incoming, parsed, order_by):
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
            self._go(self._conclude(work, [], "", outranked))
        elif self._has_photo(work):
            self._loop.call_soon_threadsafe(self._spawn, [work])
        else:
            self._prepare(work, None, None)

    def _without_photo(self, work: Work, fetched: Fetched) -> None:
        """The photo is not there: finally, or a later attempt asks for it again."""
        delay = self._delay_after(work.incoming, fetched)
        if delay is None:
            self._prepare(work, None, fetched.status)
            return
        if not work.incoming.answered:
            work.later = retry_record(work.incoming, delay, _now_ms())
            self._prepare(work, None, ImageStatus.PENDING)
        elif work.lease.ended:
            self._go(self._drop(work))
        else:  # the answer without the photo is there: this attempt has none
            self._hand_on(work, delay)

    def _hand_on(self, work: Work, delay: Delay) -> None:
        """No outcome now: a later attempt has it."""
        self._send(work, [retry_record(work.incoming, delay, _now_ms())], None)
        self._go(self._ordering(work).leave(work))

    def _delay_after(self, incoming: Incoming, fetched: Fetched) -> Delay | None:
        age_s = time.time() - incoming.origin.timestamp_ms / 1000
        if not fetched.retryable or (fetched.not_found and age_s >= self._settings.photo.fresh_s):
            return None
        return self._delays.after(incoming.place.topic, fetched.retry_after_s)

    # photo ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _has_photo(self, work: Work) -> bool:
        """Whether there is one to be fetched; makes room for it."""
        if not isinstance(work.parsed, Event) or not work.parsed.image_url:
            return False
        self._resize(work, work.size_bytes + PHOTO_RESERVE_BYTES)
        return True

    def _spawn(self, works: Sequence[Work]) -> None:
        if self._known is not None:
            self._begin(self._look(self._known, works))
        else:
            for work in works:
                self._begin(self._photo(work, None))

    def _begin(self, photos: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(photos)
        self._tasks.add(task)
        task.add_done_callback(self._photo_over)

    async def _look(self, photos: KnownPhotos, works: Sequence[Work]) -> None:
        """Before they are fetched: what is known of their addresses."""
        known = await self._loop.run_in_executor(self._looking, photos.look, [_image_url(work) for work in works])
        for work, one in zip(works, known, strict=True):
            self._begin(self._photo(work, one))

    def _photo_over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_death(error)  # a listing stuck for ever would hold its partition's offset

    async def _photo(self, work: Work, known: Known | None) -> None:
        """Fetch and decode one photo; whatever happens, the listing goes on."""
        deadline = work.polled_at + self._settings.photo.deadline_s
        started = time.perf_counter()
        fetched = await self._fetcher.fetch(_image_url(work), deadline, None if known is None else known.validators)
        self._worked("fetch", time.perf_counter() - started)
        if fetched.shared:
            self._metrics.shared_work.labels("fetch").inc()
        if fetched.status is not ImageStatus.USED:
            log.debug("photo_missing", product_id=work.product_id, status=fetched.status, detail=fetched.detail)
            self._without_photo(work, fetched)
        else:
            await self._loop.run_in_executor(self._decoders, self._with_photo, work, fetched, known)

    def _with_photo(self, work: Work, fetched: Fetched, known: Known | None) -> None:
        """The photo is here, or it is the one that is known."""
        if fetched.unchanged and known is not None:
            self._metrics.photo_unchanged.inc()
            self._prepare(work, None, None, known.photo)
            return
        prepared = self._prepare(work, fetched.body, None)
        if self._known is not None and fetched.validators is not None and prepared.image is ImageStatus.USED:
            self._known.note(_image_url(work), fetched.validators, prepared.digest)

    def _prepare(
        self, work: Work, body: bytes | None, status: ImageStatus | None, seen: PhotoVectors | None = None
    ) -> Prepared:
        """The model's CPU part, then on to the order of the product. Deletions have none."""
        prepared = UNPREPARED
        if work.lease.ended:
            self._go(self._drop(work))
            return prepared
        if isinstance(work.parsed, Event):
            event = work.parsed
            started = time.perf_counter()
            texts = (event.brand or "", event.maker or "", event.model)
            listing = Listing(event.product_id, event.title, body, *texts, image_status=status, seen=seen)
            try:
                work.prepared = prepared = self._model.prepare(listing)
            except Exception as error:  # a model that raises here is told of, and the listing becomes a dead letter
                self._ordered(work, failed=error)
                return prepared
            if body is not None and prepared.seen is None:
                self._worked("decode", time.perf_counter() - started)
            self._resize(work, work.incoming.size_bytes + prepared.photo_bytes)
            self._photos(prepared.image).inc()
        self._ordered(work)
        return prepared  # the work itself may be done by now

    # order, batch ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _ordered(self, work: Work, failed: Exception | None = None) -> None:
        work.failed = failed
        if self._ordering(work).mark_ready(work):
            self._go(work)

    def _go(self, work: Work | None) -> None:
        """It is this work's turn within its product."""
        while work is not None:
            if work.lease.ended:
                work = self._drop(work)
            elif work.failed is not None:
                work = self._model_failed(work, work.failed)
            elif work.answer is not None:
                work = self._reused(work, work.answer)
            elif work.order is None:
                self._ask_order(work)
                return
            elif isinstance(work.parsed, Deletion):
                generation, topic = self._model.info.created_ms, self._settings.topics.output
                record = tombstone(work.incoming, work.product_id, work.order, generation, topic)
                work = self._publish(work, [record], "tombstone")
            else:
                self._batcher.put(work, work.size_bytes)
                return

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
            self._go(work)
        elif held is Unknown.ABANDONED or work.lease.ended:
            self._go(self._drop(work))
        elif held is Unknown.LATER:
            self._go(self._conclude(work, [], "", outranked=True))
        elif (delay := self._delays.after(work.incoming.place.topic)) is not None:
            self._hand_on(work, delay)
        else:
            self._dead(work, Code.VERSION_MISSING, held.value)
            self._go(self._ordering(work).leave(work))

    # engine, result ───────────────────────────────────────────────────────────────────────────────────────────────

    def _answered(self, answers: Answers[Work], seconds: float) -> None:
        """In the engine thread: a batch has its answers."""
        now, started = _now(), time.perf_counter()
        self._count_shared([work.prepared for work, _ in answers])
        for work, answer in answers:
            if work.lease.ended:
                self._go(self._drop(work))
            elif isinstance(answer, Exception):
                self._go(self._model_failed(work, answer))
            else:
                self._go(self._result(work, answer, now))
        self._worked("model", seconds)
        self._worked("publish", time.perf_counter() - started)
        self._metrics.batch.observe(len(answers))
        log.info("batch", listings=len(answers), seconds=round(seconds, 4), in_flight=self.budget.items)

    def _count_shared(self, batch: Sequence[Prepared]) -> None:
        """How many photos and titles of a batch were those of another listing in it."""
        photos, titles = [one.digest for one in batch if one.digest], [one.text for one in batch if one.text]
        self._metrics.shared_work.labels("photo").inc(len(photos) - len(set(photos)))
        self._metrics.shared_work.labels("title").inc(len(titles) - len(set(titles)))

    def _result(self, work: Work, result: Result, now: str) -> Work | None:
        assert isinstance(work.parsed, Event)  # noqa: S101 (only events reach the engine)
        info, topics = self._model.info, self._settings.topics
        attempt = work.incoming.attempt or self._attempt
        answered = Answered(
            work.incoming, work.parsed, result, work.order or 0, info.created_ms, attempt, categorized_at=now
        )
        record, reason = result_record(answered, info, topics.output, self._audit)
        self._metrics.path_probability.observe(result.probability)
        later = [work.later] if work.later is not None else []
        return self._publish(work, [*self._with_copy(record, reason), *later], "result")

    def _reused(self, work: Work, answer: Answer) -> Work | None:
        assert isinstance(work.parsed, Event)  # noqa: S101 (only events are asked for)
        order, generation = work.order or 0, self._model.info.created_ms
        reused = Reused(work.incoming, work.parsed, answer, order, generation, self._attempt, _now())
        top_k = self._settings.model.top_k
        record, reason = reused_record(reused, self._settings.topics.output, self._audit, top_k)
        return self._publish(work, self._with_copy(record, reason), "result")

    def _with_copy(self, record: Outgoing, reason: Reason | None) -> list[Outgoing]:
        if reason is None:
            return [record]
        self._metrics.review.labels(reason).inc()
        return [record, review_copy(record, reason, self._settings.topics.review)]

    def _model_failed(self, work: Work, error: Exception) -> Work | None:
        self._dead(work, Code.MODEL_FAILED, f"{type(error).__name__}: {error}")
        return self._ordering(work).leave(work)

    # outcome ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _publish(self, work: Work, records: list[Outgoing], outcome: str) -> Work | None:
        """Send the outcome, unless something newer is there; returns the next of the product that may go."""
        if self._late is not None and work.incoming.attempt:
            self._lighten(work)
            self._late.ask(records[0], partial(self._publish_late, work, records, outcome))
            return None
        return self._conclude(work, records, outcome, self._outranked is not None and self._outranked(records[0]))

    def _publish_late(self, work: Work, records: list[Outgoing], outcome: str, outranked: bool | None) -> None:
        """In the guard's thread: the view was asked about the outcome of a retry."""
        if outranked is None or work.lease.ended:
            self._go(self._drop(work))
        else:
            self._go(self._conclude(work, records, outcome, outranked))

    def _conclude(self, work: Work, records: list[Outgoing], outcome: str, outranked: bool) -> Work | None:
        if outranked:
            self._send(work, [], "superseded")
        else:
            self._send(work, records, outcome)
        return self._ordering(work).leave(work)

    def _dead(self, work: Work, code: Code, detail: str) -> None:
        room = self._settings.limits.dead_letter_bytes - DEAD_LETTER_ROOM_BYTES
        topic = self._settings.topics.dead_letter
        record = dead_letter(work.incoming, code, detail, topic=topic, version=self._version, max_bytes=room)
        origin = work.incoming.origin
        log.warning("dead_letter", code=code, detail=detail, partition=origin.partition, offset=origin.offset)
        self._send(work, [record], "dead_letter")

    def _lighten(self, work: Work) -> None:
        work.prepared = UNPREPARED  # the pixels are not needed any more
        self._resize(work, work.incoming.size_bytes)

    def _send(self, work: Work, records: list[Outgoing], outcome: str | None) -> None:
        work.prepared = UNPREPARED  # the pixels are not needed any more
        self._resize(work, work.incoming.size_bytes + sum(record.size_bytes for record in records))
        for record in records:
            if record.topic in self._delays:
                self._metrics.retries.labels(record.topic).inc()
        if work.order is not None:
            self._sent_orders.sent(work.product_id, work.order)
        done = partial(self._done, work, outcome)
        self._delivery.send(records, done, work.lease, work.incoming.place.offset)

    def _done(self, work: Work, outcome: str | None, ok: bool) -> None:
        """All records of the work are acknowledged, or one was not taken. No outcome: the next attempt has it."""
        incoming = work.incoming
        if work.order is not None:
            self._sent_orders.done(work.product_id)
        if ok:
            work.lease.finish(incoming.place.offset)
            if outcome is not None:
                self._listings(outcome).inc()
                if self._on_outcome is not None:
                    self._on_outcome(work.lease, incoming.place.offset, outcome)
            if not incoming.attempt:
                self._metrics.end_to_end.observe(max(0.0, time.time() - incoming.origin.timestamp_ms / 1000))
        elif not work.lease.ended:  # else it is dropped with its lease
            self._metrics.delivery_failures.inc()
            self._on_failed(work.lease)
        self.budget.release(work.size_bytes)

    def _drop(self, work: Work) -> Work | None:
        """Its lease ended: whoever holds the partition now reads it again."""
        self.budget.release(work.size_bytes)
        return self._ordering(work).leave(work)

    def _resize(self, work: Work, size_bytes: int) -> None:
        if size_bytes != work.size_bytes:
            self.budget.resize(work.size_bytes, size_bytes)
            work.size_bytes = size_bytes

    def _worked(self, stage: Stage, seconds: float) -> None:
        self._metrics.stage.labels(stage).observe(seconds)
        self.stages.worked(stage, seconds)

    # loop ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        except BaseException as error:  # without the loop no photo comes any more: tell, whatever it was
            self._on_death(error)

    async def _close_loop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._fetcher.close()


def _image_url(work: Work) -> str:
    """Of an event that has one."""
    assert isinstance(work.parsed, Event)  # noqa: S101 (only events with an address come here)
    return work.parsed.image_url or ""


def _now_ms() -> int:
    return int(time.time() * 1000)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
