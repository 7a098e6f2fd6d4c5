"""Which events of a range need no work, because something newer about their product is known: before photo and model.

Two things know it: a first pass over the range itself (`Newest`), and the view, asked once for all records of a poll.
An event that neither knows to be outdated is worked, and asked about again before its answer is published
(`view_guard`): so to know too little costs work, never an answer. After `replay_reader`, before the pipeline.
"""

import threading
from array import array
from collections.abc import Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from consumer.events import Deletion, Refusal, parse
from consumer.order import order_of
from consumer.rank import AUTHORITY_DELETED, AUTHORITY_MODEL, FULL, Rank
from consumer.records import Incoming
from consumer.settings import Settings
from consumer.view_guard import ViewGuard

SLOTS: Final = 2**22
"""64 MiB whatever the range holds. Of a million products 89 % are remembered, of four million 64 %."""
_WORD: Final = 2**64 - 1


class Unneeded(StrEnum):
    """Why an event gets no work."""

    LATER_IN_RANGE = "later_in_range"  # the range holds a newer event of the product
    NEWER_IN_VIEW = "newer_in_view"  # the view holds what no answer to this event can outrank
    NOT_SAMPLED = "not_sampled"  # nothing is known of it: it was not chosen


OUTDATED: Final = (Unneeded.LATER_IN_RANGE, Unneeded.NEWER_IN_VIEW)
"""Reasons that are an outcome."""


class Newest:
    """The newest event of each product, in memory that does not grow: a table with one place per slot, last come stays.

    A product forgotten for another counts as one that never came. Products are told apart by Python's 64-bit hash of
    their id, which is another in each process: two of them meet by chance once in 2⁶⁴, and nobody can make them.
    """

    def __init__(self, slots: int = SLOTS) -> None:
        self._who = array("Q", bytes(8 * slots))
        self._newest = array("Q", bytes(8 * slots))

    def note(self, product_id: str, rank: Rank) -> None:
        """An event that could be answered with this rank came."""
        who, age = hash(product_id) & _WORD, _age(rank)
        slot = who % len(self._who)
        if self._who[slot] != who or self._newest[slot] < age:
            self._who[slot], self._newest[slot] = who, age

    def outdates(self, product_id: str, rank: Rank) -> bool:
        """Whether a newer one of the product was noted: a higher order, or its deletion at the same."""
        who = hash(product_id) & _WORD
        slot = who % len(self._who)
        return self._who[slot] == who and self._newest[slot] > _age(rank)


class Sieve:
    """Looks at records by what their answers could rank at most. Belongs to the thread that polls.

    Args:
        generation: of the model that answers.
        guard: asks the view.
        sample: choose about so many of the records noted, all of a product or none; None: all.
    """

    def __init__(self, settings: Settings, generation: int, guard: ViewGuard, sample: int | None = None) -> None:
        self._order_by, self._event_bytes = settings.order_by, settings.limits.event_bytes
        self._generation, self._guard, self._sample = generation, guard, sample
        self._newest = Newest()
        self._noted = 0

    def note(self, records: Sequence[Incoming]) -> None:
        """The first pass: these lie in the range. One that is a dead letter outdates nothing."""
        self._noted += len(records)
        for record in records:
            if (best := self._best(record)) is not None:
                self._newest.note(*best)

    def sift(self, records: Sequence[Incoming], stopping: threading.Event) -> list[Unneeded | None] | None:
        """Why each needs no work, None where it does; None for all when told to stop. Waits while the view is away."""
        bests = [self._best(record) for record in records]
        found = [self._without_asking(best) for best in bests]
        asked = [(place, best) for place, best in enumerate(bests) if best and found[place] is None]
        held = self._guard.held([product_id for _, (product_id, _) in asked], stopping)
        if held is None:
            return None
        for (place, (_, rank)), one in zip(asked, held, strict=True):
            if one is not None and one[0] > rank:
                found[place] = Unneeded.NEWER_IN_VIEW
        return found

    def _without_asking(self, best: tuple[str, Rank] | None) -> Unneeded | None:
        if self._sample is not None and _drawn(best[0] if best else "") * self._noted >= self._sample:
            return Unneeded.NOT_SAMPLED
        return Unneeded.LATER_IN_RANGE if best and self._newest.outdates(*best) else None

    def _best(self, record: Incoming) -> tuple[str, Rank] | None:
        """The product and the highest rank that an answer to the event can have; None for a dead letter.

        And for a deletion without a version: which order it takes is asked when its turn has come (held_order.py).
        """
        parsed = parse(record.key, record.value, max_bytes=self._event_bytes)
        if isinstance(parsed, Refusal) or (order := order_of(record, parsed, self._order_by)) is None:
            return None
        if isinstance(parsed, Deletion):
            return parsed.product_id, Rank(order, AUTHORITY_DELETED, self._generation, 0)
        return parsed.product_id, Rank(order, AUTHORITY_MODEL, self._generation, FULL)


def _drawn(product_id: str) -> float:
    """A number in 0 … 1 by lot, the same for the same product: two models are compared on one sample."""
    return int.from_bytes(blake2b(product_id.encode(), digest_size=8).digest(), "big") / 2**64


def _age(rank: Rank) -> int:
    return rank.order * 4 + rank.authority  # below 2⁵⁵
