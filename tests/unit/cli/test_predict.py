"""`mmcat predict`: what its words mean, what it prints, which addresses it asks."""

import json
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from consumer.fetch import PhotoFetcher
from consumer.fetch.addresses import AddressPolicy
from consumer.loading import load
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.pipeline import Pipeline
from consumer.records import Incoming, Origin
from consumer.settings import LimitSettings
from mmcat.categorizer import Categorizer
from mmcat.cli import main
from mmcat.cli.predict_input import address_policy, read_one, read_sample, read_table
from mmcat.cli.texts import CommandError
from mmcat.preparation import TEXT_FIELDS
from tests.support.bulk import BulkHere, write_table
from tests.support.held_photos import HeldPhotos
from tests.support.stub_model import StubModel
from tests.support.tiny import make_tiny_bundle
from tests.unit.consumer.test_pipeline import Broker
from training.shop.photo_host import PhotoHost

POLICY = address_policy([])


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Silent: a test's output is for its failures."""


@pytest.fixture
def host(photo: Path) -> Iterator[str]:
    """Address of the photo on a host of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(photo.parent))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{photo.name}"
        server.shutdown()
        thread.join()


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_title_and_a_photo_file_make_one_listing(
    tiny_bundle: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "여성 운동화", str(photo), "--bundle", str(tiny_bundle), "--json", "--top", "4"]) == 0
    result = answer(capsys)
    assert result["image"] == "used"
    assert len(result["alternatives"]) == 3  # type: ignore[arg-type]  # JSON
    assert result["model"]["name"] == "tiny"  # type: ignore[index]  # JSON


def test_the_engine_that_is_asked_for_answers_and_keeps_its_graphs(
    tiny_bundle: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path))
    words = ["predict", "여성 운동화", str(photo), "--bundle", str(tiny_bundle), "--json"]
    found = []
    for options, engine in (([], "eager-cpu"), (["--engine", "cpu"], "openvino-cpu")):
        assert main([*words, "--device", "cpu", *options]) == 0
        found.append(answer(capsys))
        assert found[-1]["model"]["engine"] == engine  # type: ignore[index]  # JSON
    assert found[0]["probability"] == pytest.approx(found[1]["probability"], abs=1e-4)
    assert {file.name for file in (tmp_path / "engines").rglob("*.xml")} == {"text.xml", "image.xml", "fusion.xml"}


def test_an_explained_answer_says_what_it_rests_on(
    tiny_bundle: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--bundle", str(tiny_bundle), "--explain"]
    assert main(["predict", "여성 운동화", str(photo), *common, "--json"]) == 0
    evidence = answer(capsys)["evidence"]
    assert isinstance(evidence, dict)
    assert sum(evidence.values()) == pytest.approx(1.0)
    assert main(["predict", "여성 운동화", *common]) == 0
    out = capsys.readouterr().out
    assert "the title for 100%, on the photo for 0%" in out
    assert "level 1" in out
    table = tmp_path / "listings.tsv"
    table.write_text("title\nboots\n", encoding="utf-8")
    assert main(["predict", str(table), *common]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split("\t")[-3:] == ["safe_level", "text_share", "image_share"]
    assert row.split("\t")[-2:] == ["1.0000", "0.0000"]


def test_an_answer_that_is_not_to_be_explained_has_no_evidence(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "boots", "--bundle", str(tiny_bundle), "--json"]) == 0
    assert "evidence" not in answer(capsys)


def test_a_person_sees_a_table(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "boots [sale]", "--bundle", str(tiny_bundle)]) == 0
    out = capsys.readouterr().out
    assert "boots [sale]" in out
    assert "probability" in out


def test_a_private_address_is_refused_unless_allowed(
    tiny_bundle: Path, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", host, "--bundle", str(tiny_bundle), "--json"]) == 1
    shown = capsys.readouterr()
    assert not shown.out
    assert "--allow" in shown.err
    assert main(["predict", host, "--allow", "127.0.0.1/32", "--bundle", str(tiny_bundle), "--json"]) == 0
    assert answer(capsys)["image"] == "used"


def test_a_wrong_allow_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "x", "--allow", "http://x"]) == 1
    assert "--allow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to categorize"),
        (["nowhere.jpg"], "no file nowhere.jpg"),
        (["http://a/1", "http://a/2"], "one photo"),
    ],
)
def test_words_that_are_no_listing_are_told_why(words: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        read_one(words, "", POLICY)


def test_a_title_option_may_look_like_a_file() -> None:
    assert read_one([], "nowhere.jpg", POLICY).title == "nowhere.jpg"


def test_a_broken_photo_is_answered_by_title(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no photo")
    assert main(["predict", "boots", str(broken), "--bundle", str(tiny_bundle), "--json"]) == 0
    assert answer(capsys)["image"] == "undecodable"


def test_a_table_gives_a_line_for_each_row(
    tiny_bundle: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "b.jpg").write_bytes(photo.read_bytes())
    table = tmp_path / "listings.tsv"
    table.write_text('product_id\thard_title\na\tsneakers 7" bare quote\nb\t\n', encoding="utf-8")
    common = [str(table), "--title-column", "hard_title", "--bundle", str(tiny_bundle)]
    assert main(["predict", *common, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["product_id"], line["image"]) for line in lines] == [("a", "absent"), ("b", "used")]
    assert main(["predict", *common]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("\t")[0] == "product_id"
    assert [len(row.split("\t")) for row in rows] == [6, 6]


def test_an_answer_for_a_table_is_the_services_for_the_same_listing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a model that reads all texts there are, each of which changes its answer; and so is a bulk job's."""
    bundle = make_tiny_bundle(tmp_path / "bundle", text_fields=TEXT_FIELDS)
    listing = {"product_id": "a", "title": "여성 운동화", "brand": "나이키", "maker": "Puma Men", "model": "X-1042"}
    event = {**listing, "attributes": {"model": listing["model"]}}
    table = tmp_path / "listings.tsv"
    rows = [listing, *({**listing, left_out: ""} for left_out in ("brand", "maker", "model"))]
    table.write_text("\n".join("\t".join(row) for row in (listing, *(one.values() for one in rows))), encoding="utf-8")
    assert main(["predict", str(table), "--bundle", str(bundle), "--json", "--precision", "fp32"]) == 0
    whole, *less = (json.loads(line) for line in capsys.readouterr().out.splitlines())

    model = Categorizer.load(bundle, device="cpu", precision="fp32")
    (row,) = BulkHere(write_table(tmp_path / "in.parquet", [listing]), tmp_path / "out.parquet", model).rows()
    for other in (streamed_answer(model, event), row):
        assert [node["id"] for node in whole["path"]] == [node["id"] for node in other["path"]]
        assert whole["probability"] == pytest.approx(other["probability"], abs=1e-4)
    assert all(abs(one["probability"] - whole["probability"]) > 1e-3 for one in less)


def streamed_answer(model: Categorizer, event: Mapping[str, Any]) -> dict[str, Any]:
    """What the service's pipeline answers."""
    settings, _ = load(environment={}, overrides={"batch.max_age_ms": 5})
    broker, deaths = Broker(), list[BaseException]()
    fetcher, metrics = PhotoFetcher(AddressPolicy()), Metrics()
    pipeline = Pipeline(
        settings, model, fetcher, broker, metrics, on_failed=lambda _: None, on_death=deaths.append
    )  # fmt: skip
    pipeline.start()
    try:
        lease = Lease(("in", 0))
        lease.start(0)
        pipeline.submit([(Incoming(Origin("in", 0, 0, 1000), b"a", json.dumps(event).encode(), []), lease)])
        assert pipeline.budget.wait_empty(30)
    finally:
        pipeline.stop()
    assert not deaths
    (record,) = broker.sent
    answered: dict[str, Any] = json.loads(record.value or b"{}")
    return answered


def test_a_table_without_its_title_column_is_one_sentence(tmp_path: Path) -> None:
    table = tmp_path / "listings.tsv"
    table.write_text("name\nx\n", encoding="utf-8")
    with pytest.raises(CommandError, match="title"):
        next(read_table(table, "title", None, POLICY, 10, StubModel().prepare))


def test_a_table_is_read_in_chunks(tmp_path: Path) -> None:
    table = tmp_path / "listings.tsv"
    table.write_text("title\n" + "".join(f"t{n}\n" for n in range(5)), encoding="utf-8")
    chunks = list(read_table(table, "title", None, POLICY, 2, StubModel().prepare))
    assert [[prepared.listing_id for prepared in chunk] for chunk in chunks] == [["1", "2"], ["3", "4"], ["5"]]


def test_large_photos_of_a_table_are_held_within_the_bound_until_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve of 1 MiB, of which three may be held at once."""
    mib, model = 2**20, HeldPhotos()
    monkeypatch.setattr("consumer.fetch.LargeBodies", model.bodies)
    monkeypatch.setattr("consumer.settings.LimitSettings", lambda: LimitSettings(in_flight_bytes=6 * mib))
    table = tmp_path / "listings.tsv"
    with PhotoHost({f"{number}.jpg": bytes(mib) for number in range(12)}.get) as host:
        lines = [f"{number}\tt\t{host.base_url}/{number}.jpg\n" for number in range(12)]
        table.write_text("product_id\ttitle\timage_url\n" + "".join(lines), encoding="utf-8")
        policy = address_policy(["127.0.0.1"])
        (chunk,) = read_table(table, "title", None, policy, 64, model.prepare)
    assert [(one.listing_id, one.image) for one in chunk] == [(str(number), "used") for number in range(12)]
    assert len(model.held) == 12
    assert all(mib <= held <= 3 * mib for held in model.held)


def test_without_a_bundle_the_sentence_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path))
    monkeypatch.delenv("MMCAT_MODEL__BUNDLE", raising=False)
    assert main(["predict", "boots"]) == 1
    assert "mmcat demo" in capsys.readouterr().err


def test_a_sample_is_from_all_over_the_table_and_the_same_again(tmp_path: Path) -> None:
    table = tmp_path / "listings.tsv"
    table.write_text("title\n" + "".join(f"t{row}\n" for row in range(1, 1001)), encoding="utf-8")
    first, again = (read_sample(table, "title", None, POLICY, 200, StubModel().prepare) for _ in range(2))
    assert first == again
    rows = [int(one.listing_id) for one in first]
    assert len(set(rows)) == 200
    assert all(one.text == f"t{one.listing_id}" for one in first)
    for part in (rows[:100], rows[100:]):  # what is calibrated on and what judges
        assert min(part) < 100 < 900 < max(part)
    assert len(read_sample(table, "title", None, POLICY, 5000, StubModel().prepare)) == 1000
