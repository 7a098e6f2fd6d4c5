"""Kakao Arena "shopping classification": HDF5 chunks, eight million rows in nine files.

    train.chunk.01 … : one group, named by its split, with the columns
      pid, product, brand, maker, model, updttm   byte strings, UTF-8, padded with NUL
      bcateid, mcateid, scateid, dcateid          int, -1 where the path has ended; all -1 in dev and test
      img_feat                                    float32 [2048], a pooled ResNet50; zeros where there was no photo
      price                                       int32, not read

Read in blocks, twice: the texts into rows, then the vectors of the rows that stayed into a feature store (one place a
row: what is pooled has no grid). A vector that half precision cannot hold is left out, counted and listed. Rows without
a category are for prediction. Gives a Dataset.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from mmcat.errors import TaxonomyError
from mmcat.taxonomy import Taxonomy
from training.data import Dataset, Row, Skipped
from training.errors import DataError
from training.progress import Progress, Quiet
from training.readers.bad_rows import MAX_BAD_SHARE, BadCellError, all_bad, check_lengths, refuse_too_many
from training.rows import Draft
from training.splits import group_key
from training.store import Block, Features, Layout, stored

WIDTH = 2_048
_TEXTS = ("pid", "product", "brand", "maker", "model")
_LEVELS = ("bcateid", "mcateid", "scateid", "dcateid")
_COLUMNS = (*_TEXTS, *_LEVELS, "img_feat")
_BLOCK = 8_192  # rows: 64 MB of float32 vectors
_FORMAT = 2  # of the store of vectors; change it where the way of reading them changes
_ABSENT = -1
_NOTE = "{count} listings of Kakao Arena's shopping classification ({files}); under its own terms of use"


def read_kakao(
    files: Sequence[Path],
    *,
    taxonomy: Taxonomy | None = None,
    cache: Path | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    progress: Progress | None = None,
) -> Dataset:
    """Reads chunk files in the order given; blocks for minutes per million rows.

    Args:
        taxonomy: decides which paths there are; None: those of the rows, named by their ids.
        cache: folder for rows and vectors; None: no vectors, and rows go into an unnamed temporary file.

    Raises:
        DataError: not such a file, too many bad rows, or neither a category nor a taxonomy.
    """
    progress = progress or Quiet()
    draft, skipped = Draft(cache, taxonomy), list[Skipped]()
    with ExitStack() as stack:
        chunks = [_Chunk(path, stack) for path in files]
        begins = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        try:
            progress.begin("listings", int(begins[-1]))
            for chunk, begin in zip(chunks, begins[:-1].tolist(), strict=True):
                _read_rows(chunk, begin, draft, taxonomy, skipped, progress)
            name = f"kakao-{chunks[0].split}"
            rows, found, repeated = draft.finish(name, _no_photo)
        except BaseException:
            draft.discard()
            raise

        def file_of(line: int) -> str:
            return chunks[_chunk_at(begins, line - 1)].path.name

        skipped = all_bad(skipped, repeated, "pid", file_of)
        refuse_too_many(files[0].parent, skipped, len(rows), max_bad_share)
        if found is None:
            raise DataError(f"{files[0]}: no listing has a category; name the taxonomy of the model that shall predict")
        vectors, lost = None, list[Skipped]()
        if cache is not None:
            vectors, lines = _vectors(chunks, begins, rows.numbers("line"), cache, progress)
            lost = [Skipped(line, "img_feat", f"{file_of(line)}: not finite in half precision") for line in lines]
    note = _NOTE.format(count=len(rows), files=", ".join(path.name for path in files))
    return Dataset(name, found, rows, note, skipped, vectors, lost)


class _Chunk:
    """One open file; checked to have every column at one length."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        try:
            file = stack.enter_context(h5py.File(path, "r"))
        except OSError as error:
            raise DataError(f"{path} cannot be read as HDF5: {str(error).partition('(')[0].strip()}") from error
        if len(file) != 1 or not isinstance(group := next(iter(file.values())), h5py.Group):
            raise DataError(f"{path} holds {sorted(file)}: one group, named by its split, is expected")
        self.split = str(group.name).strip("/")
        missing = [name for name in _COLUMNS if name not in group]
        if missing:
            raise DataError(f"{path} lacks the column {missing[0]!r}")
        self.columns: dict[str, Any] = {name: group[name] for name in _COLUMNS}
        lengths = {len(column) for column in self.columns.values()}
        if len(lengths) != 1 or self.columns["img_feat"].shape[1:] != (WIDTH,):
            raise DataError(f"{path}: columns of different lengths, or img_feat is not {WIDTH} wide")

    def __len__(self) -> int:
        return len(self.columns["pid"])

    def blocks(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Texts and categories: (first row, columns) of each block."""
        for start in range(0, len(self), _BLOCK):
            yield start, {name: self.columns[name][start : start + _BLOCK] for name in (*_TEXTS, *_LEVELS)}


def _read_rows(
    chunk: _Chunk,
    begin: int,
    draft: Draft,
    taxonomy: Taxonomy | None,
    skipped: list[Skipped],
    progress: Progress,
) -> None:
    """Adds a chunk's good rows; lines count from 1 over all chunks."""
    for start, columns in chunk.blocks():
        levels = np.stack([columns[name] for name in _LEVELS], axis=1).tolist()
        for inside, ids in enumerate(levels):
            line = begin + start + inside + 1
            try:
                row = _row({name: columns[name][inside] for name in _TEXTS}, ids, taxonomy)
            except BadCellError as bad:
                skipped.append(Skipped(line, bad.column, f"{chunk.path.name}: {bad.reason}"))
                continue
            draft.add(row, photo=None, line=line)
        progress.advance(len(levels))


def _row(cells: dict[str, Any], ids: Sequence[int], taxonomy: Taxonomy | None) -> Row:
    texts = {name: _decoded(name, cell) for name, cell in cells.items()}
    product_id, title = texts.pop("pid"), texts["product"]
    check_lengths(product_id, texts, "pid")
    depth = next((level for level, id_ in enumerate(ids) if id_ == _ABSENT), len(ids))
    if any(id_ != _ABSENT for id_ in ids[depth:]):
        raise BadCellError(_LEVELS[depth], "absent above a level that is there")
    path = tuple(str(id_) for id_ in ids[:depth])
    if path and taxonomy is not None:
        try:
            taxonomy.index(path)
        except TaxonomyError as error:
            raise BadCellError(_LEVELS[depth - 1], str(error)) from error
    return Row(product_id, title, path, group_key(title), None, texts["brand"], texts["maker"], texts["model"])


def _decoded(column: str, cell: Any) -> str:
    try:
        return bytes(cell).rstrip(b"\0").decode().strip()
    except UnicodeDecodeError as error:
        raise BadCellError(column, f"not UTF-8 ({error.reason})") from error


def _vectors(
    chunks: Sequence[_Chunk],
    begins: npt.NDArray[np.int64],
    lines: npt.NDArray[np.int64],
    cache: Path,
    progress: Progress,
) -> tuple[Features, list[int]]:
    """The vectors of the rows that stayed, fp16, and the lines of those whose vector half precision cannot hold.

    Named by the files' names, sizes and times: they are 100 GB.
    """
    digest = hashlib.sha256(f"{_FORMAT}\n".encode() + lines.tobytes())
    for chunk in chunks:
        stat = chunk.path.stat()
        digest.update(f"{chunk.path.resolve()}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())

    store = cache / f"image-kakao-{digest.hexdigest()[:24]}-float16"
    lost = store.with_suffix(".lost")  # lines, kept beside: a store that is there is not read from the chunks again

    def compute(rows: range) -> Block:
        lines_R = lines[rows.start : rows.stop]
        found_RD = _read_vectors(chunks, begins, lines_R - 1)
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            half_RD = found_RD.astype(np.float16)
        given, finite = (found_RD != 0).any(1), np.isfinite(half_RD).all(1)
        if (given & ~finite).any():
            with lost.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines_R[given & ~finite]))
        there = given & finite
        return half_RD[there], there.astype(np.int32)[:, None]

    layout = Layout(len(lines), WIDTH, len(lines), np.dtype(np.float16), block=_BLOCK)
    vectors = stored(store, layout, compute, progress, "photo vectors")
    told = lost.read_text(encoding="utf-8").split() if lost.exists() else []
    return vectors, sorted({int(line) for line in told})  # a block that was read twice told them twice


def _read_vectors(
    chunks: Sequence[_Chunk], begins: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """[rows, 2048] of ascending row numbers: each chunk's span in one piece, which HDF5 reads fastest."""
    parts = []
    for number in range(_chunk_at(begins, int(wanted[0])), _chunk_at(begins, int(wanted[-1])) + 1):
        inside = wanted[(wanted >= begins[number]) & (wanted < begins[number + 1])] - begins[number]
        if len(inside):
            span = chunks[number].columns["img_feat"][inside[0] : inside[-1] + 1]
            parts.append(span[inside - inside[0]])
    return np.concatenate(parts)


def _chunk_at(begins: npt.NDArray[np.int64], row: int) -> int:
    return int(np.searchsorted(begins, row, side="right")) - 1


def _no_photo(where: str) -> bytes:
    raise DataError(f"these listings have no photos, only vectors ({where})")
