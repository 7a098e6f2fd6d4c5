"""What of a bulk job is done, and its file in the end.

Beside `OUT.parquet` lies `OUT.parquet.parts/` while a job runs: `job.json`, and a Parquet file for each part that is
done, renamed into place. A part is done whole or again, so a job killed anywhere goes on and ends with the same rows.
The last step joins the parts, in the table's order, into one file, which has the job in its metadata. What would make
it another job (another table, another bundle, other columns) is refused: half of the answers would be another's.
After cluster.py; before publish.py.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from consumer.bulk.answers import SCHEMA
from consumer.bulk.job import Job, Part
from consumer.errors import ConfigError

METADATA: Final = b"mmcat.job"
GROUP_ROWS: Final = 65_536
"""Rows of a row group of the file of answers: what other programs read at once."""


class Folder:
    """Where the parts of a job lie until its file is there.

    Raises:
        ConfigError: another job's answers lie there.
    """

    def __init__(self, job: Job, out: Path) -> None:
        self.job, self.out = job, out
        self.path = out.with_name(out.name + ".parts")
        if out.exists():
            self._refuse_other(job_of(out), out)
        if (kept := self.path / "job.json").exists():
            self._refuse_other(_read(kept.read_bytes(), kept), self.path)

    @property
    def finished(self) -> bool:
        """Whether the file of answers is there."""
        return self.out.exists()

    def begin(self) -> None:
        """Make the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        put(self.path / "job.json", self.job.model_dump_json(indent=2).encode())

    def left(self, parts: list[Part]) -> list[Part]:
        """Those that are not done."""
        return [] if self.finished else [part for part in parts if not self._file(part.number).exists()]

    def keep(self, number: int, answers: bytes) -> None:
        """A part is done."""
        put(self._file(number), answers)

    def join(self, parts: list[Part]) -> None:
        """Write the file of answers, all or nothing, and remove the parts."""
        schema = SCHEMA.with_metadata({METADATA: self.job.model_dump_json().encode()})
        beside = self.out.with_name(f".{self.out.name}.{os.getpid()}")
        try:
            with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
                for table in self._groups(parts):
                    writer.write_table(table.cast(schema))
            _sync(beside)
            beside.replace(self.out)
        finally:
            beside.unlink(missing_ok=True)
        shutil.rmtree(self.path)

    def _groups(self, parts: list[Part]) -> Iterator[Any]:
        held: list[Any] = []
        for part in parts:
            held.append(pq.read_table(self._file(part.number)))
            if sum(table.num_rows for table in held) >= GROUP_ROWS:
                yield pa.concat_tables(held)
                held = []
        if held:
            yield pa.concat_tables(held)

    def _file(self, number: int) -> Path:
        return self.path / f"part-{number:07}.parquet"

    def _refuse_other(self, there: Job | None, where: Path) -> None:
        if there == self.job:
            return
        ours, theirs = self.job.model_dump(), {} if there is None else there.model_dump()
        differing = ", ".join(name for name in ours if ours[name] != theirs.get(name))
        raise ConfigError(f"{where} belongs to another job (other {differing}): name another file, or remove it")


def tally(out: Path) -> dict[str, dict[str, int]]:
    """What stands in a file of answers: how many rows of each error, image status and decision."""
    columns = {"errors": "error", "image": "image", "decisions": "decision"}
    counts: dict[str, Counter[str]] = {name: Counter() for name in columns}
    with pq.ParquetFile(out) as file:
        for batch in file.iter_batches(columns=list(columns.values())):
            for name, column in columns.items():
                counts[name].update(value for value in batch.column(column).to_pylist() if value is not None)
    return {name: dict(sorted(found.items())) for name, found in counts.items()}


def job_of(out: Path) -> Job | None:
    try:
        metadata = pq.read_schema(out).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return _read(metadata[METADATA], out) if METADATA in metadata else None


def _read(text: bytes, where: Path) -> Job:
    try:
        return Job.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{where} was written by another version of this program: remove it") from error


def put(path: Path, content: bytes) -> None:
    """Whole or not at all, even if the machine goes down."""
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(content)
    _sync(beside)
    beside.replace(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
