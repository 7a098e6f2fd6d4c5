"""The model's answers to a part, as Parquet: the fields of the result record, a row for each row of the table.

Built by `results.result_record`, so an answer here is the record that the stream would have published. A row without
one has an `error` with the code that its dead letter would have had. After prepare.py; before folder.py joins the
parts, and publish.py, which makes records of rows again.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import to_json

from consumer.bulk.prepare import Ready, ReadyPart
from consumer.errors import ConfigError, SickModelError
from consumer.events import Code
from consumer.rank import Rank
from consumer.records import Origin, Outgoing
from consumer.results import SCHEMA_VERSION, Answered, Audit, result_record
from consumer.worker import Model, answer
from mmcat.listing import Result

ATTEMPT: Final = 1
"""Of every answer that does not come from the live stream."""

_NODE = pa.struct([("level", pa.int8()), ("id", pa.string()), ("name", pa.string()), ("probability", pa.float64())])
_TEXTS = ("name", "fingerprint", "engine", "precision", "taxonomy")
SCHEMA: Final = pa.schema(
    [
        ("row", pa.int64()),
        ("product_id", pa.string()),
        ("path", pa.list_(_NODE)),
        ("probability", pa.float64()),
        ("safe_level", pa.int8()),
        ("decision", pa.string()),
        ("reason", pa.string()),
        ("image", pa.string()),
        ("alternatives", pa.list_(pa.struct([("path", pa.list_(_NODE)), ("probability", pa.float64())]))),
        ("evidence", pa.struct([("text", pa.float64()), ("image", pa.float64())])),
        ("model", pa.struct([(name, pa.string()) for name in _TEXTS])),
        ("rank", pa.list_(pa.int64())),
        ("result_id", pa.string()),
        ("input_hash", pa.string()),
        ("registered_at", pa.string()),
        (
            "origin",
            pa.struct(
                [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64()), ("timestamp", pa.int64())]
            ),
        ),
        ("error", pa.string()),
        ("error_detail", pa.string()),
    ]
)
_NOT_OF_THE_RECORD = ("row", "error", "error_detail")
_OPTIONAL = ("reason", "evidence")


@dataclass(frozen=True, slots=True)
class Answering:
    """Everything that a model's process needs; sent to it once.

    Args:
        load: loads the bundle; runs where the model is to live.
        fingerprint: of the bundle that is meant: another machine may have another one under the same path.
        batch: listings of one call of the engine.
        audit: which accepted answers a person checks all the same.
    """

    load: Callable[[], Model]
    fingerprint: str
    batch: int
    top_k: int
    audit: Audit


class PartAnswerer:
    """Has the model answer parts, one at a time; lives in a process of its own, which owns the device.

    Raises:
        ConfigError: the bundle on this machine is another one.
    """

    def __init__(self, given: Answering) -> None:
        self._given = given
        self._model = given.load()
        if self._model.info.fingerprint != given.fingerprint:
            raise ConfigError("the bundle on a worker's machine is another one: copy the same folder to all machines")
        self._model.warm_up()

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """One part."""
        ready: ReadyPart = item["ready"]
        return {"number": ready.number, "answers": self.part(ready)}

    def part(self, ready: ReadyPart) -> bytes:
        """One part, as a Parquet file.

        Raises:
            SickModelError: the model cannot answer anything any more.
        """
        good = [one for one in ready.rows if one.row.event is not None and not one.failed]
        answers = dict(zip(map(id, good), self._answers(good), strict=True))
        rows = [self._row(one, answers.get(id(one))) for one in ready.rows]
        written = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), written, compression="zstd")
        return written.getvalue()

    def _answers(self, good: Sequence[Ready]) -> Iterator[Result | Exception]:
        """Always in the same batches: a part that is done again has the same bits."""
        for start in range(0, len(good), self._given.batch):
            answers = answer(self._model, good[start : start + self._given.batch], self._given.top_k)
            if failed := next((got for _, got in answers if isinstance(got, Exception)), None):
                self._refuse_sick(failed)
            yield from (got for _, got in answers)

    def _refuse_sick(self, failed: Exception) -> None:
        try:
            self._model.warm_up()
        except Exception as error:
            raise SickModelError(f"the model cannot answer any more: {error!r}, after {failed!r}"[:500]) from error

    def _row(self, ready: Ready, got: Result | Exception | None) -> dict[str, Any]:
        row = ready.row
        found = {"row": row.incoming.origin.offset, "product_id": row.product_id}
        if row.event is None:
            return found | {"error": row.error, "error_detail": row.detail}
        if not isinstance(got, Result):
            detail = ready.failed or f"{type(got).__name__}: {got}"[:500]
            return found | {"error": Code.MODEL_FAILED, "error_detail": detail}
        info = self._model.info
        answered = Answered(row.incoming, row.event, got, row.order, info.created_ms, ATTEMPT, categorized_at="")
        record, _ = result_record(answered, info, "", self._given.audit)
        value = json.loads(record.value or b"{}")
        return found | {name: value[name] for name in SCHEMA.names if name in value}


def record_of(row: Mapping[str, Any], topic: str, categorized_at: str) -> Outgoing:
    """The record that a row with an answer stands for."""
    value = {name: row[name] for name in SCHEMA.names if name not in _NOT_OF_THE_RECORD}
    value = {name: held for name, held in value.items() if held is not None or name not in _OPTIONAL}
    value |= {"schema_version": SCHEMA_VERSION, "attempt": ATTEMPT, "reused": False, "categorized_at": categorized_at}
    place = row["origin"]
    origin = Origin(place["topic"], place["partition"], place["offset"], place["timestamp"])
    headers = [
        ("mmcat-rank", Rank(*row["rank"]).format().encode()),
        ("mmcat-result-id", row["result_id"].encode()),
        *origin.headers(),
    ]
    return Outgoing(topic, row["product_id"].encode(), to_json(value), headers)
