"""Rank decides which of two results about a product is newer: compared from the left, higher wins; equal: the later.

Pure. Used by results.py (which writes it), view.py (which applies it) and replay.py (which asks before it writes).
"""

from typing import Final, NamedTuple, Self

from mmcat.listing import ImageStatus

AUTHORITY_MODEL: Final = 0
AUTHORITY_DELETED: Final = 2
LIMIT: Final = 2**53  # every part stays exact as a double, which is what Lua and JSON readers have
FULL: Final = 2  # completeness of an answer that saw all there is of its listing

_COMPLETENESS: Final = {
    ImageStatus.PENDING: 0,
    ImageStatus.UNAVAILABLE: 1,
    ImageStatus.REFUSED: 1,
    ImageStatus.UNDECODABLE: 1,
    ImageStatus.USED: FULL,
    ImageStatus.ABSENT: FULL,
}


class Rank(NamedTuple):
    """The four parts, most significant first; tuples compare as ranks do.

    Args:
        order: ms of the origin record, or the event's version (setting `order_by`).
        authority: 0 model, 1 person, 2 deleted.
        generation: of the model.
        completeness: 0 photo pending, 1 finally without it, 2 photo used or none given.
    """

    order: int
    authority: int
    generation: int
    completeness: int

    def format(self) -> str:
        """`"order,authority,generation,completeness"`, as the header `mmcat-rank` and the view hold it."""
        return f"{self.order},{self.authority},{self.generation},{self.completeness}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `format` wrote.

        Raises:
            ValueError: not four integers in 0 … 2**53 - 1.
        """
        parts = text.split(",")
        if len(parts) != 4 or not all(part.isascii() and part.isdigit() and int(part) < LIMIT for part in parts):
            raise ValueError(f"not a rank: {text[:80]!r}")
        return cls(*map(int, parts))


def completeness(image: ImageStatus) -> int:
    """How much of the listing the answer could see."""
    return _COMPLETENESS[image]
