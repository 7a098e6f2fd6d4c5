"""Equal fetches in flight are one: whoever asks for what is being fetched already waits for the same answer.

Each waiter has a deadline of its own and may be cancelled without harm to the others; the fetch goes on for as long as
anybody waits, and is cancelled with the last. Used by client.py; belongs to one asyncio loop.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Flight(Generic[T]):
    """One fetch and who waits for it.

    Args:
        waiting: how many do.
        taken: somebody has its answer.
        late: it was cancelled because the last of them had no time left.
    """

    task: asyncio.Task[T] = field(init=False)
    waiting: int = 0
    taken: bool = False
    late: bool = False


class Flights(Generic[T]):
    """Those under way, by what makes them equal."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Flight[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()

    async def share(
        self, key: Hashable, deadline: float, begin: Callable[[Flight[T]], Coroutine[None, None, T]]
    ) -> tuple[T, bool]:
        """The answer of the flight with this key, begun if there is none; and whether another has it too, counted once.

        Args:
            deadline: `time.monotonic()` until which it is waited for.
            begin: the fetch; what it raises is raised to all who wait.

        Raises:
            TimeoutError: it is not there in time.
        """
        flight = self._by_key.get(key) or self._begin(key, begin)
        flight.waiting += 1
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                answer = await asyncio.shield(flight.task)
        except TimeoutError:
            flight.late = flight.waiting == 1
            raise
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._forget(key, flight)  # whoever comes now must not join what is being cancelled
                flight.task.cancel()
        shared, flight.taken = flight.taken, True
        return answer, shared

    async def close(self) -> None:
        """Wait for the ends of those that were cancelled."""
        await asyncio.gather(*(task for task in self._tasks if task.cancelling()), return_exceptions=True)

    def _begin(self, key: Hashable, begin: Callable[[Flight[T]], Coroutine[None, None, T]]) -> Flight[T]:
        flight: Flight[T] = Flight()
        flight.task = asyncio.create_task(begin(flight))
        self._by_key[key] = flight
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        flight.task.add_done_callback(lambda _: self._forget(key, flight))
        return flight

    def _forget(self, key: Hashable, flight: Flight[T]) -> None:
        if self._by_key.get(key) is flight:
            del self._by_key[key]
