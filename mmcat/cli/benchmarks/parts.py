"""The parts by themselves, in this process: photos decoded, photos fetched, batches through an engine."""

import asyncio
import io
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from mmcat.listing import Listing

SIDES_PX: Final = (600, 700, 800, 900, 1_000, 1_100)
QUALITY: Final = 85


def photos(sides_px: Sequence[int] = SIDES_PX) -> list[bytes]:
    """Square JPEGs of the sizes that shops send, 50 to 200 kB: soft shapes with some grain, the same every time."""
    random = np.random.default_rng(0)
    made = []
    for side in sides_px:
        soft = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        grain = random.normal(0, 4, (side, side, 1))
        pixels = (np.asarray(soft, np.float64) + grain).clip(0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY)
        made.append(out.getvalue())
    return made


def numbered(jpeg: bytes, number: int) -> bytes:
    """The photo with a comment of its own: equal bytes are decoded and encoded once, which would be measured."""
    return jpeg[:2] + b"\xff\xfe\x00\x06" + number.to_bytes(4, "big") + jpeg[2:]


def decode(bodies: Sequence[bytes], px: int = 224, *, scaled: bool = False) -> float:
    """Photos a second and core, to a square of `px`: CPU seconds of this thread count."""
    from mmcat.photos import decode as to_pixels

    begun = time.thread_time()
    for body in bodies:
        to_pixels(body, px, scaled=scaled)
    return len(bodies) / (time.thread_time() - begun)


def fetch(url: str, count: int, at_once: int = 64) -> tuple[float, float]:
    """Fetches a second through the service's own fetcher, and milliseconds of CPU each. `{}` in `url` is a number."""
    return asyncio.run(_fetch(url, count, at_once))


async def _fetch(url: str, count: int, at_once: int) -> tuple[float, float]:
    from consumer.fetch import PhotoFetcher
    from consumer.settings import PhotoSettings
    from mmcat.listing import ImageStatus

    place = urlsplit(url)
    settings = PhotoSettings(
        allow=(f"{place.hostname}/32",), ports=(place.port or 80,), per_host=at_once, concurrency=at_once
    )
    fetcher = PhotoFetcher.from_settings(settings)
    await fetcher.start()
    numbers = iter(range(count))

    async def one_after_another() -> int:
        done = 0
        for number in numbers:
            fetched = await fetcher.fetch(url.format(number), time.monotonic() + 30)
            done += fetched.status is ImageStatus.USED
        return done

    begun, cpu = time.perf_counter(), time.thread_time()
    done = sum(await asyncio.gather(*(one_after_another() for _ in range(at_once))))
    seconds, cpu = time.perf_counter() - begun, time.thread_time() - cpu
    await fetcher.close()
    if done < count:
        raise OSError(f"{count - done} of {count} photos did not come from {url}")
    return count / seconds, 1_000 * cpu / count


def engine(bundle: str, name: str, batch: int, batches: int, body: bytes) -> list[float]:
    """Listings a second of each batch, photo included, preparation not."""
    from mmcat.categorizer import Categorizer
    from mmcat.cli.bundles import ENGINES, home

    model = Categorizer.load(bundle, engine=name, cache=home() / ENGINES)
    model.warm_up()
    prepared = [
        model.prepare(Listing(f"p{number}", f"나이키 남성 러닝화 {number}", numbered(body, number)))
        for number in range(batch)
    ]
    model.categorize_prepared(prepared)
    rates = []
    for _ in range(batches):
        begun = time.perf_counter()
        model.categorize_prepared(prepared)
        rates.append(batch / (time.perf_counter() - begun))
    return rates
