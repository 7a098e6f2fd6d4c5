"""One polled record on its way through the pipeline: what is known so far. Data, changed by one stage at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consumer.events import Deletion, Event, Refusal
from consumer.offsets import Lease
from consumer.records import Incoming, Outgoing
from mmcat.listing import ImageStatus, Prepared

_UNPARSED = Deletion("")
UNPREPARED = Prepared("", "", None, ImageStatus.ABSENT)
"""Stands for what is not there yet, or not any more."""


@dataclass(slots=True, eq=False)
class Work:
    """A record, the lease it was polled under, and what became of it.

    Args:
        polled_at: monotonic seconds; the photo's deadline counts from here.
        size_bytes: what it weighs in the budget now.
        order: what rank compares first; None: a deletion takes the order that is held of its product.
        ready: for ordering.py: its turn may come.
        failed: the model could not prepare it.
        answer: one given before, that is reused.
        later: the record for a delay topic that goes out beside its answer.
        records: what is sent for it.
        outcome: what these say of it; None: the next attempt has it.
    """

    incoming: Incoming
    lease: Lease
    polled_at: float
    size_bytes: int
    parsed: Event | Deletion | Refusal = _UNPARSED
    product_id: str = ""
    order: int | None = 0
    prepared: Prepared = UNPREPARED
    ready: bool = False
    failed: Exception | None = None
    answer: Mapping[str, Any] | None = None
    later: Outgoing | None = None
    records: Sequence[Outgoing] = ()
    outcome: str | None = None

    @property
    def offset(self) -> int:
        """Where it was polled: what its lease finishes."""
        return self.incoming.place.offset
