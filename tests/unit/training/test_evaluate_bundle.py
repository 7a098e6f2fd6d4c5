"""A bundle on a part of its data: figures are those of its answers, files are whole, wrong splits are refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mmcat import Categorizer, Listing
from mmcat.cli import main
from mmcat.taxonomy import Taxonomy
from tests.unit.training.small import lines, small_recipe, write_encoders, write_folder
from training.data import Dataset
from training.evaluate_bundle import group_labels
from training.figures.contest import read_csv
from training.readers.folder import read_folder
from training.recipe import Recipe
from training.report import Report
from training.rows import Row, Rows
from training.train import Options, train, train_shop


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run under `out`, its data under `small`, and what the program keeps."""
    root = tmp_path_factory.mktemp("home")
    folder, encoders = write_folder(root / "small"), write_encoders(root / "encoders")
    options = Options(device="cpu")
    train(
        read_folder(folder), small_recipe(), root / "out", encoders=encoders, cache=root / "features", options=options
    )
    return root


def evaluate(home: Path, monkeypatch: pytest.MonkeyPatch, *options: str, data: str = "small") -> int:
    monkeypatch.setenv("MMCAT_HOME", str(home))
    out = str(home / "evaluation")
    return main(["evaluate", str(home / "out" / "cross"), "--data", str(home / data), "--out", out, *options])


def test_every_file_says_what_the_bundle_answers(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(home, monkeypatch, "--part", "test", "--json", "--no-suspects") == 0
    heard = capsys.readouterr()
    said = json.loads(heard.out)
    assert "looking at the test part" in heard.err
    held = dict(Report.read(home / "out").held)
    rows = [row for row in read_folder(home / "small").rows if row.id in held]
    listings = [Listing(row.id, title=row.title, image=row.photo() if row.photo else None) for row in rows]
    results = Categorizer.load(home / "out" / "cross", device="cpu").categorize(listings)
    right = [tuple(node.id for node in result.path) == held[result.listing_id] for result in results]
    assert said["path_accuracy"] == pytest.approx(sum(right) / len(right), abs=1e-4)
    assert said["exists"] == 1.0
    assert said["path_accuracy_interval"]["low"] <= said["path_accuracy"] <= said["path_accuracy_interval"]["high"]
    assert set(said["withheld"]) == {"image", "text"}
    assert said["official_score"] == pytest.approx(said["kakao_score_expected"], abs=1e-4)
    answers = read_csv(home / "evaluation" / "contest.csv")
    assert answers.keys() == held.keys()
    assert {len(ids) for ids in answers.values()} == {4}
    written = json.loads((home / "evaluation" / "evaluation.json").read_text())
    assert written == {name: value for name, value in said.items() if name not in ("official_score", "files")}
    run = json.loads((home / "evaluation" / "run.json").read_text())
    assert (run["recipe"]["name"], run["split"]["part"]) == ("small", "test")


def test_the_report_is_one_file_that_asks_for_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(home, monkeypatch, "--part", "test") == 0
    assert "path accuracy, photo withheld" in capsys.readouterr().out
    page = (home / "evaluation" / "evaluation.html").read_text()
    sources = re.findall(r"(?:src|href|url)\s*=?\s*[\"'(]([^\"')]*)", page)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "<script" not in page
    assert page.count("<svg") == 2
    assert "Suspected labels" in page
    assert "Looked for among 90 of 90 listings." in page


def test_select_is_no_look_at_the_test_part(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(home, monkeypatch, "--json", "--no-suspects") == 0
    heard = capsys.readouterr()
    assert json.loads(heard.out)["part"] == "select"
    assert "test part" not in heard.err
    assert "Not looked for in this run" in (home / "evaluation" / "evaluation.html").read_text()


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        (["--seed", "5"], "small", "give the seed it was trained with"),
        ([], "fewer", "other paths|was trained on the split"),
        ([], "nowhere", "no folder"),
    ],
)
def test_another_split_or_data_set_is_refused_in_one_sentence(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    data: str,
    message: str,
) -> None:
    if data == "fewer" and not (home / "fewer").exists():
        write_folder(home / "fewer", lines(60))
    assert evaluate(home, monkeypatch, *options, data=data) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, said)


def test_a_report_whose_recipe_would_be_refused_now_is_no_hindrance(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "out" / "report.json"
    kept = path.read_text()
    report = json.loads(kept)
    report["recipe"]["text"] |= {"tokenizer": "wordpiece", "vocabulary": 4000}
    report["recipe"]["fusion"]["few_steps"] = True
    path.write_text(json.dumps(report))
    try:
        assert evaluate(home, monkeypatch, "--json", "--no-suspects") == 0
    finally:
        path.write_text(kept)
    assert json.loads(capsys.readouterr().out)["configuration"]["recipe"]["name"] == "small"


def test_titles_of_another_column_are_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(home, monkeypatch, "--title-column", "hard_title", "--json", "--no-suspects") == 0
    assert "the bundle was trained on: 90 listings of the folder small, column title" in capsys.readouterr().err


def test_a_bundle_of_the_shop_is_tested_on_listings_that_no_training_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {"steps": 2, "batch": 8}
    fusion = {"width": 16, "blocks": 1, "heads": 2, "epochs": 1}
    text = {"vocabulary": 200, "width": 16, "layers": 1, "heads": 1, "feed_forward": 16}
    recipe = Recipe.check({
        "name": "tiny", "encoders": "scratch", "photo": {"px": 32}, "text": text, "fusion": fusion,
        "text_training": steps, "image_training": steps, "baselines": False,
    }, "tiny")  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(json.dumps(recipe.model_dump(mode="json")))
    options = Options(device="cpu")
    train_shop(tmp_path / "out", count=200, recipe=tmp_path / "tiny.yaml", cache=tmp_path / "features", options=options)
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path))
    command = ["evaluate", str(tmp_path / "out" / "cross"), "--data", "shop", "--json", "--no-suspects"]
    assert main([*command, "--part", "test", "--count", "50", "--out", str(tmp_path / "test")]) == 0
    heard = capsys.readouterr()
    assert json.loads(heard.out)["rows"] == 50
    assert "looking at the test part of shop-" in heard.err
    assert main([*command, "--part", "select", "--out", str(tmp_path / "select")]) == 0
    seen, fresh = (set(read_csv(tmp_path / part / "contest.csv")) for part in ("select", "test"))
    assert not seen & fresh


def test_rows_of_a_group_have_one_number_and_a_listing_without_a_group_one_of_its_own() -> None:
    tree = Taxonomy.from_names([("a",)])
    groups = ["b", "", "a" * 10_000, "b", ""]
    rows = [Row(f"p{number}", "", (tree.paths[0][0].id,), group) for number, group in enumerate(groups)]
    dataset = Dataset("made", tree, Rows.of(rows, tree))
    # In alphabetical order, as labels would be; eight bytes a row however long a group's name is.
    assert group_labels(dataset, np.arange(5)).tolist() == [3, 0, 2, 3, 1]
    assert group_labels(dataset, np.array([4, 3, 0])).tolist() == [0, 1, 1]
    assert group_labels(dataset, np.arange(5)).nbytes == 40
