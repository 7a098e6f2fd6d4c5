"""Gathers READY listings into batches: by count, by bytes, or by the age of the oldest, whichever comes first.

The window opens at the first listing that is ready, never before: after an idle hour the first one waits `max_age_s`
for company, not less and not more. Between ordering.py and the engine thread.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Batcher(Generic[T]):
    """A queue that gives out batches. Bounded by what the service lets in flight, so `put` never blocks.

    Args:
        max_items, max_bytes: a batch is full at either; one item larger than `max_bytes` is a batch of its own.
        max_age_s: how long the oldest may wait for company.
    """

    def __init__(
        self, max_items: int, max_bytes: int, max_age_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_items, self._max_bytes, self._max_age_s = max_items, max_bytes, max_age_s
        self._clock = clock
        self._changed = threading.Condition()
        self._items: deque[tuple[T, int, float]] = deque()
        self._bytes = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Sequence[tuple[T, int]]) -> None:
        """Add some that are ready, each with its bytes."""
        if not items:
            return
        with self._changed:
            opened, now = not self._items, self._clock()
            for item, size_bytes in items:
                self._items.append((item, size_bytes, now))
                self._bytes += size_bytes
            if opened or self._full():
                self._changed.notify()

    def close(self) -> None:
        """Nothing comes any more: `take` gives out what is left without waiting for company."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, wait_s: float) -> list[T]:
        """The next batch; blocks until there is one, at most `wait_s`: then []."""
        until = self._clock() + wait_s
        with self._changed:
            while not self._due():
                now = self._clock()
                if now >= until:
                    return []
                opened = self._items[0][2] + self._max_age_s if self._items else until
                self._changed.wait(max(0.0, min(until, opened) - now))
            return self._cut()

    def _full(self) -> bool:
        return len(self._items) >= self._max_items or self._bytes >= self._max_bytes

    def _due(self) -> bool:
        if not self._items:
            return False
        return self._closed or self._full() or self._clock() - self._items[0][2] >= self._max_age_s

    def _cut(self) -> list[T]:
        batch: list[T] = []
        held = 0
        while self._items and len(batch) < self._max_items:
            item, size_bytes, _ = self._items[0]
            if batch and held + size_bytes > self._max_bytes:
                break
            self._items.popleft()
            self._bytes -= size_bytes
            held += size_bytes
            batch.append(item)
        return batch
