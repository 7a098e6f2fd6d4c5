"""Bulk jobs without Ray: a row obeys the stream's rules, a job goes on where it was stopped, photos obey the rules."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest

from consumer.bulk.answers import record_of
from consumer.bulk.job import Table
from consumer.errors import ConfigError, SickModelError
from consumer.events import parse
from consumer.loading import load
from consumer.settings import Settings
from mmcat.listing import Prepared, Result
from tests.support.bulk import BulkHere, write_table
from tests.support.held_photos import HeldPhotos
from tests.support.stub_model import StubModel, accept
from training.shop.photo_host import PhotoHost

LONG = "t" * 1001
MIB = 2**20


def _rows(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    table = write_table(tmp_path / "in.parquet", rows)
    return BulkHere(table, tmp_path / "out.parquet", StubModel(), **options).rows()


def test_a_bad_row_has_the_code_of_its_dead_letter_and_stops_nothing(tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [
        {"product_id": "p" * 129, "title": "t"},
        {"product_id": "a", "title": LONG},
        {"product_id": None, "title": "t"},
        {"product_id": "b", "title": " "},
        {"product_id": "c\n", "title": "t"},
    ]
    found = _rows(tmp_path, [*bad, {"product_id": "good", "title": "t"}])
    events = [{name: value for name, value in row.items() if value is not None} for row in bad]
    events[2]["product_id"] = ""
    codes = [parse(None, json.dumps(event).encode(), max_bytes=10_000).code for event in events]  # type: ignore[union-attr]
    assert [row["error"] for row in found] == [*codes, None]
    assert [row["path"] is None for row in found] == [True] * 5 + [False]
    assert [row["row"] for row in found] == list(range(6))


def test_cells_of_any_type_that_can_be_text_are_read(tmp_path: Path) -> None:
    when = datetime(2026, 5, 1, 12, tzinfo=UTC)
    row = {"product_id": 17, "title": "t", "version": 3, "registered_at": when, "timestamp": when, "model": "X1"}
    (found,) = _rows(tmp_path, [row], order_by="timestamp")
    assert found["error"] is None, found["error_detail"]
    assert (found["product_id"], found["registered_at"]) == ("17", "2026-05-01T12:00:00Z")
    assert found["rank"][0] == found["origin"]["timestamp"] == int(when.timestamp() * 1000)


@pytest.mark.parametrize("timestamp", [None, -1, 1_790_000_000_000_000])
def test_a_row_whose_order_cannot_be_one_is_bad(tmp_path: Path, timestamp: int | None) -> None:
    rows: list[dict[str, Any]] = [
        {"product_id": "a", "title": "t", "timestamp": timestamp},
        {"product_id": "b", "title": "t", "timestamp": 1},
    ]
    found = _rows(tmp_path, rows, order_by="timestamp")
    assert [row["error"] for row in found] == ["row.bad_order", None]


def test_a_listing_that_the_model_fails_on_is_an_error_of_its_own(tmp_path: Path) -> None:
    def answer(prepared: Prepared) -> Result:
        if prepared.listing_id == "b":
            raise ValueError("no")
        return accept(prepared)

    table = write_table(tmp_path / "in.parquet", [{"product_id": name, "title": "t"} for name in "abc"])
    found = BulkHere(table, tmp_path / "out.parquet", StubModel(answer)).rows()
    assert [row["error"] for row in found] == [None, "model.failed", None]
    assert found[1]["error_detail"] == "ValueError: no"


def test_a_model_that_can_answer_nothing_any_more_stops_the_job_and_blames_no_row(tmp_path: Path) -> None:
    class Broken(StubModel):
        def warm_up(self) -> None:
            if self.batches:
                raise RuntimeError("device lost")

    def fail(_prepared: Prepared) -> Result:
        raise RuntimeError("device lost")

    job = BulkHere(_abc(tmp_path), tmp_path / "out.parquet", Broken(fail))
    with pytest.raises(SickModelError):
        job.work()
    assert len(job.folder.left(job.parts)) == len(job.parts)


def test_a_job_goes_on_where_it_was_stopped_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    rows = [{"product_id": f"p{number}", "title": "t"} for number in range(25)]
    table = write_table(tmp_path / "in.parquet", rows, group_rows=10)
    whole = BulkHere(table, tmp_path / "whole.parquet", StubModel(), part_rows=4)
    expected = whole.rows()
    assert [row["product_id"] for row in expected] == [row["product_id"] for row in rows]

    BulkHere(table, tmp_path / "broken.parquet", StubModel(), part_rows=4).work(parts=3)  # of 4, 4 and 2 rows
    model = StubModel()
    again = BulkHere(table, tmp_path / "broken.parquet", model, part_rows=4)
    assert again.rows() == expected
    assert [name for batch in model.batches for name in batch] == [row["product_id"] for row in rows[10:]]
    assert again.folder.out.read_bytes() == whole.folder.out.read_bytes()
    assert [file.name for file in tmp_path.glob("*broken*")] == ["broken.parquet"]


def test_parts_hold_every_row_once_up_to_the_limit(tmp_path: Path) -> None:
    rows = [{"product_id": f"p{number}", "title": "t"} for number in range(25)]
    table = Table.open(write_table(tmp_path / "in.parquet", rows, group_rows=10), "title", None)
    for limit in (1, 9, 10, 11, 25, 40, None):
        parts = table.parts(4, limit)
        held = [part.first + at for part in parts for at in range(part.stop - part.start)]
        assert held == list(range(min(limit or 25, 25)))
        assert all(part.first == part.group * 10 + part.start for part in parts)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("review.audit_share", 0.5, "audit_share"),
        ("review.audit_salt", "another secret", "audit_mark"),
        ("limits.event_bytes", 2048, "event_bytes"),
        ("photo.max_bytes", 2048, "photo_bytes"),
    ],
)
def test_a_setting_that_changes_answers_makes_another_job(tmp_path: Path, name: str, value: Any, said: str) -> None:
    given = {"review.audit_salt": "a secret"}
    before, _ = load(environment={}, overrides=given)
    table, out = _abc(tmp_path), tmp_path / "out.parquet"
    BulkHere(table, out, StubModel(), before, part_rows=1).work(parts=1)
    assert "a secret" not in (tmp_path / "out.parquet.parts" / "job.json").read_text(encoding="utf-8")
    other, _ = load(environment={}, overrides={**given, name: value})
    with pytest.raises(ConfigError, match=rf"belongs to another job \(other {said}\)"):
        BulkHere(table, out, StubModel(), other, part_rows=1)
    BulkHere(table, out, StubModel(), before, part_rows=1).rows()


def test_answers_of_another_job_are_never_mixed_in(tmp_path: Path) -> None:
    BulkHere(_abc(tmp_path), tmp_path / "out.parquet", StubModel(), part_rows=1).work(parts=1)
    other = StubModel()
    other.info = other.info.__class__("other", "e" * 64, "stub", "fp32", "d" * 64, 1)
    with pytest.raises(ConfigError, match=r"out\.parquet\.parts belongs to another job \(other fingerprint\)"):
        BulkHere(tmp_path / "in.parquet", tmp_path / "out.parquet", other, part_rows=1)
    BulkHere(tmp_path / "in.parquet", tmp_path / "out.parquet", StubModel(), part_rows=1).rows()
    with pytest.raises(ConfigError, match=r"out\.parquet belongs to another job"):
        BulkHere(tmp_path / "in.parquet", tmp_path / "out.parquet", other, part_rows=1)


def test_a_private_address_is_fetched_only_where_it_is_allowed(tmp_path: Path) -> None:
    asked: list[str] = []

    def photo(name: str) -> bytes:
        asked.append(name)
        return b"photo"

    with PhotoHost(photo) as host:
        rows = [{"product_id": "a", "title": "t", "image_url": f"{host.base_url}/1.jpg"}]
        (refused,) = _rows(tmp_path, rows)
        assert (refused["image"], asked) == ("refused", [])
        port = urlsplit(host.base_url).port
        allowed = Settings.model_validate({"photo": {"allow": ["127.0.0.1"], "ports": [port]}})
        job = BulkHere(tmp_path / "in.parquet", tmp_path / "allowed.parquet", StubModel(), allowed)
        assert [row["image"] for row in job.rows()] == ["used"]


def test_large_photos_are_held_within_the_bound_until_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve of 1 MiB, of which three may be held at once."""
    model = HeldPhotos()
    monkeypatch.setattr("consumer.bulk.prepare.LargeBodies", model.bodies)
    with PhotoHost({f"{number}.jpg": bytes(MIB) for number in range(12)}.get) as host:
        photo = {"allow": ["127.0.0.1"], "ports": [urlsplit(host.base_url).port], "per_host": 12}
        settings = Settings.model_validate({"photo": photo, "limits": {"in_flight_bytes": 6 * MIB}})
        rows = [{"product_id": f"p{n}", "title": "t", "image_url": f"{host.base_url}/{n}.jpg"} for n in range(12)]
        table = write_table(tmp_path / "in.parquet", rows)
        found = BulkHere(table, tmp_path / "out.parquet", model, settings).rows()
    assert [row["image"] for row in found] == ["used"] * 12
    assert len(model.held) == 12
    assert all(MIB <= held <= 3 * MIB for held in model.held)


def test_photos_beside_the_table_are_found_and_none_outside_it(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    for name in ("named.jpg", "b.jpg"):
        (photos / name).write_bytes(b"photo")
    rows = [
        {"product_id": "a", "title": "t", "image": "named.jpg"},
        {"product_id": "b", "title": "t"},
        {"product_id": "c", "title": "t", "image": "../secret.jpg"},
        {"product_id": "d", "title": "t", "image_url": f"file:{tmp_path}/secret.jpg"},
        {"product_id": "e", "title": "t"},
        {"product_id": "f", "image": "named.jpg"},
        {"product_id": "g", "title": "t", "image": "gone.jpg"},
        {"product_id": "../secret", "title": "t"},
    ]
    found = _rows(tmp_path, rows, photos=photos)
    expected = ["used", "used", "refused", "unavailable", "absent", "used", "unavailable", "refused"]
    assert [row["image"] for row in found] == expected


def test_a_photo_may_stand_in_the_table(tmp_path: Path) -> None:
    found = _rows(tmp_path, [{"product_id": "a", "image": b"photo"}, {"product_id": "b", "title": "t", "image": None}])
    assert [row["image"] for row in found] == ["used", "absent"]


def test_a_row_makes_the_record_of_the_output_topic(tmp_path: Path) -> None:
    rows = [{"product_id": "a", "title": "t", "timestamp": 5}]
    (row,) = _rows(tmp_path, rows, order_by="timestamp")
    record = record_of(row, "topic", "2026-05-01T00:00:00.000Z")
    schema = json.loads((Path(__file__).parents[3] / "docs/schemas/result.schema.json").read_text(encoding="utf-8"))
    value = json.loads(record.value or b"")
    jsonschema.validate(value, schema)
    assert dict(record.headers)["mmcat-rank"] == b"5,0,1700000000000,2"
    assert dict(record.headers)["mmcat-result-id"].decode() == value["result_id"]


@pytest.mark.parametrize(
    ("rows", "order_by", "sentence"),
    [
        ([{"id": "a", "title": "t"}], None, "has no column 'product_id'"),
        ([{"product_id": "a"}], None, "has no column 'title'"),
        ([{"product_id": "a", "title": "t"}], "timestamp", "has no column 'timestamp': what is published needs it"),
        ([{"product_id": "a", "title": "t", "timestamp": 1}], "version", "has no column 'version'"),
    ],
)
def test_a_table_without_what_is_needed_is_refused(tmp_path: Path, rows: Any, order_by: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Table.open(write_table(tmp_path / "in.parquet", rows), "title", order_by)


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_text("product_id\ttitle\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a Parquet file"):
        Table.open(tmp_path / "in.parquet", "title", None)


def _abc(tmp_path: Path) -> Path:
    return write_table(tmp_path / "in.parquet", [{"product_id": name, "title": "t"} for name in "abc"])
