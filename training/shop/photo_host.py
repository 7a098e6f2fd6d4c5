"""A photo host (on loopback unless told otherwise): the shop's photos or any bytes, with faults as real hosts have.

Runs in a thread of its own with its own event loop, so that synchronous callers use it as a context manager. Photos are
made on demand in a small pool and the last ones are kept. Addresses tell nothing but the photo's opaque name.

After shop.py; what fetches from it knows nothing of it.
"""

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from types import TracebackType
from typing import Self

from aiohttp import web

from training.shop.photos import FULL_PX
from training.shop.shop import Shop
from training.shop.stream import is_late

PhotoSource = Callable[[str], bytes | None]  # name → photo, None: 404; blocks; called from several threads
_START_S, _STOP_S = 10.0, 0.5
_GARBAGE = bytes(range(256)) * 16
_ENDLESS_CHUNK = b"\xff\xd8\xff\xe0" + b"\x00" * 65_532


class Body(StrEnum):
    """What stands in the answer's body."""

    PHOTO = "photo"
    GARBAGE = "garbage"  # called image/jpeg, and is no image
    HTML = "html"  # a page with status 200, as hosts send for photos they have lost
    CUT = "cut"  # closes after half of what Content-Length promised
    ENDLESS = "endless"  # never ends


@dataclass(frozen=True, slots=True)
class Fault:
    """How an address misbehaves.

    Args:
        delay_s: before the answer begins.
        missing_s: answers 404 for so long after the first request; inf: always.
        status: instead of 200, with an empty body, once it is no longer missing.
    """

    delay_s: float = 0.0
    missing_s: float = 0.0
    status: int = 200
    body: Body = Body.PHOTO


FaultPlan = Callable[[str], Fault | None]


def shop_photos(shop: Shop, px: int = FULL_PX) -> PhotoSource:
    """The shop's photos by the name that its events give them, `<token>.jpg`."""

    def photo(name: str) -> bytes | None:
        try:
            listing = shop.by_photo_token(name.removesuffix(".jpg"))
        except ValueError:
            return None
        return shop.photo_bytes(listing, px)

    return photo


def late(share: float, seconds: float) -> FaultPlan:
    """The share of photos that `stream.StreamMix.late_photos` calls late is missing for the first seconds."""
    fault = Fault(missing_s=seconds)

    def plan(name: str) -> Fault | None:
        return fault if is_late(name.removesuffix(".jpg"), share) else None

    return plan


class PhotoHost:
    """Serves `<base_url>/<name>`.

    Args:
        source: gives a photo by its name; `{...}.get` serves a mapping.
        faults: how a name misbehaves, None: it does not.
        host: what to listen on; "0.0.0.0" is every address, for a container.
        port: 0: any free one.
        kept: number of photos kept in memory.
        threads: that make photos.
    """

    def __init__(
        self,
        source: PhotoSource,
        faults: FaultPlan | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        kept: int = 512,
        threads: int = 2,
    ) -> None:
        self._source, self._faults = source, faults
        self._host, self._wanted_port, self._kept, self._threads = host, port, kept, threads
        self._photos: OrderedDict[str, bytes | None] = OrderedDict()  # touched by the loop's thread alone
        self._first_asked_s: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self.port = 0
        self.requests = 0

    @property
    def base_url(self) -> str:
        """Without a slash at its end; known once started."""
        return f"http://{self._host}:{self.port}/p"

    def start(self) -> None:
        """Returns when the host answers.

        Raises:
            OSError: the port is taken.
        """
        self._thread = threading.Thread(target=self._run, name="photo-host", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_S):
            raise TimeoutError(f"the photo host did not start within {_START_S:.0f} s")
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Returns when the thread has ended; open answers are cut off. Harmless when not started."""
        if (
            self._loop is not None
            and self._stopping is not None
            and self._thread is not None
            and self._thread.is_alive()
        ):
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # handed to the thread that waits in start()
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_get("/p/{name}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S, handler_cancellation=True)
        with ThreadPoolExecutor(self._threads, "photo-render") as pool:
            self._pool = pool
            await runner.setup()
            try:
                site = web.TCPSite(runner, self._host, self._wanted_port)
                await site.start()
                self.port = int(runner.addresses[0][1])
                self._ready.set()
                await self._stopping.wait()
            finally:
                await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        name = request.match_info["name"]
        fault = (self._faults(name) if self._faults else None) or Fault()
        asked_s = self._first_asked_s.setdefault(name, asyncio.get_running_loop().time()) if fault.missing_s else 0.0
        await asyncio.sleep(fault.delay_s)
        if fault.missing_s == inf or asyncio.get_running_loop().time() < asked_s + fault.missing_s:
            return web.Response(status=404)
        if fault.status != 200:
            return web.Response(status=fault.status)
        if fault.body is Body.ENDLESS:
            return await _endless(request)
        if fault.body is Body.GARBAGE:
            return web.Response(body=_GARBAGE, content_type="image/jpeg")
        if fault.body is Body.HTML:
            return web.Response(text="<html>this photo has moved</html>", content_type="text/html")
        photo = await self._photo(name)
        if photo is None:
            return web.Response(status=404)
        return await _cut(request, photo) if fault.body is Body.CUT else _whole(request, photo)

    async def _photo(self, name: str) -> bytes | None:
        if name in self._photos:
            self._photos.move_to_end(name)
            return self._photos[name]
        photo = await asyncio.get_running_loop().run_in_executor(self._pool, self._source, name)
        self._photos[name] = photo
        while len(self._photos) > self._kept:
            self._photos.popitem(last=False)
        return photo


def _whole(request: web.Request, photo: bytes) -> web.Response:
    etag = f'"{hashlib.blake2b(photo, digest_size=12).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "public, max-age=86400"}
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=photo, content_type="image/jpeg", headers=headers)


async def _cut(request: web.Request, photo: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "image/jpeg", "Content-Length": str(len(photo))})
    await response.prepare(request)
    await response.write(photo[: len(photo) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
    await response.prepare(request)
    transport = request.transport  # the request forgets it when the host stops
    try:
        while True:
            await response.write(_ENDLESS_CHUNK)  # waits for the reader; ends with a reset when it leaves
    finally:
        if transport is not None:
            transport.abort()  # closing would wait for a reader who may never read
