"""The CPU's part of a bulk job: rows read, photos fetched or taken from beside the table, decoded.

The fetcher is the stream's, with its address rules and limits; only the patience is a bulk job's: nobody waits for one
photo, and what a host may answer otherwise soon is asked for again. After rows.py; before answers.py.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from consumer.bulk.job import Job, Part, Source
from consumer.bulk.rows import Row, read_row
from consumer.fetch import Fetched, LargeBodies, PhotoFetcher
from consumer.fetch.bodies import Room
from consumer.settings import LimitSettings, PhotoSettings
from consumer.work import UNPREPARED
from mmcat.listing import ImageStatus, Listing, Prepared

DEADLINE_S: Final = 15.0
"""For one photo, its redirects included; the stream gives it 3 s, since somebody waits there."""
PAUSES_S: Final = (1.0, 5.0)
"""Before each further try at a photo that may still come; not for 404, which in an old catalogue stays."""
AT_ONCE: Final = 64
"""Photos in hand at once, fetched or being decoded; of large ones as many bytes as the service holds."""

Prepare = Callable[[Listing], Prepared]
_Photo = tuple[bytes | None, ImageStatus | None, Room | None]


@dataclass(frozen=True, slots=True)
class Ready:
    """A row on its way to the model; `failed` says what the model's CPU part raised."""

    row: Row
    prepared: Prepared
    failed: str = ""


@dataclass(frozen=True, slots=True)
class ReadyPart:
    """A part on its way to the model."""

    number: int
    rows: list[Ready]


@dataclass(frozen=True, slots=True)
class Preparing:
    """Everything that a worker needs; sent to it once.

    Args:
        source: the table.
        prepare: the model's CPU part.
        photo: how photos are fetched; on Ray, `per_host` is this worker's share. None: the model looks at no photos.
        limits: longest event; bytes of large photos that a worker holds.
    """

    job: Job
    source: Source
    prepare: Prepare
    photo: PhotoSettings | None
    limits: LimitSettings


class PartPreparer:
    """Prepares parts, one at a time; lives in a process of its own."""

    def __init__(self, given: Preparing) -> None:
        self._given = given
        self._photos = Path(given.job.photos) if given.job.photos else None
        self._decoders = ThreadPoolExecutor(2, "decode")

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """One part; blocks until its photos are there, or will not be."""
        part: Part = item["part"]
        return {"ready": self.part(part)}

    def part(self, part: Part) -> ReadyPart:
        """One part."""
        given, job = self._given, self._given.job
        options: dict[str, Any] = {"title": job.title_column, "order_by": job.order_by, "origin": job.origin}
        rows = [
            read_row(cells, part.first + at, max_bytes=given.limits.event_bytes, **options)
            for at, cells in enumerate(given.source.read(part))
        ]
        return ReadyPart(part.number, asyncio.run(self._all(rows)))

    async def _all(self, rows: Sequence[Row]) -> list[Ready]:
        if self._given.photo is None:
            return [self._ready(row, None, None) for row in rows]
        at_once = asyncio.Semaphore(AT_ONCE)
        per_host = self._given.photo.per_host
        turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(per_host))

        bodies = LargeBodies(self._given.limits.large_photo_bytes)
        async with PhotoFetcher.from_settings(self._given.photo, bodies) as fetcher:

            async def one(row: Row) -> Ready:
                url = row.event.image_url or "" if row.event else ""
                async with turns[_host(url)], at_once:  # a photo's time begins with its turn
                    # a large photo takes room as long as `_room` is held: until it is decoded
                    body, status, _room = self._beside(row) or await _fetched(fetcher, url)
                    loop = asyncio.get_running_loop()
                    return await loop.run_in_executor(self._decoders, self._ready, row, body, status)

            return list(await asyncio.gather(*map(one, rows)))

    def _beside(self, row: Row) -> _Photo | None:
        """The photo in the table or in the folder; None where the row has none there."""
        if isinstance(row.image, bytes):
            return row.image, None, None
        if row.event is None or self._photos is None:
            return None
        name = row.image or f"{row.product_id}.jpg"
        if Path(name).name != name:
            return None, ImageStatus.REFUSED, None  # a name that leads out of the folder
        try:
            return (self._photos / name).read_bytes(), None, None
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return None

    def _ready(self, row: Row, body: bytes | None, status: ImageStatus | None) -> Ready:
        if row.event is None:
            return Ready(row, UNPREPARED)
        event = row.event
        texts = (event.brand or "", event.maker or "", event.model)
        try:
            listing = Listing(event.product_id, event.title, body, *texts, image_status=status)
            return Ready(row, self._given.prepare(listing))
        except Exception as error:  # as in the stream: the listing is to blame, not the job
            return Ready(row, UNPREPARED, f"{type(error).__name__}: {error}"[:500])


async def _fetched(fetcher: PhotoFetcher, url: str) -> _Photo:
    if not url:
        return None, None, None
    if url.startswith("file:"):
        return None, ImageStatus.UNAVAILABLE, None
    got = await fetcher.fetch(url, time.monotonic() + DEADLINE_S)
    for pause_s in PAUSES_S:
        if not _may_come(got):
            break
        await asyncio.sleep(max(pause_s, min(got.retry_after_s, DEADLINE_S)))
        got = await fetcher.fetch(url, time.monotonic() + DEADLINE_S)
    return got.body, None if got.status is ImageStatus.USED else got.status, got.room


def _may_come(got: Fetched) -> bool:
    return got.retryable and not got.not_found


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:  # an address that cannot be read is refused by the fetcher
        return ""
