"""What is held at once, by bytes and by count, and whether that is too much. Pure.

The pipeline adds, resizes and releases; the poll thread asks whether to pause. Full at the limit, and not full again
before half of it is free: to pause a partition throws its fetched records away, so it must not flutter.
"""

import threading
from collections.abc import Callable
from typing import Final

RESUME_SHARE: Final = 0.5


class Budget:
    """Counts of everything between poll and acknowledgement.

    Args:
        beside: bytes that are held for these and counted elsewhere: large photos on their way to the decoder.
    """

    def __init__(self, max_bytes: int, max_items: int, beside: Callable[[], int] = lambda: 0) -> None:
        self._max_bytes, self._max_items, self._beside = max_bytes, max_items, beside
        self._changed = threading.Condition()
        self._full = False
        self._bytes = 0
        self.items = 0

    @property
    def bytes(self) -> int:
        """Held now."""
        return self._bytes + self._beside()

    def add(self, size_bytes: int) -> None:
        """One more."""
        with self._changed:
            self._bytes += size_bytes
            self.items += 1

    def resize(self, old_bytes: int, new_bytes: int) -> None:
        """One of them weighs something else now."""
        with self._changed:
            self._bytes += new_bytes - old_bytes

    def release(self, size_bytes: int) -> None:
        """One less."""
        with self._changed:
            self._bytes -= size_bytes
            self.items -= 1
            self._changed.notify_all()

    @property
    def room(self) -> int:
        """How many more listings fit by count; never negative."""
        return max(0, self._max_items - self.items)

    def full(self) -> bool:
        """Whether to take nothing more; stays true until half of the limit is free."""
        with self._changed:
            share = max(self.bytes / self._max_bytes, self.items / self._max_items)
            self._full = share > RESUME_SHARE if self._full else share >= 1
            return self._full

    def wait_change(self, timeout_s: float) -> None:
        """Block until something is released, at most `timeout_s`."""
        with self._changed:
            self._changed.wait(timeout_s)

    def wait_empty(self, timeout_s: float) -> bool:
        """Block until nothing is held; returns whether that came within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.items == 0, timeout_s)
