"""The table of listings in a folder, in one of three forms, line by line and never whole in memory.

    listings.tsv      tabs, nothing quoted: a quotation mark is a quotation mark
    listings.csv      commas, quoted as RFC 4180 says: cells may hold commas, line breaks and doubled quotation marks
    listings.parquet  columns of any type that can be written as text

Before folder.py, which knows what the columns mean.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.errors import DataError

NAMES = ("listings.tsv", "listings.csv", "listings.parquet")
_BATCH = 8_192  # rows of Parquet a turn
_SEE = "see docs/data-format.md"


@dataclass(frozen=True, slots=True)
class Table:
    """A table that can be read once.

    Args:
        rows: (line, cells) of every row that is not empty; lines count from 1, the header's in, Parquet's rows from 1.
    """

    path: Path
    header: Sequence[str]
    rows: Iterator[tuple[int, list[str]]]


def table_path(folder: Path) -> Path:
    """The folder's table.

    Raises:
        DataError: none, or several.
    """
    there = [folder / name for name in NAMES if (folder / name).is_file()]
    if not there:
        raise DataError(f"{folder / NAMES[0]} cannot be read (no such file, nor {' or '.join(NAMES[1:])}): {_SEE}")
    if len(there) > 1:
        raise DataError(f"{folder} holds {' and '.join(path.name for path in there)}: keep one of them")
    return there[0]


def open_table(path: Path, columns: Sequence[str]) -> Table:
    """Opens a table of any form.

    Args:
        columns: those that are read of a Parquet file; text files give all they have.

    Raises:
        DataError: unreadable, not UTF-8, or not of its form; also while rows are read. The message says the line.
    """
    if path.suffix == ".parquet":
        return _parquet(path, columns)
    lines = _decoded(path)
    rows = _csv(path, lines) if path.suffix == ".csv" else _tsv(lines)
    _, header = next(rows, (1, []))
    return Table(path, header, ((line, cells) for line, cells in rows if any(cells)))


def _decoded(path: Path) -> Iterator[str]:
    """Lines with their ends; parted at \\n alone, since titles may hold U+2028."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {_SEE}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8 ({error.reason}): save it as UTF-8") from error


def _tsv(lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        yield number, line.removesuffix("\n").removesuffix("\r").split("\t")


def _csv(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error}): {_SEE}") from error


def _parquet(path: Path, columns: Sequence[str]) -> Table:
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not Parquet ({error}): {_SEE}") from error
    header = [name for name in file.schema_arrow.names if name in columns]
    return Table(path, header, _parquet_rows(path, file, header))


def _parquet_rows(path: Path, file: Any, header: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    number = 0
    try:
        for batch in file.iter_batches(_BATCH, columns=list(header)):
            texts = [pc.fill_null(pc.cast(column, pa.string()), "").to_pylist() for column in batch.columns]
            for cells in zip(*texts, strict=True):
                number += 1
                yield number, list(cells)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}, after row {number}: {error}: {_SEE}") from error
