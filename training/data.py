"""What every reader gives and every step takes: rows with a title, a true path, a group, and a photo on demand.

After readers/; before splits.py and features.py. Photos are called for when they are needed and not held.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mmcat.taxonomy import Taxonomy
from training.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One listing with its truth.

    Args:
        path: ids from the main level to the stop level.
        group: rows of one group never fall into different parts of a split ("" stands for a group of its own).
        photo: gives the photo's bytes; None where the listing has none.
        brand, maker, model: further text, read where the recipe's `text.fields` names it.
    """

    id: str
    title: str
    path: tuple[str, ...]
    group: str
    photo: Callable[[], bytes] | None = None
    brand: str = ""
    maker: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A bad row that a reader left out: where it stands and why."""

    line: int
    column: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Rows that share a taxonomy.

    Args:
        name: short, of letters, digits, dashes: part of file names.
        note: what the data is and under which licence, in one sentence; goes into the bundle's model card.
        skipped: bad rows left out, in file order.

    Raises:
        DataError: no rows, an id that stands twice, or a path that the taxonomy does not have.
    """

    name: str
    taxonomy: Taxonomy
    rows: Sequence[Row]
    note: str = ""
    skipped: Sequence[Skipped] = ()
    targets: npt.NDArray[np.int64] = field(init=False, repr=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.rows:
            raise DataError(f"{self.name}: no listings")
        ids = {row.id for row in self.rows}
        if len(ids) != len(self.rows):
            raise DataError(f"{self.name}: {len(self.rows) - len(ids)} product ids stand twice")
        object.__setattr__(self, "targets", np.array([self.taxonomy.index(row.path) for row in self.rows], np.int64))
        object.__setattr__(self, "digest", self._digest())

    def __len__(self) -> int:
        return len(self.rows)

    def _digest(self) -> str:
        """SHA-256 of what a split depends on: ids, groups, paths. The title column may change, the split stays."""
        digest = hashlib.sha256(self.taxonomy.digest.encode())
        for row in self.rows:
            digest.update("\t".join((row.id, row.group, *row.path)).encode() + b"\n")
        return digest.hexdigest()
