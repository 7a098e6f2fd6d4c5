"""Feature stores: what an encoder made of each row, in memory-mapped files that may exceed memory many times.

A row has a run of places (one where the encoder pools, the cells of a photo's grid, the tokens of a title), each place
a vector. A store is a folder:

    values.bin    [places, D] fp16 or fp32, little-endian: row after row, within a row view after view
    index.arrow   per row: the start and the length of each view's run (0 where the row lacks the modality); the
                  schema's metadata say dtype, width, views

Why raw values beside an Arrow index: docs/decisions/0007-features-on-disk.md. A store is written block by block beside
its place and renamed: readers see all of it or nothing; killed half-way, the next run goes on after the last block.

Before features.py and the readers that bring vectors, which say how a block is computed; fusion.py takes batches.
"""

import fcntl
import json
import mmap
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from training.errors import DataError
from training.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Block = tuple[Array, npt.NDArray[np.int32]]  # [places, D] of some rows, and [rows, views] lengths of their runs
VALUES, INDEX, LENGTHS = "values.bin", "index.arrow", "lengths.bin"
_VERSION = 1
_POOLED = 8_192  # rows a turn, where places are averaged


@dataclass(frozen=True, slots=True)
class Features:
    """Vectors of one modality.

    Args:
        vectors: [places, D], fp16 or fp32, usually memory-mapped. Without `starts`: one place for each row (and view).
        there: bool [N]; False where the listing has no title, no photo, or one that cannot be decoded.
        starts, lengths: [N, views], each view's run of places; None for both: see `vectors`.
        views: augmentations of each row; view 0 is the row as it is.
        least: places that every batch has at least: where all runs are equally long (a grid), a batch of rows without
            photos has the shape of the others.
        name: of the store, which holds everything that the contents depend on; "" of vectors in memory.
    """

    vectors: Array
    there: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64] | None = None
    lengths: npt.NDArray[np.int32] | None = None
    views: int = 1
    least: int = 1
    name: str = ""

    def __len__(self) -> int:
        return len(self.there)

    @property
    def width(self) -> int:
        """D."""
        return int(self.vectors.shape[1])

    def take(self, rows: Rows, view: int | Rows = 0) -> "tuple[Tensor, Tensor, Tensor]":
        """A batch: x_BLD float32, padded with zeros to its longest row; mask_BL bool, False at padding; there_B bool.

        A row that is not there has no place (its mask is False everywhere); L ≥ `least`.

        Args:
            view: of all rows, or of each, [B].

        Raises:
            ValueError: there is no such view.
        """
        import torch  # takes seconds: readers of data and checks of folders do without

        if np.any((np.asarray(view) < 0) | (np.asarray(view) >= self.views)):
            raise ValueError(f"no view {view}: these features have {self.views}")
        starts_B, lengths_B = self._runs(rows, view)
        places_L = np.arange(max(self.least, int(lengths_B.max(initial=0))))
        mask_BL = places_L < lengths_B[:, None]
        at_BL = starts_B[:, None] + places_L
        if mask_BL.all():
            x_BLD = self.vectors[at_BL]
        else:
            x_BLD = np.zeros((*mask_BL.shape, self.width), self.vectors.dtype)
            x_BLD[mask_BL] = self.vectors[at_BL[mask_BL]]
        return torch.from_numpy(x_BLD).float(), torch.from_numpy(mask_BL), torch.from_numpy(self.there[rows])

    def pooled(self, rows: Rows) -> npt.NDArray[np.float32]:
        """[len(rows), D] in memory: the mean over the places of each row as it is; zeros where there are none."""
        found = np.zeros((len(rows), self.width), np.float32)
        for start in range(0, len(rows), _POOLED):
            x_BLD, mask_BL, _ = self.take(rows[start : start + _POOLED])
            found[start : start + _POOLED] = x_BLD.sum(1) / mask_BL.sum(1, keepdim=True).clamp_min(1)
        return found

    def _runs(self, rows: Rows, view: int | Rows) -> tuple[Rows, npt.NDArray[np.int64]]:
        if self.starts is None or self.lengths is None:
            return rows * self.views + view, self.there[rows].astype(np.int64)
        return self.starts[rows, view], self.lengths[rows, view].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a store holds, known before it is made.

    Args:
        places: upper bound over all rows and views, for the size that is told.
        block: rows that are computed and made safe together: what a kill can cost.
    """

    rows: int
    width: int
    places: int
    dtype: "np.dtype[Any]"
    views: int = 1
    block: int = 256

    @property
    def size_bytes(self) -> int:
        return self.places * self.width * self.dtype.itemsize


def stored(folder: Path, layout: Layout, compute: Callable[[range], Block], progress: Progress, stage: str) -> Features:
    """Opens the store `folder`, or makes it first; blocks for as long as `compute` takes.

    Args:
        folder: its name must hold everything that the contents depend on: a store that is there is taken as it is.
        compute: gives the vectors of a block of rows; must give the same for the same rows in every run.

    Raises:
        DataError: not enough disk, or a store that is not whole.
    """
    if folder.exists():
        return read(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    with _alone(folder, progress):
        if not folder.exists():  # another run may have made it while this one waited
            partial.mkdir(exist_ok=True)
            gigabytes = f"{layout.size_bytes / 1e9:.2f} GB"
            progress.say(f"{stage}: up to {gigabytes} ({layout.rows:,} rows) go into {folder}")
            free = shutil.disk_usage(partial).free + _size(partial / VALUES)
            if free < layout.size_bytes:
                raise DataError(f"{folder} needs {gigabytes}, and {free / 1e9:.2f} GB are free: name another folder")
            _fill(partial, layout, compute, progress, stage)
            _write_index(partial, layout)
            partial.replace(folder)
            (folder / LENGTHS).unlink()
    return read(folder)


def read(folder: Path) -> Features:
    """Maps a whole store; 1 byte a row in memory.

    Raises:
        DataError: not a store, or one of another format or size.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(folder / INDEX))).read_all()
        facts = json.loads(table.schema.metadata[b"mmcat"])
        dtype, width, views, least = np.dtype(facts["dtype"]), facts["width"], facts["views"], facts["least"]
        starts, lengths = (_matrix(table.column(name), views) for name in ("start", "length"))
        vectors = _map(folder / VALUES, dtype).reshape(-1, width)
        whole = facts["version"] == _VERSION and len(vectors) == facts["places"]
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{folder} is not a feature store ({error}): remove it to make it again") from error
    if not whole:
        raise DataError(f"{folder} is cut off or of another format: remove it to make it again")
    return Features(vectors, lengths[:, 0] > 0, starts, lengths, views, least, folder.name)


def _fill(partial: Path, layout: Layout, compute: Callable[[range], Block], progress: Progress, stage: str) -> None:
    """Appends the blocks that are missing. A block counts once its lengths are written, and those follow its values."""
    with (partial / VALUES).open("ab") as values, (partial / LENGTHS).open("ab") as lengths:
        done = _resume(values, lengths, layout)
        progress.begin(stage, layout.rows)
        if done:
            progress.advance(done, "found from an earlier run")
        for start in range(done, layout.rows, layout.block):
            rows = range(start, min(start + layout.block, layout.rows))
            vectors, runs = compute(rows)
            _check(vectors, runs, len(rows), layout)
            values.write(np.ascontiguousarray(vectors, layout.dtype).data)
            _sync(values)
            lengths.write(np.ascontiguousarray(runs, np.int32).data)
            _sync(lengths)
            progress.advance(len(rows))


def _resume(values: BinaryIO, lengths: BinaryIO, layout: Layout) -> int:
    """Cuts both files after the last whole block; gives the number of rows that stay."""
    row_bytes = 4 * layout.views
    rows = min(lengths.tell() // row_bytes, layout.rows)
    done = rows if rows == layout.rows else rows // layout.block * layout.block
    runs = np.fromfile(lengths.name, np.int32, done * layout.views)
    wanted = int(runs.sum(dtype=np.int64)) * layout.width * layout.dtype.itemsize
    if values.tell() < wanted:  # never after a kill: somebody has cut the file
        done = wanted = 0
    values.truncate(wanted)
    lengths.truncate(done * row_bytes)
    return done


def _check(vectors: Array, runs: npt.NDArray[np.int32], rows: int, layout: Layout) -> None:
    if runs.shape != (rows, layout.views) or vectors.shape != (int(runs.sum()), layout.width):
        raise ValueError(
            f"a block of {rows} rows and {layout.views} views gave {vectors.shape} values of width {layout.width}, "
            f"and lengths {runs.shape} that sum to {int(runs.sum())}"
        )


def _write_index(partial: Path, layout: Layout) -> None:
    runs = np.fromfile(partial / LENGTHS, np.int32)
    ends = np.cumsum(runs, dtype=np.int64)
    columns = {
        "start": pa.FixedSizeListArray.from_arrays(pa.array(ends - runs), layout.views),
        "length": pa.FixedSizeListArray.from_arrays(pa.array(runs), layout.views),
    }
    places = int(ends[-1]) if len(ends) else 0
    facts = {"version": _VERSION, "dtype": layout.dtype.name, "width": layout.width, "views": layout.views}
    batch = pa.record_batch(columns)
    known = np.unique(runs[runs > 0])
    facts |= {"places": places, "least": int(known[0]) if len(known) == 1 else 1}
    schema = batch.schema.with_metadata({"mmcat": json.dumps(facts)})
    with pa.ipc.new_file(str(partial / INDEX), schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))


def _matrix(column: Any, views: int) -> Array:
    flat: Array = column.chunk(0).flatten().to_numpy()
    return flat.reshape(-1, views)


def _map(path: Path, dtype: "np.dtype[Any]") -> Array:
    if sys.byteorder != "little":
        raise DataError(f"{path} is little-endian, this machine is not")
    if not _size(path):
        return np.zeros(0, dtype)
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fdatasync(file.fileno()) if hasattr(os, "fdatasync") else os.fsync(file.fileno())


@contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """One process at a time makes a store; others wait and then find it made. A killed one lets go by dying."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"waiting for another run that makes {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        path.unlink(missing_ok=True)  # whoever makes the file anew finds the store
