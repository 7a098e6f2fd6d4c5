"""Keeps the events of one product in order while everything else overtakes freely. Pure.

An event may go to the model (or a deletion to the topic) only when the earlier events of its product have been handed
to the producer, which keeps the order of one key from there. Between the photos and the batches.
"""

import threading
from collections import deque
from typing import Generic, Protocol, TypeVar


class Ordered(Protocol):
    """What is kept in order: knows its product, and whether it could go now."""

    product_id: str
    ready: bool


T = TypeVar("T", bound=Ordered)


class Ordering(Generic[T]):
    """One queue per product that has more than nothing in flight."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, deque[T]] = {}

    def enter(self, item: T) -> None:
        """Take a place behind what is there of the same product. Call in the order of the partition."""
        with self._lock:
            self._queues.setdefault(item.product_id, deque()).append(item)

    def mark_ready(self, item: T) -> bool:
        """The item could go now. Returns whether it may: if not, `leave` returns it when its turn comes."""
        with self._lock:
            item.ready = True
            return self._queues[item.product_id][0] is item

    def leave(self, item: T) -> T | None:
        """The item was handed to the producer, or dropped. Returns the next of its product if only this held it up."""
        with self._lock:
            queue = self._queues[item.product_id]
            first = queue[0] is item
            queue.remove(item)
            if not queue:
                del self._queues[item.product_id]
                return None
            return queue[0] if first and queue[0].ready else None
