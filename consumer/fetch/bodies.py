"""How many bytes of large photos there may be at once: from before they are read until nobody holds them any more.

A photo that outgrows `SMALL_BYTES` takes room for all that it may become before it is read on; the others wait, unread.
The room is given back when the last one lets go of the photo (the decoder, as a rule), so photos that are read faster
than they are decoded wait in their hosts and not in memory. Up to `SMALL_BYTES` a photo waits for nobody: so much the
service counts for each.

Used by client.py, which takes the room; budget.py counts what is taken. Belongs to one asyncio loop; from other threads
`bytes` may be read and a `Room` let go of.
"""

import asyncio
from collections import deque
from contextlib import suppress
from math import inf
from typing import Final

# What preparing.py counts for a photo that is not there yet.
SMALL_BYTES: Final = 256 * 1024


class LargeBodies:
    """First come, first served: a very large one is not passed by for ever.

    Args:
        max_bytes: of all together; one that is larger by itself is let in alone.
    """

    def __init__(self, max_bytes: float = inf) -> None:
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self.bytes = 0
        """Taken now."""

    async def room(self, size_bytes: int) -> "Room":
        """Wait until there is room for so many bytes. The caller bounds the wait."""
        if self._waiting or not self._fits(size_bytes):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((turn, size_bytes))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # the room came together with the cancellation: pass it on
                    self.give_back(size_bytes)
                else:
                    with suppress(ValueError):  # passed over already
                        self._waiting.remove((turn, size_bytes))
                    self.give_back(0)  # whoever stood behind it may fit
                raise
        else:
            self.bytes += size_bytes
        return Room(self, size_bytes)

    def give_back(self, size_bytes: int) -> None:
        """So much is free again; in the loop."""
        self.bytes -= size_bytes
        while self._waiting and self._fits(self._waiting[0][1]):
            turn, size = self._waiting.popleft()
            if not turn.done():
                self.bytes += size
                turn.set_result(None)

    def _fits(self, size_bytes: int) -> bool:
        return not self.bytes or self.bytes + size_bytes <= self._max_bytes


class Room:
    """Room for one photo; given back when it is let go of, with the photo: they are held by one object (`Fetched`)."""

    __slots__ = ("_bodies", "_loop", "size_bytes")

    def __init__(self, bodies: LargeBodies, size_bytes: int) -> None:
        self._bodies, self.size_bytes = bodies, size_bytes
        self._loop = asyncio.get_running_loop()

    def shrink(self, size_bytes: int) -> None:
        """The photo is smaller than it might have been; in the loop."""
        self._bodies.give_back(self.size_bytes - size_bytes)
        self.size_bytes = size_bytes

    def __del__(self) -> None:
        """In whichever thread: so it takes no lock and leaves the rest to the loop."""
        with suppress(RuntimeError):  # the loop is closed, and the fetcher with it
            self._loop.call_soon_threadsafe(self._bodies.give_back, self.size_bytes)
