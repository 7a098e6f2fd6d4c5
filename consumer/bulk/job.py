"""A bulk job: which table, which model, cut into parts.

First in the flow; its `Source` travels to the machines that work.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from consumer.bulk.rows import ORDER_COLUMN, READ, missing
from consumer.errors import ConfigError
from consumer.order import OrderBy


class Job(BaseModel):
    """What makes two jobs the same: their answers may lie in one file.

    Args:
        audit_share, audit_mark: which accepted answers a person checks (`results.Audit`).
        event_bytes, photo_bytes: longest row and photo.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    input_sha256: str
    rows: int
    fingerprint: str
    engine: str
    precision: str
    top_k: int
    evidence: bool
    audit_share: float
    audit_mark: str
    event_bytes: int
    photo_bytes: int
    batch: int
    part_rows: int
    title_column: str
    photos: str | None
    order_by: OrderBy | None

    @property
    def origin(self) -> str:
        """What stands for the topic in `origin`: the table, by content."""
        return f"bulk:{self.input_sha256[:16]}"


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of one row group: `start` and `stop` count within the group, `first` over the whole table."""

    number: int
    group: int
    start: int
    stop: int
    first: int


class Source:
    """The table, read a part at a time; keeps the row group it read last, since the next part is likely of it."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._path, self._columns = path, columns
        self._group: tuple[int, Any] = (-1, None)

    def read(self, part: Part) -> list[dict[str, Any]]:
        """The rows of a part, by column."""
        if self._group[0] != part.group:
            with pq.ParquetFile(self._path) as file:
                self._group = (part.group, file.read_row_group(part.group, columns=list(self._columns)))
        rows: list[dict[str, Any]] = self._group[1].slice(part.start, part.stop - part.start).to_pylist()
        return rows


@dataclass(frozen=True, slots=True)
class Table:
    """What can be said of the input before any work."""

    path: Path
    columns: tuple[str, ...]
    groups: tuple[int, ...]
    sha256: str

    @classmethod
    def open(cls, path: Path, title: str, extra: OrderBy | None) -> "Table":
        """Look at the table; reads the whole file once, for its digest.

        Args:
            extra: what must order the rows, if anything must.

        Raises:
            ConfigError: no Parquet, or a column is missing.
        """
        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                groups = tuple(file.metadata.row_group(at).num_rows for at in range(file.num_row_groups))
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"{path} is not a Parquet file that can be read: {error}") from error
        if gone := missing(names, title):
            raise ConfigError(f"{path} has no column {gone[0]!r}: see docs/data-format.md, or name it (--title-column)")
        if extra is not None and ORDER_COLUMN[extra] not in names:
            raise ConfigError(
                f"{path} has no column {ORDER_COLUMN[extra]!r}: what is published needs it for its rank "
                f"(order_by is {extra}); give each row that of its event, or leave out --to-topic"
            )
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
        return cls(path, tuple(name for name in names if name in (*READ, title)), groups, digest)

    def parts(self, part_rows: int, limit: int | None) -> list[Part]:
        """The table in parts of at most so many rows; the first `limit` rows alone, where one is given."""
        found: list[Part] = []
        first, left = 0, sum(self.groups) if limit is None else limit
        for group, rows in enumerate(self.groups):
            for start in range(0, min(rows, left), part_rows):
                stop = min(start + part_rows, rows, left)
                found.append(Part(len(found), group, start, stop, first + start))
            first, left = first + rows, max(0, left - rows)
        return found
