"""The seam between what becomes of work and how it gets to the broker: what is handed over, and who is told. Pure.

Before it: publishing.py. After it: delivery.py at least once, transactions.py exactly once, replay_sinks.py for a look.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from consumer.offsets import Lease
from consumer.records import Outgoing


class Sendable(Protocol):
    """A piece of work: the polled record that it began with, and what is sent for that."""

    @property
    def lease(self) -> Lease:
        """Under which it was polled."""
        ...

    @property
    def offset(self) -> int:
        """Where it was polled."""
        ...

    @property
    def records(self) -> Sequence[Outgoing]:
        """What became of it; may be none."""
        ...


W = TypeVar("W", bound=Sendable)
Done = Callable[[Sequence[W], bool], None]


class Outcomes(Protocol[W]):
    """Where the pipeline puts what became of records: `Delivery` at least once, `Transactions` exactly once."""

    def send(self, works: Sequence[W], on_done: Done[W]) -> None:
        """Take what became of these.

        `on_done` runs once for each, in any thread, several at a time: True for those of which all is the broker's for
        good, False for those of which it never will be.
        """
        ...
