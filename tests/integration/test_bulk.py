"""`mmcat categorize` on real parts: answers equal to the stream's, a kill in the middle, answers guarded by rank."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from consumer.bulk.job import Job
from consumer.bulk.publish import Publisher
from consumer.rank import AUTHORITY_DELETED, Rank
from consumer.settings import Settings
from consumer.view import Ranked
from mmcat import Categorizer, Listing
from mmcat.cli import main
from tests.integration.conftest import MakeBench
from tests.support.broker import TopicNames, read_topic, send
from tests.support.bulk import BulkHere, read_answers, write_table
from tests.support.outcomes import drained
from tests.support.replays import hold, replay_settings
from tests.support.stub_model import StubModel
from tests.support.waiting import eventually
from training.shop.photo_host import PhotoHost

pytestmark = pytest.mark.integration
LISTINGS = 40
TIMESTAMP = 1_780_000_000_000
TOLERANCE = 1e-4  # of a probability: how far an answer may depend on its batch-mates


@pytest.fixture
def real_photos(test_data: Path) -> Iterator[tuple[str, dict[str, bytes], list[dict[str, Any]]]]:
    """A host of real photos, the photos, and listings that have them; one has none, one a photo that is gone."""
    folder = test_data / "fashion"
    lines = (folder / "listings.tsv").read_text(encoding="utf-8").splitlines()[1 : LISTINGS + 1]
    with zipfile.ZipFile(folder / "photos.zip") as archive:
        photos = {name: archive.read(name) for name in (f"{line.split(chr(9))[0]}.jpg" for line in lines)}
    with PhotoHost(photos.get) as host:
        listings: list[dict[str, Any]] = []
        for line in lines:
            product_id, title = line.split("\t")[:2]
            address = f"{host.base_url}/{product_id}.jpg"
            listings.append({"product_id": product_id, "title": title, "image_url": address, "brand": "Puma"})
        listings[3]["image_url"] = None
        listings[5]["image_url"] = f"{host.base_url}/gone.jpg"
        yield host.base_url, photos, listings


def test_answers_are_those_of_the_stream_and_of_the_library(
    kafka: str,
    topics: TopicNames,
    make_bench: MakeBench,
    real_photos: tuple[str, dict[str, bytes], list[dict[str, Any]]],
    tiny_bundle: Path,
    tmp_path: Path,
) -> None:
    address, photos, listings = real_photos
    port = urlsplit(address).port
    bench = make_bench(kafka, topics, MMCAT_PHOTO__PORTS=str(port), MMCAT_MODEL__ENGINE="eager")
    events = [{name: value for name, value in one.items() if value is not None} for one in listings]
    send(kafka, topics.input, [(one["product_id"].encode(), json.dumps(one).encode(), {}) for one in events])
    with bench.service:
        eventually(lambda: drained(kafka, topics, bench.group), "all listings categorized", 60)
    streamed = {(one.key or b"").decode(): json.loads(one.value or b"") for one in read_topic(kafka, topics.output)}

    categorizer = Categorizer.load(tiny_bundle, device="cpu", engine="eager", threads=1)
    settings = Settings.model_validate({"photo": {"allow": ["127.0.0.1"], "ports": [port]}})
    table = write_table(tmp_path / "in.parquet", listings)
    bulk = {row["product_id"]: row for row in BulkHere(table, tmp_path / "out.parquet", categorizer, settings).rows()}

    assert bulk.keys() == streamed.keys()
    assert sorted({row["image"] for row in bulk.values()}) == ["absent", "unavailable", "used"]
    plain = [Listing(one["product_id"], one["title"], photos.get(_name(one)), brand="Puma") for one in listings]
    library = {result.listing_id: result for result in categorizer.categorize(plain)}
    for product_id, row in bulk.items():
        theirs, ours = streamed[product_id], library[product_id]
        same = ("product_id", "safe_level", "decision", "image", "input_hash", "model")
        assert {name: row[name] for name in same} == {name: theirs[name] for name in same}
        ids = [node["id"] for node in row["path"]]
        assert ids == [node["id"] for node in theirs["path"]] == [node.id for node in ours.path]
        assert row["probability"] == pytest.approx(theirs["probability"], abs=TOLERANCE)
        assert row["probability"] == pytest.approx(ours.probability, abs=TOLERANCE)


def _name(listing: dict[str, Any]) -> str:
    return str(listing["image_url"] or "").rpartition("/")[2]


def test_a_job_killed_in_the_middle_goes_on_on_ray_and_ends_as_one_that_was_not(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """Kill -9 once the first part is there; whoever starts the same command again gets what an unbroken job gives."""
    rows = [{"product_id": f"p{number}", "title": f"shoes {number % 41}"} for number in range(600)]
    table = write_table(tmp_path / "in.parquet", rows, group_rows=60)
    out = tmp_path / "out.parquet"
    command = [sys.executable, "-m", "mmcat.cli", "categorize", str(table), str(out), "--json"]
    command += ["--bundle", str(tiny_bundle), "--engine", "eager", "--device", "cpu", "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first:
        parts = tmp_path / "out.parquet.parts"
        eventually(lambda: list(parts.glob("part-*.parquet")), "a part is done", 120, 0.005)
        os.kill(first.pid, signal.SIGKILL)
    done = {file.name: file.stat().st_mtime_ns for file in parts.glob("part-*.parquet")}
    assert 0 < len(done) < 10
    assert not out.exists()

    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    summary = json.loads(second.stdout)
    assert (summary["categorized"], summary["parts"], summary["errors"]) == (600, 10, {})
    assert not parts.exists()

    categorizer = Categorizer.load(tiny_bundle, device="cpu", engine="eager", threads=1)
    unbroken = BulkHere(table, tmp_path / "unbroken.parquet", categorizer).rows()
    assert read_answers(out) == unbroken


@pytest.fixture
def settings(apache_kafka: str, topics: TopicNames, valkey_url: str, view_prefix: str) -> Settings:
    return replay_settings(apache_kafka, topics, valkey_url, view_prefix)


def _answers(tmp_path: Path, rows: list[dict[str, Any]]) -> tuple[Path, Job]:
    job = BulkHere(
        write_table(tmp_path / "in.parquet", rows), tmp_path / "out.parquet", StubModel(), order_by="timestamp"
    )
    job.rows()
    return job.folder.out, job.job


def test_nothing_newer_or_deleted_is_overwritten_and_nothing_published_twice(
    settings: Settings, topics: TopicNames, tmp_path: Path
) -> None:
    names = ("new", "updated", "deleted", "older", "bad")
    rows = [{"product_id": name, "title": "t", "timestamp": TIMESTAMP} for name in names]
    rows[4]["title"] = ""
    out, job = _answers(tmp_path, rows)
    hold(
        settings,
        [
            Ranked("updated", Rank(TIMESTAMP + 1, 0, 1, 2), b"{}"),
            Ranked("deleted", Rank(TIMESTAMP, AUTHORITY_DELETED, 1, 0), None),
            Ranked("older", Rank(TIMESTAMP - 1, 0, 1, 2), b"{}"),
        ],
    )
    assert Publisher(settings, out, job).run() == {"result": 2, "superseded": 2, "error": 1}
    records = read_topic(settings.kafka.bootstrap_servers, topics.output)
    assert sorted(one.key or b"" for one in records) == [b"new", b"older"]
    value = json.loads(records[0].value or b"")
    assert (value["attempt"], value["rank"][0], value["image"]) == (1, TIMESTAMP, "absent")
    assert records[0].headers["mmcat-result-id"].decode() == value["result_id"]

    assert Publisher(settings, out, job).run() == {}
    assert len(read_topic(settings.kafka.bootstrap_servers, topics.output)) == 2


def test_what_a_stop_leaves_is_published_by_the_next_run(
    settings: Settings, topics: TopicNames, tmp_path: Path
) -> None:
    rows = [{"product_id": f"p{number}", "title": "t", "timestamp": TIMESTAMP} for number in range(30)]
    out, job = _answers(tmp_path, rows)
    told: list[int] = []

    def stop(done: int) -> None:
        told.append(done)
        if len(told) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Publisher(settings, out, job, rate=10, on_progress=stop).run()
    first = len(read_topic(settings.kafka.bootstrap_servers, topics.output))
    assert 0 < first < len(rows)
    again = Publisher(settings, out, job).run()
    records = read_topic(settings.kafka.bootstrap_servers, topics.output)
    assert {one.key for one in records} == {f"p{number}".encode() for number in range(30)}
    assert again["result"] == len(records) - first < len(rows)


def test_what_cannot_be_asked_for_is_one_sentence(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "in.parquet", [{"product_id": "a", "title": "t"}])
    command = ["categorize", str(table), str(tmp_path / "out.parquet"), "--bundle", str(tiny_bundle)]
    assert main([*command, "--to-topic"]) == 1
    assert "has no column 'timestamp': what is published needs it for its rank" in capsys.readouterr().err
    assert main([*command, "--rate", "5"]) == 1
    assert "--rate belongs to --to-topic" in capsys.readouterr().err
    assert main([*command, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts_left"] == 1
    assert list(tmp_path.glob("out*")) == []
