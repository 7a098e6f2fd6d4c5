"""What is held at once, by bytes and by count, and whether that is too much. Pure.

The pipeline adds, resizes and releases; the poll thread asks whether to pause. To pause a partition throws its fetched
records away, up to 24 MiB of them, and the broker sends them all again. So at the limit the poll thread first waits a
moment for room; and once it has paused it goes on when half of the limit is free.
"""

import threading
from collections.abc import Callable
from typing import Final

RESUME_SHARE: Final = 0.5
ROOM_SHARE: Final = 0.125  # worth waiting for: a poll of a few records costs as much as one of many


class Budget:
    """Counts of everything between poll and acknowledgement.

    Args:
        beside: bytes that are held for these and counted elsewhere: large photos on their way to the decoder.
    """

    def __init__(self, max_bytes: int, max_items: int, beside: Callable[[], int] = lambda: 0) -> None:
        self._max_bytes, self._max_items, self._beside = max_bytes, max_items, beside
        self._changed = threading.Condition()
        self._bytes = 0
        self.items = 0

    @property
    def bytes(self) -> int:
        """Held now."""
        return self._bytes + self._beside()

    def add(self, size_bytes: int, items: int = 1) -> None:
        """So many more, which weigh so much together."""
        with self._changed:
            self._bytes += size_bytes
            self.items += items

    def resize(self, old_bytes: int, new_bytes: int) -> None:
        """Some of them weigh something else now."""
        with self._changed:
            self._bytes += new_bytes - old_bytes

    def release(self, size_bytes: int, items: int = 1) -> None:
        """So many less, which weighed so much together."""
        with self._changed:
            self._bytes -= size_bytes
            self.items -= items
            self._changed.notify_all()

    @property
    def room(self) -> int:
        """How many more listings fit by count, none where the bytes are at their limit; never negative."""
        return max(0, self._max_items - self.items) if self.bytes < self._max_bytes else 0

    @property
    def full(self) -> bool:
        """Whether to take nothing more."""
        return self._share() >= 1

    @property
    def half_free(self) -> bool:
        """Whether who has paused may go on."""
        return self._share() <= RESUME_SHARE

    def wait_room(self, timeout_s: float) -> None:
        """At the limit, block until an eighth of it is free, at most `timeout_s`; below it do not block."""
        with self._changed:
            if self._share() >= 1:
                self._changed.wait_for(lambda: self._share() <= 1 - ROOM_SHARE, timeout_s)

    def _share(self) -> float:
        return max(self.bytes / self._max_bytes, self.items / self._max_items)

    def wait_change(self, timeout_s: float) -> None:
        """Block until something is released, at most `timeout_s`."""
        with self._changed:
            self._changed.wait(timeout_s)

    def wait_empty(self, timeout_s: float) -> bool:
        """Block until nothing is held; returns whether that came within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.items == 0, timeout_s)
