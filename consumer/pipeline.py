"""From a polled record to its acknowledged outcome: the only file that knows all the stages between.

    submit ─> parse ─┬─ refusal ────────────────────────────────> dead letter ─┐
                     ├─ deletion ─────> order of the product ───> tombstone ───┤
                     └─ event ─> photo ─> order ─> batch ─> engine ─> result ──┴─> acknowledged ─> offset finished

The service (live) and the replay (a range) give it records under leases; it gives back finished offsets, and says which
leases failed. It knows nothing of assignments and commits, and holds no Kafka consumer.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final, Protocol

import structlog

from consumer.batching import Batcher
from consumer.budget import Budget
from consumer.dead_letters import dead_letter
from consumer.events import Code, Deletion, Event, Refusal, parse
from consumer.fetch import Fetched
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.order import order_of
from consumer.ordering import Ordering
from consumer.records import Incoming, Outgoing
from consumer.results import Answered, Audit, result_record, review_copy, tombstone
from consumer.settings import Settings
from consumer.work import UNPREPARED, Work
from consumer.worker import Answers, EngineThread, Model
from mmcat.listing import ImageStatus, Listing, Result

log = structlog.get_logger("mmcat.pipeline")

# What a listing with a photo is thought to weigh until its pixels are there: a 224 px square and a photo of 100 kB.
PHOTO_RESERVE_BYTES: Final = 256 * 1024
# Headers and framing of a dead letter, below what the topic accepts.
DEAD_LETTER_ROOM_BYTES: Final = 32 * 1024


class Fetcher(Protocol):
    """What the pipeline needs of a photo fetcher; it lives in the pipeline's loop."""

    async def start(self) -> None:
        """Open the pool."""

    async def close(self) -> None:
        """Close it."""

    async def fetch(self, url: str, deadline: float) -> Fetched:
        """Fetch by a monotonic deadline; raises nothing but cancellation."""
        ...


class Sender(Protocol):
    """Where outcomes go: to the broker (`Delivery`), or where a replay that must not write looks at them."""

    def send(self, records: Sequence[Outgoing], on_done: Callable[[bool], None]) -> None:
        """Take the records of one outcome; `on_done` runs once, True when they are where they belong."""
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
        outranked: None publishes everything (live events come in order).
        attempt: written into results; 0 is live.
    """

    def __init__(
        self,
        settings: Settings,
        model: Model,
        fetcher: Fetcher,
        delivery: Sender,
        metrics: Metrics,
        *,
        on_failed: Callable[[Lease], None],
        on_death: Callable[[BaseException], None],
        outranked: Outranked | None = None,
        attempt: int = 0,
    ) -> None:
        self._settings, self._model, self._fetcher = settings, model, fetcher
        self._delivery, self._metrics = delivery, metrics
        self._on_failed, self._on_death = on_failed, on_death
        self._outranked, self._attempt = outranked, attempt
        self._version = version("mmcat")
        self._audit = Audit(settings.review.audit_share, settings.review.audit_salt.get_secret_value().encode())
        self.budget = Budget(settings.limits.in_flight_bytes, settings.limits.in_flight_listings)
        self._ordering: Ordering[Work] = Ordering()
        batch = settings.batch
        self._batcher: Batcher[Work] = Batcher(batch.max_listings, batch.max_bytes, batch.max_age_ms / 1000)
        self._engine = EngineThread(model, self._batcher, settings.model.top_k, self._answered, on_death)
        self._decoders = ThreadPoolExecutor(settings.photo.decode_threads, "decode")
        self._loop = asyncio.new_event_loop()
        self._loop_thread = threading.Thread(target=self._run_loop, name="fetch", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        metrics.watch({"in_flight": lambda: self.budget.items, "ready": lambda: len(self._batcher)})
        metrics.in_flight_bytes.set_function(lambda: self.budget.bytes)

    def start(self) -> None:
        """Start the threads."""
        self._loop_thread.start()
        asyncio.run_coroutine_threadsafe(self._fetcher.start(), self._loop).result()
        self._engine.start()

    def stop(self) -> None:
        """End the threads; what is unfinished is dropped. Wait for `budget.wait_empty` before, to finish it."""
        self._batcher.close()
        self._engine.stop()
        self._engine.join(5.0)
        if self._loop_thread.is_alive():
            with suppress(TimeoutError):  # a fetch that does not let go dies with the process
                asyncio.run_coroutine_threadsafe(self._close_loop(), self._loop).result(5.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop_thread.join(5.0)
        self._decoders.shutdown(wait=False, cancel_futures=True)
        if not self._loop_thread.is_alive():
            self._loop.close()

    def submit(self, records: Iterable[tuple[Incoming, Lease]]) -> None:
        """Take records in the order of their partitions. Does not block. Their leases have been told (`start`)."""
        fetches: list[Work] = []
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
            self._ordering.enter(work)
            if isinstance(parsed, Event) and parsed.image_url:
                self._resize(work, work.size_bytes + PHOTO_RESERVE_BYTES)
                fetches.append(work)
            else:
                self._prepare(work, None, None)
        if fetches:
            self._loop.call_soon_threadsafe(self._spawn, fetches)

    # parse ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _parsed(self, incoming: Incoming) -> Event | Deletion | Refusal:
        parsed = parse(incoming.key, incoming.value, max_bytes=self._settings.limits.event_bytes)
        if not isinstance(parsed, Refusal) and order_of(incoming, parsed, self._settings.order_by) is None:
            return Refusal(Code.VERSION_MISSING, "order_by is version: events need `version`, deletions the header")
        return parsed

    def _order(self, work: Work) -> int:
        assert not isinstance(work.parsed, Refusal)  # noqa: S101 (a refusal is a dead letter by now)
        return order_of(work.incoming, work.parsed, self._settings.order_by) or 0

    # photo ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _spawn(self, works: Sequence[Work]) -> None:
        for work in works:
            task = self._loop.create_task(self._photo(work))
            self._tasks.add(task)
            task.add_done_callback(self._photo_over)

    def _photo_over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_death(error)  # a listing stuck for ever would hold its partition's offset

    async def _photo(self, work: Work) -> None:
        """Fetch and decode one photo; whatever happens, the listing goes on."""
        assert isinstance(work.parsed, Event)  # noqa: S101 (submit sends only events with an address)
        url, deadline = work.parsed.image_url or "", work.polled_at + self._settings.photo.deadline_s
        started = time.perf_counter()
        fetched = await self._fetcher.fetch(url, deadline)
        self._metrics.stage.labels("fetch").observe(time.perf_counter() - started)
        body = fetched.body if fetched.status is ImageStatus.USED else None
        if body is None:
            log.debug("photo_missing", product_id=work.product_id, status=fetched.status, detail=fetched.detail)
            self._prepare(work, None, fetched.status)
        else:
            self._resize(work, work.incoming.size_bytes + len(body) + PHOTO_RESERVE_BYTES)
            await self._loop.run_in_executor(self._decoders, self._prepare, work, body, None)

    def _prepare(self, work: Work, body: bytes | None, status: ImageStatus | None) -> None:
        """The model's CPU part, then on to the order of the product. Deletions have none."""
        if work.lease.ended:
            self._go(self._drop(work))
            return
        if isinstance(work.parsed, Event):
            event = work.parsed
            started = time.perf_counter()
            texts = (event.brand or "", event.maker or "", event.model)
            listing = Listing(event.product_id, event.title, body, *texts, image_status=status)
            try:
                work.prepared = self._model.prepare(listing)
            except Exception as error:  # a model that raises here is told of, and the listing becomes a dead letter
                self._ordered(work, failed=error)
                return
            if body is not None:
                self._metrics.stage.labels("decode").observe(time.perf_counter() - started)
            pixels = work.prepared.pixels
            self._resize(work, work.incoming.size_bytes + (0 if pixels is None else pixels.nbytes))
            self._metrics.photo.labels(work.prepared.image).inc()
        self._ordered(work)

    # order, batch ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _ordered(self, work: Work, failed: Exception | None = None) -> None:
        work.failed = failed
        if self._ordering.mark_ready(work):
            self._go(work)

    def _go(self, work: Work | None) -> None:
        """It is this work's turn within its product."""
        while work is not None:
            if work.lease.ended:
                work = self._drop(work)
            elif work.failed is not None:
                work = self._model_failed(work, work.failed)
            elif isinstance(work.parsed, Deletion):
                generation = self._model.info.created_ms
                topic = self._settings.topics.output
                record = tombstone(work.incoming, work.product_id, self._order(work), generation, topic)
                work = self._publish(work, [record], "tombstone")
            else:
                self._batcher.put(work, work.size_bytes)
                return

    # engine, result ───────────────────────────────────────────────────────────────────────────────────────────────

    def _answered(self, answers: Answers[Work], seconds: float) -> None:
        """In the engine thread: a batch has its answers."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for work, answer in answers:
            if work.lease.ended:
                self._go(self._drop(work))
            elif isinstance(answer, Exception):
                self._go(self._model_failed(work, answer))
            else:
                self._go(self._result(work, answer, now))
        self._metrics.stage.labels("model").observe(seconds)
        self._metrics.batch.observe(len(answers))
        log.info("batch", listings=len(answers), seconds=round(seconds, 4), in_flight=self.budget.items)

    def _result(self, work: Work, result: Result, now: str) -> Work | None:
        assert isinstance(work.parsed, Event)  # noqa: S101 (only events reach the engine)
        info, topics = self._model.info, self._settings.topics
        answered = Answered(
            work.incoming, work.parsed, result, self._order(work), info.created_ms, self._attempt, categorized_at=now
        )
        record, reason = result_record(answered, info, topics.output, self._audit)
        records = [record]
        if reason is not None:
            records.append(review_copy(record, reason, topics.review))
            self._metrics.review.labels(reason).inc()
        self._metrics.path_probability.observe(result.probability)
        return self._publish(work, records, "result")

    def _model_failed(self, work: Work, error: Exception) -> Work | None:
        self._dead(work, Code.MODEL_FAILED, f"{type(error).__name__}: {error}")
        return self._ordering.leave(work)

    # outcome ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _publish(self, work: Work, records: list[Outgoing], outcome: str) -> Work | None:
        """Send the outcome, unless something newer is there; returns the next of the product."""
        if self._outranked is not None and self._outranked(records[0]):
            self._done(work, "superseded", True)
        else:
            self._send(work, records, outcome)
        return self._ordering.leave(work)

    def _dead(self, work: Work, code: Code, detail: str) -> None:
        room = self._settings.limits.dead_letter_bytes - DEAD_LETTER_ROOM_BYTES
        topic = self._settings.topics.dead_letter
        record = dead_letter(work.incoming, code, detail, topic=topic, version=self._version, max_bytes=room)
        origin = work.incoming.origin
        log.warning("dead_letter", code=code, detail=detail, partition=origin.partition, offset=origin.offset)
        self._send(work, [record], "dead_letter")

    def _send(self, work: Work, records: list[Outgoing], outcome: str) -> None:
        work.prepared = UNPREPARED  # the pixels are not needed any more
        self._resize(work, work.incoming.size_bytes)
        self._delivery.send(records, lambda ok: self._done(work, outcome, ok))

    def _done(self, work: Work, outcome: str, ok: bool) -> None:
        """All records of the work are acknowledged, or one was not taken."""
        origin = work.incoming.origin
        if ok:
            work.lease.finish(origin.offset)
            self._metrics.listings.labels(outcome).inc()
            self._metrics.end_to_end.observe(max(0.0, time.time() - origin.timestamp_ms / 1000))
        else:
            self._metrics.delivery_failures.inc()
            self._on_failed(work.lease)
        self.budget.release(work.size_bytes)

    def _drop(self, work: Work) -> Work | None:
        """Its lease ended: whoever holds the partition now reads it again."""
        self.budget.release(work.size_bytes)
        return self._ordering.leave(work)

    def _resize(self, work: Work, size_bytes: int) -> None:
        self.budget.resize(work.size_bytes, size_bytes)
        work.size_bytes = size_bytes

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
