"""Bulk jobs in the test's own process, on any model: the stages that Ray moves parts between, called one by one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from consumer.bulk.answers import Answering, PartAnswerer
from consumer.bulk.folder import Folder
from consumer.bulk.job import Job, Source, Table
from consumer.bulk.prepare import PartPreparer, Preparing
from consumer.order import OrderBy
from consumer.results import Audit
from consumer.settings import PhotoSettings, Settings
from consumer.worker import Model


def write_table(path: Path, rows: Sequence[dict[str, Any]], group_rows: int = 1000) -> Path:
    """Write rows as Parquet; what a row does not name is null there."""
    columns = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in columns})
    pq.write_table(table, path, row_group_size=group_rows)
    return path


class BulkHere:
    """One job.

    Args:
        order_by: what orders the rows, if anything.
        photos: folder of photos beside the table.
    """

    def __init__(
        self,
        table: Path,
        out: Path,
        model: Model,
        settings: Settings | None = None,
        *,
        order_by: OrderBy | None = None,
        photos: Path | None = None,
        part_rows: int = 256,
    ) -> None:
        settings = settings or Settings()
        opened = Table.open(table, "title", order_by)
        self.parts = opened.parts(part_rows, None)
        audit = Audit.of(settings.review)
        self.job = Job(
            input_sha256=opened.sha256,
            rows=sum(opened.groups),
            fingerprint=model.info.fingerprint,
            engine="auto",
            precision="auto",
            top_k=3,
            evidence=False,
            audit_share=audit.share,
            audit_mark=audit.mark(opened.sha256),
            event_bytes=settings.limits.event_bytes,
            photo_bytes=settings.photo.max_bytes,
            batch=32,
            part_rows=part_rows,
            title_column="title",
            photos=None if photos is None else str(photos),
            order_by=order_by,
        )
        self.folder = Folder(self.job, out)
        photo: PhotoSettings = settings.photo
        preparing = Preparing(self.job, Source(table, opened.columns), model.prepare, photo, settings.limits)
        self._prepare = PartPreparer(preparing)
        self._answer = PartAnswerer(Answering(lambda: model, model.info.fingerprint, 32, 3, audit))

    def work(self, parts: int | None = None) -> None:
        """Do what is left, or so many parts of it."""
        self.folder.begin()
        for part in self.folder.left(self.parts)[:parts]:
            self.folder.keep(part.number, self._answer.part(self._prepare.part(part)))

    def rows(self) -> list[dict[str, Any]]:
        """Do what is left and join; the answers by row."""
        self.work()
        self.folder.join(self.parts)
        return read_answers(self.folder.out)


def read_answers(out: Path) -> list[dict[str, Any]]:
    """All rows of a file of answers."""
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows
