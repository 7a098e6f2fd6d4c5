"""A photo host on loopback that answers every path with the same photos after a set time, in a thread of its own."""

import asyncio
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aiohttp import web


class PhotoHost:
    """As a context manager it is ready when entered.

    Args:
        bodies: JPEGs, given out in turn.
        delay_s: before each answer.
    """

    def __init__(self, bodies: Sequence[bytes], delay_s: float = 0.0) -> None:
        self._bodies, self._delay_s = bodies, delay_s
        self._count = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="photo-host", daemon=True)
        self.port = 0

    @property
    def url(self) -> str:
        """An address of a photo, `{}` in it a number."""
        return f"http://127.0.0.1:{self.port}/{{}}.jpg"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        app = web.Application()
        app.router.add_get("/{name}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _answer(self, _request: web.Request) -> web.Response:
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        self._count += 1
        return web.Response(body=self._bodies[self._count % len(self._bodies)], content_type="image/jpeg")
