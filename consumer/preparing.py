"""What the model needs of an event: its photo, fetched and decoded, and its texts. Without the photo it goes on too.

Between the pipeline, which says which events and takes them back prepared, and fetch/ and the model's CPU part. Photos
are fetched in one asyncio loop in a thread of its own and decoded in a pool. What becomes of an event whose photo is
not there, and in which order prepared events go on, is the pipeline's.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Final, Protocol

import structlog

from consumer.events import Event
from consumer.feature_cache import FeatureCache
from consumer.fetch import Fetched, Validators
from consumer.fetch.bodies import SMALL_BYTES
from consumer.known_photos import Known, KnownPhotos
from consumer.metrics import Metrics
from consumer.settings import Settings
from consumer.stages import Stage
from consumer.work import UNPREPARED, Work
from consumer.worker import Model
from mmcat.listing import ImageStatus, Listing, PhotoVectors, Prepared

log = structlog.get_logger("mmcat.preparing")

# What a listing with a photo weighs until its pixels are there: a photo so small waits for nobody, what is larger is
# counted by fetch/bodies.py.
PHOTO_RESERVE_BYTES: Final = SMALL_BYTES


class Fetcher(Protocol):
    """What is needed of a photo fetcher; it lives in the loop here."""

    async def start(self) -> None:
        """Open the pool."""

    async def close(self) -> None:
        """Close it."""

    async def fetch(self, url: str, deadline: float, known: Validators | None = None) -> Fetched:
        """Fetch by a monotonic deadline, but not what is known and unchanged; raises nothing but cancellation."""
        ...


class Preparer:
    """Prepares events. Thread-safe. Constructed, `start`ed, `stop`ped once.

    Args:
        resize: told what a piece of work weighs in the budget from now on.
        worked: told how long a stage was at work.
        on_ready: gets what is prepared, or could not be (`Work.failed`); in any thread.
        on_missing: gets what has no photo now, unprepared, and why; in the loop's thread.
        on_death: the loop died or lost a listing; the process must end.
    """

    def __init__(
        self,
        settings: Settings,
        model: Model,
        fetcher: Fetcher,
        metrics: Metrics,
        *,
        resize: Callable[[Work, int], None],
        worked: Callable[[Stage, float], None],
        on_ready: Callable[[Sequence[Work]], None],
        on_missing: Callable[[Work, Fetched], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._settings, self._model, self._fetcher, self._metrics = settings.photo, model, fetcher, metrics
        self._resize, self._worked = resize, worked
        self._on_ready, self._on_missing, self._on_death = on_ready, on_missing, on_death
        self._photos = cache(metrics.photo.labels)  # a look-up of labels costs as much as a hash of the event
        self._decoders = ThreadPoolExecutor(settings.photo.decode_threads, "decode")
        self._features = FeatureCache.from_settings(settings.feature_cache, metrics)
        model.keep_features(self._features)
        self._known = None if self._features is None else KnownPhotos(self._features, model)
        self._looking = ThreadPoolExecutor(1, "known")  # one: it asks for all photos of a poll at once
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fetch", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start the loop and the fetcher in it."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._fetcher.start(), self._loop).result()

    def stop(self) -> None:
        """End them; what is unfinished is dropped."""
        if self._thread.is_alive():
            with suppress(TimeoutError):  # a fetch that does not let go dies with the process
                asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5.0)
        for pool in (self._decoders, self._looking):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._features is not None:
            self._features.close()
        if not self._thread.is_alive():
            self._loop.close()

    def take(self, works: Sequence[Work]) -> None:
        """Take events; those without a photo are prepared here and now, for the others nothing blocks."""
        fetches: list[Work] = []
        blind: list[Work] = []
        for work in works:
            if self._has_photo(work):
                fetches.append(work)
            else:
                self._prepare(work, None, None)
                blind.append(work)
        if fetches:
            self._loop.call_soon_threadsafe(self._spawn, fetches)
        self._on_ready(blind)

    def without_photo(self, work: Work, status: ImageStatus) -> None:
        """The photo is not there: prepare what there is.

        Args:
            status: what the answer says of the photo.
        """
        self._prepare(work, None, status)
        self._on_ready([work])

    # in the loop ──────────────────────────────────────────────────────────────────────────────────────────────────

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
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_death(error)  # a listing stuck for ever would hold its partition's offset

    async def _look(self, photos: KnownPhotos, works: Sequence[Work]) -> None:
        """Before they are fetched: what is known of their addresses."""
        known = await self._loop.run_in_executor(self._looking, photos.look, [_image_url(work) for work in works])
        for work, one in zip(works, known, strict=True):
            self._begin(self._photo(work, one))

    async def _photo(self, work: Work, known: Known | None) -> None:
        """Fetch and decode one photo; whatever happens, the listing goes on."""
        deadline = work.polled_at + self._settings.deadline_s
        started = time.perf_counter()
        fetched = await self._fetcher.fetch(_image_url(work), deadline, None if known is None else known.validators)
        self._worked("fetch", time.perf_counter() - started)
        if fetched.shared:
            self._metrics.shared_work.labels("fetch").inc()
        if fetched.status is not ImageStatus.USED:
            log.debug("photo_missing", product_id=work.product_id, status=fetched.status, detail=fetched.detail)
            self._on_missing(work, fetched)
        else:
            await self._loop.run_in_executor(self._decoders, self._with_photo, work, fetched, known)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        except BaseException as error:  # without the loop no photo comes any more: tell, whatever it was
            self._on_death(error)

    async def _close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._fetcher.close()

    # the model's CPU part ─────────────────────────────────────────────────────────────────────────────────────────

    def _with_photo(self, work: Work, fetched: Fetched, known: Known | None) -> None:
        """The photo is here, or it is the one that is known."""
        if fetched.unchanged and known is not None:
            self._metrics.photo_unchanged.inc()
            self._prepare(work, None, None, known.photo)
        else:
            prepared = self._prepare(work, fetched.body, None)
            if self._known is not None and fetched.validators is not None and prepared.image is ImageStatus.USED:
                self._known.note(_image_url(work), fetched.validators, prepared.digest)
        self._on_ready([work])

    def _prepare(
        self, work: Work, body: bytes | None, status: ImageStatus | None, seen: PhotoVectors | None = None
    ) -> Prepared:
        """Nothing for what is dropped when its turn comes."""
        event = work.parsed
        if work.lease.ended or not isinstance(event, Event):
            return UNPREPARED
        started = time.perf_counter()
        texts = (event.brand or "", event.maker or "", event.model)
        listing = Listing(event.product_id, event.title, body, *texts, status, seen)
        try:
            work.prepared = prepared = self._model.prepare(listing)
        except Exception as error:  # a model that raises here is told of, and the listing becomes a dead letter
            work.failed = error
            return UNPREPARED
        if body is not None and prepared.seen is None:
            self._worked("decode", time.perf_counter() - started)
        if body is not None or seen is not None or work.size_bytes != work.incoming.size_bytes:
            self._resize(work, work.incoming.size_bytes + prepared.photo_bytes)
        self._photos(prepared.image).inc()
        return prepared


def _image_url(work: Work) -> str:
    """Of an event that has one."""
    assert isinstance(work.parsed, Event)  # noqa: S101 (only events with an address come here)
    return work.parsed.image_url or ""
