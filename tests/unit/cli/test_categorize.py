"""`mmcat categorize`: what it hands to a bulk job of the settings; Ray's two stages run in the test's own process."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from consumer.bulk.answers import Answering, PartAnswerer
from consumer.bulk.cluster import Shape
from consumer.bulk.folder import job_of
from consumer.bulk.job import Part
from consumer.bulk.prepare import PartPreparer, Preparing
from consumer.results import Audit
from mmcat.bundle import read_manifest
from mmcat.cli import main
from tests.support.bulk import read_answers, write_table
from tests.support.stub_model import StubModel
from tests.support.tiny import make_tiny_bundle


def _work(
    parts: Sequence[Part], preparing: Preparing, answering: Answering, shape: Shape
) -> Iterator[tuple[int, bytes]]:
    prepare, answer = PartPreparer(preparing), PartAnswerer(answering)
    for part in parts:
        yield part.number, answer.part(prepare.part(part))


@pytest.fixture
def command(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Categorizes three listings by a model that accepts everything; the answers are `out.parquet`."""
    model = StubModel()
    model.info = replace(model.info, fingerprint=read_manifest(tiny_bundle)[1])
    monkeypatch.setattr("mmcat.cli.categorize.load_model", lambda _settings: model)
    monkeypatch.setattr("consumer.bulk.cluster.work", _work)
    table = write_table(tmp_path / "in.parquet", [{"product_id": name, "title": "boots"} for name in "abc"])
    return ["categorize", str(table), str(tmp_path / "out.parquet"), "--bundle", str(tiny_bundle), "--workers", "1"]


@pytest.mark.parametrize(("share", "reason"), [("1", "audit"), ("0", None)])
def test_accepted_answers_are_audited_as_the_service_audits_them(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: str, reason: str | None
) -> None:
    monkeypatch.setenv("MMCAT_REVIEW__AUDIT_SHARE", share)
    monkeypatch.setenv("MMCAT_REVIEW__AUDIT_SALT", "ours")
    assert main(command) == 0
    out = tmp_path / "out.parquet"
    assert [(row["decision"], row["reason"]) for row in read_answers(out)] == [("accept", reason)] * 3
    job = job_of(out)
    assert job is not None
    assert (job.audit_share, job.audit_mark) == (float(share), Audit(0.0, b"ours").mark(job.input_sha256))


def test_a_bundle_that_is_not_for_service_is_refused_before_any_row_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_tiny_bundle(tmp_path / "given", given_photo_width=7)
    table = write_table(tmp_path / "in.parquet", [{"product_id": "a", "title": "boots"}])
    out = tmp_path / "out.parquet"
    assert main(["categorize", str(table), str(out), "--bundle", str(folder)]) == 1
    heard = capsys.readouterr()
    assert heard.err.count("\n") == 1
    assert "its photo vectors (7 wide) came with the data" in heard.err
    assert not out.exists()
