"""Rows as columns in a memory-mapped Arrow file: eight million listings take disk, not memory.

    Draft.add(row) … ─> Draft.finish() ─> Rows: a sequence that makes a `Row` when one is asked for

Readers add rows one by one; a block of them is a record batch of the file. Repeated ids are found at the end, by Arrow,
so that no reader holds all ids. The finished file is named by its contents and appears whole or not at all; without a
cache folder it has no name and is gone with its last reader.

After the readers, which fill it; before data.py.
"""

import contextlib
import hashlib
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mmcat.errors import PhotoError
from mmcat.taxonomy import Taxonomy
from training.errors import DataError

PathIds = tuple[str, ...]
OpenPhoto = Callable[[str], bytes]
BLOCK = 16_384  # rows of a record batch: a few megabytes
NO_PATH = -1  # in the column `path`: the row's truth is not known
_TEXTS = ("id", "title", "brand", "maker", "model", "group", "photo")
_SCHEMA = pa.schema([*((name, pa.string()) for name in _TEXTS), ("path", pa.int32()), ("line", pa.int64())])


@dataclass(frozen=True, slots=True)
class Row:
    """One listing with its truth.

    Args:
        path: ids from the main level to the stop level; () where the truth is not known (then it is for prediction).
        group: rows of one group never fall into different parts of a split ("" stands for a group of its own).
        photo: gives the photo's bytes, or raises PhotoError where they cannot be read; None where the listing has none.
    """

    id: str
    title: str
    path: PathIds
    group: str
    photo: Callable[[], bytes] | None = None
    brand: str = ""
    maker: str = ""
    model: str = ""

    def photo_bytes(self) -> bytes | None:
        """What `photo` gives; None where the listing has no photo, or none that can be read."""
        try:
            return None if self.photo is None else self.photo()
        except PhotoError:
            return None


@dataclass(frozen=True, slots=True)
class Repeated:
    """A row that was left out because its id had been seen."""

    line: int
    id: str


class Rows(Sequence[Row]):
    """A sequence of rows over Arrow columns; thread-safe, holds nothing but the map of the file.

    Args:
        table: of the columns id, title, brand, maker, model, group, photo, path, line.
        paths: ids by the numbers in `path`.
        open_photo: gives the bytes for what stands in `photo`.
    """

    def __init__(self, table: Any, paths: Sequence[PathIds], open_photo: OpenPhoto) -> None:
        self.table, self.paths, self._open_photo = table, paths, open_photo
        self._batches: list[Any] = table.to_batches()
        self._ends = np.cumsum([len(batch) for batch in self._batches])

    @classmethod
    def of(cls, rows: Sequence[Row], taxonomy: Taxonomy) -> "Rows":
        """Columns of rows that are at hand, in an unnamed file.

        Raises:
            DataError: an id that stands twice.
        """
        photos = [row.photo for row in rows]
        draft = Draft(None, taxonomy)
        for place, row in enumerate(rows):
            draft.add(row, photo=None if row.photo is None else str(place))
        found, _, repeated = draft.finish("", lambda where: _called(photos[int(where)]))
        if repeated:
            raise DataError(f"{len(repeated)} product ids stand twice, {repeated[0].id!r} first")
        return found

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        at = int(place) + (len(self) if place < 0 else 0)
        if not 0 <= at < len(self):
            raise IndexError(f"no row {place} of {len(self)}")
        number = int(np.searchsorted(self._ends, at, side="right"))
        batch = self._batches[number]
        inside = at - int(self._ends[number]) + len(batch)
        return self._row({name: batch.column(name)[inside].as_py() for name in (*_TEXTS, "path")})

    def __iter__(self) -> Iterator[Row]:
        for batch in self._batches:
            columns = [batch.column(name).to_pylist() for name in (*_TEXTS, "path")]
            for cells in zip(*columns, strict=True):
                yield self._row(dict(zip((*_TEXTS, "path"), cells, strict=True)))

    def column(self, name: str) -> Any:
        """One column as Arrow's ChunkedArray, not copied."""
        return self.table.column(name)

    def numbers(self, name: str) -> npt.NDArray[np.int64]:
        """A column of numbers, in memory: 8 bytes a row."""
        chunks = [chunk.to_numpy(zero_copy_only=False) for chunk in self.column(name).chunks]
        return np.concatenate([np.zeros(0, np.int64), *chunks]).astype(np.int64, copy=False)

    @property
    def with_photo(self) -> npt.NDArray[np.bool_]:
        """[N]: whether the row names a photo, be it usable or not."""
        chunks = [chunk.is_valid().to_numpy(zero_copy_only=False) for chunk in self.column("photo").chunks]
        return np.concatenate([np.zeros(0, np.bool_), *chunks])

    def _row(self, cells: dict[str, Any]) -> Row:
        path, photo = cells.pop("path"), cells.pop("photo")
        return Row(
            **cells,
            path=() if path == NO_PATH else self.paths[path],
            photo=None if photo is None else partial(self._open_photo, photo),
        )


def _called(photo: Callable[[], bytes] | None) -> bytes:
    return b"" if photo is None else photo()


class Draft:
    """Rows on their way into a file.

    Args:
        folder: where the finished file goes, made when needed; None: an unnamed file of the system's temporary folder.
        taxonomy: decides which paths there are and their numbers; None: those of the rows, in their order.
    """

    def __init__(self, folder: Path | None, taxonomy: Taxonomy | None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._taxonomy = folder, taxonomy
        self._file = Path(folder or tempfile.gettempdir()) / f".rows-{uuid.uuid4().hex}.arrow"
        self._writer: Any = pa.ipc.new_file(str(self._file), _SCHEMA)
        self._cells: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
        self._paths: dict[PathIds, int] = {}
        if taxonomy is not None:
            self._paths = {tuple(node.id for node in path): row for row, path in enumerate(taxonomy.paths)}
        self.count = 0

    def add(self, row: Row, *, photo: str | None, line: int = 0) -> None:
        """Takes one row.

        Args:
            photo: where its photo is, for the `open_photo` of `finish`; stands for `row.photo`, which is not kept.
            line: where the row stands at its source.

        Raises:
            DataError: a path that the taxonomy does not have.
        """
        cells = self._cells
        for name in ("id", "title", "brand", "maker", "model", "group"):
            cells[name].append(getattr(row, name))
        cells["photo"].append(photo)
        cells["path"].append(self._number(row))
        cells["line"].append(line)
        self.count += 1
        if len(cells["id"]) == BLOCK:
            self._flush()

    def finish(self, name: str, open_photo: OpenPhoto) -> tuple[Rows, Taxonomy | None, list[Repeated]]:
        """Closes the file and gives its rows.

        Returns:
            the rows; their taxonomy, None where none was given and no row has a path; rows left out for their id.
        """
        self._flush()
        self._writer.close()
        table = _mapped(self._file)
        first, repeated = _first_of_each_id(table)
        paths = list(self._paths)
        if repeated:
            table, paths = self._without(table, first, paths)
        taxonomy = self._taxonomy or (Taxonomy.from_names(paths) if paths else None)
        if self._folder is None:
            self._file.unlink()
        else:
            table = _mapped(_named_by_contents(self._file, self._folder, name))
        return Rows(table, paths, open_photo), taxonomy, repeated

    def discard(self) -> None:
        """Removes what was written; for readers that stop half-way. Harmless after `finish`."""
        with contextlib.suppress(OSError):
            self._file.unlink()

    def _number(self, row: Row) -> int:
        if not row.path:
            return NO_PATH
        if self._taxonomy is None:
            return self._paths.setdefault(row.path, len(self._paths))
        try:
            return self._paths[row.path]
        except KeyError:
            raise DataError(f"{row.id}: no path {' > '.join(row.path)} in this taxonomy") from None

    def _flush(self) -> None:
        if self._cells["id"]:
            self._writer.write_batch(pa.record_batch(self._cells, schema=_SCHEMA))
            self._cells = {name: [] for name in _SCHEMA.names}

    def _without(self, table: Any, kept: npt.NDArray[np.bool_], paths: list[PathIds]) -> tuple[Any, list[PathIds]]:
        """Writes the file anew with the kept rows, their paths numbered as if the others had never been there."""
        numbers = np.concatenate([chunk.to_numpy() for chunk in table.column("path").chunks])
        again = {NO_PATH: NO_PATH}
        if self._taxonomy is None:
            seen, at = np.unique(numbers[kept & (numbers != NO_PATH)], return_index=True)
            used = seen[np.argsort(at)]
            again |= {int(old): new for new, old in enumerate(used)}
            paths = [paths[old] for old in used]
        else:
            again |= {row: row for row in range(len(paths))}
        beside = self._file.with_suffix(".kept")
        done = 0
        with pa.ipc.new_file(str(beside), _SCHEMA) as writer:
            for batch in table.to_batches():
                part = batch.filter(pa.array(kept[done : done + len(batch)]))
                done += len(batch)
                numbered = pa.array([again[old] for old in part.column("path").to_pylist()], pa.int32())
                writer.write_batch(part.set_column(_SCHEMA.get_field_index("path"), "path", numbered))
        beside.replace(self._file)
        return _mapped(self._file), paths


def codes(column: Any) -> tuple[npt.NDArray[np.int64], Any]:
    """A text column as numbers: equal texts have equal ones, counted by first appearance; and the texts by number."""
    chunks = column.dictionary_encode().chunks  # they share one dictionary, whole in the last
    numbers = np.concatenate([np.zeros(0, np.int64), *(chunk.indices.to_numpy() for chunk in chunks)])
    return numbers.astype(np.int64, copy=False), chunks[-1].dictionary if chunks else pa.array([], pa.string())


def _first_of_each_id(table: Any) -> tuple[npt.NDArray[np.bool_], list[Repeated]]:
    numbers, distinct = codes(table.column("id"))
    first = np.zeros(len(numbers), np.bool_)
    if len(distinct) == len(numbers):
        first[:] = True
        return first, []
    first[np.unique(numbers, return_index=True)[1]] = True
    repeats = table.select(["line", "id"]).filter(pa.array(~first)).to_pylist()
    return first, [Repeated(row["line"], row["id"]) for row in repeats]


def _mapped(file: Path) -> Any:
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def _named_by_contents(file: Path, folder: Path, name: str) -> Path:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    named = folder / f"rows-{name}-{digest[:12]}.arrow"
    file.replace(named)
    return named


def group_members(groups: Any, ids: Any) -> tuple[npt.NDArray[np.int64], int]:
    """Each row's group as a number, numbers in the groups' alphabetical order, and how many groups there are.

    A row whose group is "" is a group of its own.
    """
    alone = pc.equal(groups, "")
    keys = pc.if_else(alone, pc.binary_join_element_wise("\0", ids, ""), groups)
    numbers, distinct = codes(keys)
    order = pc.sort_indices(distinct).to_numpy()  # by UTF-8 bytes, which is by code points, as Python sorts
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[numbers], len(order)
