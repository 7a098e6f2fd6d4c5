"""What every reader gives and every step takes: rows with a title, a true path, a group, and a photo on demand.

After rows.py and the readers; before splits.py and features.py. Photos are called for when needed and not held.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mmcat.taxonomy import Taxonomy
from training.errors import DataError
from training.rows import NO_PATH, Row, Rows

if TYPE_CHECKING:
    from training.store import Features

__all__ = ["Dataset", "Row", "Skipped"]


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something of a row that a reader left out, or the whole row: where it stands and why."""

    line: int
    column: str
    reason: str


class Dataset:
    """Rows that share a taxonomy. Holds 8 bytes a row in memory; the rest is a memory-mapped file.

    Args:
        name: short, of letters, digits, dashes: part of file names.
        rows: columns; a plain sequence of rows is made into them.
        note: what the data is and under which licence, in one sentence; goes into the bundle's model card.
        skipped: bad rows left out, in file order.
        photo_vectors: of data that comes with photo vectors instead of photos.
        lost_photos: rows that are here without the photo at the address that they name, or without the vector that the
            data brings for them, in file order.

    Attributes:
        targets: int64 [N], the taxonomy's row of each listing's path; -1 where the truth is not known.

    Raises:
        DataError: no rows, an id that stands twice, or a path that the taxonomy does not have.
    """

    def __init__(
        self,
        name: str,
        taxonomy: Taxonomy,
        rows: Rows | Sequence[Row],
        note: str = "",
        skipped: Sequence[Skipped] = (),
        photo_vectors: "Features | None" = None,
        lost_photos: Sequence[Skipped] = (),
    ) -> None:
        if not len(rows):
            raise DataError(f"{name}: no listings")
        self.name, self.taxonomy, self.note, self.skipped = name, taxonomy, note, skipped
        self.rows = rows if isinstance(rows, Rows) else Rows.of(rows, taxonomy)
        self.photo_vectors, self.lost_photos = photo_vectors, lost_photos
        self.targets: npt.NDArray[np.int64] = self.rows.numbers("path")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def given_photo_width(self) -> int | None:
        """Of the photo vectors that it brings in place of photos; None: it brings none."""
        return None if self.photo_vectors is None else self.photo_vectors.width

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """[N]: whether the truth is known; only such rows are trained and measured on."""
        known: npt.NDArray[np.bool_] = self.targets != NO_PATH
        return known

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what a split depends on: ids, groups, paths. The title column may change, the split stays."""
        digest = hashlib.sha256(self.taxonomy.digest.encode())
        ends = ["".join(f"\t{id_}" for id_ in path) for path in self.rows.paths]
        ends.append("")  # at NO_PATH, which is -1
        for batch in self.rows.table.select(["id", "group", "path"]).to_batches():
            cells = zip(*(column.to_pylist() for column in batch.columns), strict=True)
            digest.update("".join(f"{id_}\t{group}{ends[path]}\n" for id_, group, path in cells).encode())
        return digest.hexdigest()
