"""What is held at once, by bytes and by count, and whether that is too much. Pure.

The pipeline adds, resizes and releases; the poll thread asks whether to pause. Full at the limit, and not full again
before half of it is free: to pause a partition throws its fetched records away, so it must not flutter.
"""

import threading
from typing import Final

RESUME_SHARE: Final = 0.5


class Budget:
    """Counts of everything between poll and acknowledgement."""

    def __init__(self, max_bytes: int, max_items: int) -> None:
        self._max_bytes, self._max_items = max_bytes, max_items
        lock = threading.RLock()
        self._changed, self._roomy = threading.Condition(lock), threading.Condition(lock)
        self._full = False
        self.bytes = 0
        self.items = 0

    def add(self, size_bytes: int) -> None:
        """One more."""
        with self._changed:
            self.bytes += size_bytes
            self.items += 1

    def resize(self, old_bytes: int, new_bytes: int) -> None:
        """One of them weighs something else now."""
        with self._changed:
            self.bytes += new_bytes - old_bytes

    def release(self, size_bytes: int) -> None:
        """One less."""
        with self._changed:
            self.bytes -= size_bytes
            self.items -= 1
            self._changed.notify_all()
            if self._full and self._share() <= RESUME_SHARE:
                self._roomy.notify_all()

    @property
    def room(self) -> int:
        """How many more listings fit by count; never negative."""
        return max(0, self._max_items - self.items)

    def full(self) -> bool:
        """Whether to take nothing more; stays true until half of the limit is free."""
        with self._changed:
            share = self._share()
            self._full = share > RESUME_SHARE if self._full else share >= 1
            return self._full

    def wait_room(self, timeout_s: float) -> bool:
        """Block until half of the limit is free, at most `timeout_s`; returns whether it is. Call when `full`."""
        with self._changed:
            return self._roomy.wait_for(lambda: self._share() <= RESUME_SHARE, timeout_s)

    def wait_change(self, timeout_s: float) -> None:
        """Block until something is released, at most `timeout_s`."""
        with self._changed:
            self._changed.wait(timeout_s)

    def wait_empty(self, timeout_s: float) -> bool:
        """Block until nothing is held; returns whether that came within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.items == 0, timeout_s)

    def _share(self) -> float:
        return max(self.bytes / self._max_bytes, self.items / self._max_items)
