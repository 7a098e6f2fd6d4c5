"""The answers of a finished bulk job into the output topic, as a replay publishes: guarded by rank.

Before each record the view is asked whether it holds something newer, deleted or better seen (`view_guard`); while it
is away, this waits. How far it came is kept in `OUT.parquet.published`, so that it goes on where it was stopped;
records sent again have the same `result_id`. What is in the topic and not yet in the view is mended by rank where the
topic is read. After folder.py, last in the flow.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from consumer.bulk.answers import record_of
from consumer.bulk.folder import put
from consumer.bulk.job import Job
from consumer.delivery import Delivery
from consumer.errors import ConfigError, FatalError
from consumer.kafka import KafkaException, make_admin, make_producer, not_done, topic_identity
from consumer.offsets import Lease
from consumer.records import Outgoing
from consumer.replay_pace import Pace
from consumer.results import review_copy
from consumer.settings import Settings
from consumer.view import View
from consumer.view_guard import ViewGuard

READ_ROWS: Final = 500
IDLE_S: Final = 0.02
KEEP_S: Final = 1.0
"""How often it is kept how far it came: after a kill so much is sent again."""
BROKER_S: Final = 15.0
IN_FLIGHT: Final = 10_000
"""Records without the broker's word at once."""


class Progress(BaseModel):
    """How far a file's answers are published: rows below `next_row` are, into this topic."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")
    topic: str
    topic_id: str
    job: Job
    next_row: int


class _Row(NamedTuple):
    """A row of the table on its way to the broker."""

    lease: Lease
    offset: int
    records: list[Outgoing]


class Publisher:
    """Publishes one file of answers: constructed, then `run` once.

    Args:
        settings: of the live service, its topics and view above all.
        out: the file of answers.
        job: whose answers they are.
        rate: records a second at most; None: as fast as the broker takes them.
        on_progress: told now and then how many rows are done.
    """

    def __init__(
        self,
        settings: Settings,
        out: Path,
        job: Job,
        *,
        rate: float | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._settings, self._out, self._on_progress = settings, out, on_progress
        self._kept = out.with_name(out.name + ".published")
        self._job = job
        self._pace = Pace(rate)
        self._abandoned = threading.Event()
        self._death: BaseException | None = None
        self._refused = False
        self._lease = Lease((str(out), 0))
        self._found: Counter[str] = Counter()
        self._kept_at = time.monotonic()

    def run(self) -> dict[str, int]:
        """Publish what is not published yet; blocks until the broker has all of it. Returns how many of each outcome.

        Raises:
            ConfigError: no such topic, or the view is missing.
            FatalError: the broker did not take a record; what it has is kept, so that the next run goes on.
        """
        try:
            topic_id, _ = topic_identity(make_admin(self._settings.kafka), self._settings.topics.output, BROKER_S)
        except KafkaException as error:
            raise ConfigError(not_done(error.args[0], self._settings.kafka)) from error
        self._progress = Progress(topic=self._settings.topics.output, topic_id=topic_id, job=self._job, next_row=0)
        self._progress = self._before() or self._progress
        guard = ViewGuard(View.from_settings(self._settings.view), self._abandoned)
        delivery: Delivery[_Row] = Delivery(make_producer(self._settings.kafka), self._died)
        delivery.start()
        try:
            for row in self._rows(self._progress.next_row):
                self._one(row, guard, delivery)
                self._keep()
            while self._lease.unfinished:
                self._refuse()
                time.sleep(IDLE_S)  # acknowledgements come in another thread; a death is looked for meanwhile
            self._refuse()
        finally:
            self._abandoned.set()
            delivery.stop()
            guard.close()
            self._keep(now=True)
        return dict(self._found)

    def _before(self) -> Progress | None:
        """How far an earlier run came; nothing where it was into another topic, or of other answers."""
        try:
            kept = Progress.model_validate_json(self._kept.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        same = kept.model_copy(update={"next_row": 0}) == self._progress
        return kept if same else None

    def _rows(self, start: int) -> Iterator[dict[str, Any]]:
        written = datetime.fromtimestamp(self._out.stat().st_mtime, UTC)
        self._categorized_at = written.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with pq.ParquetFile(self._out) as file:
            for batch in file.iter_batches(READ_ROWS):
                if batch.column("row")[-1].as_py() >= start:
                    yield from (row for row in batch.to_pylist() if row["row"] >= start)

    def _one(self, row: dict[str, Any], guard: ViewGuard, delivery: Delivery[_Row]) -> None:
        number: int = row["row"]
        self._lease.start(number)
        if row["error"] is not None:
            self._done("error", number, True)
            return
        while not self._pace.allowed(1) or self._lease.unfinished > IN_FLIGHT:
            self._refuse()
            time.sleep(IDLE_S)  # the pace is asked for again; a death is looked for meanwhile
        self._pace.spend(1)
        record = record_of(row, self._settings.topics.output, self._categorized_at)
        if guard(record):
            self._done("superseded", number, True)
            return
        records: list[Outgoing] = [record]
        if row["reason"] is not None:
            records.append(review_copy(record, row["reason"], self._settings.topics.review))
        delivery.send([_Row(self._lease, number, records)], self._sent)
        self._refuse()

    def _sent(self, rows: Sequence[_Row], ok: bool) -> None:
        for row in rows:
            self._done("result", row.offset, ok)

    def _done(self, outcome: str, number: int, ok: bool) -> None:
        if ok:
            self._found[outcome] += 1
            self._lease.finish(number)
        else:
            self._refused = True  # its row stays unfinished, and is the first of the next run

    def _refuse(self) -> None:
        if self._death is not None:
            raise FatalError(f"publishing stopped, a part of it died: {self._death!r}") from self._death
        if self._refused:
            raise FatalError("the broker did not take a record (the log says why): start again, it goes on from there")

    def _died(self, error: BaseException) -> None:
        self._death = error

    def _keep(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self._kept_at < KEEP_S:
            return
        self._kept_at = time.monotonic()
        next_row = self._lease.committable()
        if next_row is not None:
            put(self._kept, self._progress.model_copy(update={"next_row": next_row}).model_dump_json().encode())
            if self._on_progress is not None:
                self._on_progress(next_row)
