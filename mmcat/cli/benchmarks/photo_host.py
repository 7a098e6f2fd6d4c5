"""A photo host on loopback: each number is a photo of its own, after a set time; in a thread of its own."""

import asyncio
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aiohttp import web

from mmcat.cli.benchmarks.parts import numbered


class PhotoHost:
    """As a context manager it is ready when entered.

    Args:
        bodies: JPEGs; `/N.jpg` is number N of them, counted round and round, with a comment that no other has.
        delay_s: before each answer.
        port: several hosts may share one, the kernel deals connections out; 0 takes a free one.
    """

    def __init__(self, bodies: Sequence[bytes], delay_s: float = 0.0, port: int = 0) -> None:
        self._bodies, self._delay_s = bodies, delay_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="photo-host", daemon=True)
        self.port = port

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
        app.router.add_get(r"/{number:\d+}.jpg", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_port=self.port != 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _answer(self, request: web.Request) -> web.Response:
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        number = int(request.match_info["number"])
        body = numbered(self._bodies[number % len(self._bodies)], number)
        return web.Response(body=body, content_type="image/jpeg")
