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


class SentOrders:
    """The highest order that was handed to the producer and not acknowledged, by product. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[str, tuple[int, int]] = {}  # records on their way, and the highest order of those

    def sent(self, product_id: str, order: int) -> None:
        """Before it is handed over."""
        with self._lock:
            count, highest = self._sent.get(product_id, (0, 0))
            self._sent[product_id] = count + 1, max(highest, order)

    def done(self, product_id: str) -> None:
        """The broker has it, or never will."""
        with self._lock:
            count, highest = self._sent[product_id]
            if count > 1:
                self._sent[product_id] = count - 1, highest
            else:
                del self._sent[product_id]

    def highest(self, product_id: str) -> int:
        """0 where nothing is on its way."""
        with self._lock:
            return self._sent.get(product_id, (0, 0))[1]
