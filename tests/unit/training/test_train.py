"""A whole run on a small folder: four bundles that load and answer, features once, the same weights from one seed."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from mmcat import Categorizer, Listing, ModelError, bundle
from tests.unit.training.small import small_recipe, write_encoders, write_folder
from training.data import Dataset
from training.features import FeatureCache
from training.ledger import looks
from training.progress import Quiet
from training.readers.folder import read_folder
from training.recipe import Recipe
from training.report import Report
from training.splits import Split, split_file
from training.steps import EncoderSteps
from training.train import MODELS, Options, train

CPU = Options(device="cpu")


class Heard(Quiet):
    """Remembers the stages that began, and what was said."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.lines: list[str] = []

    def begin(self, stage: str, total: int) -> None:
        self.stages.append(stage)

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_folder(write_folder(tmp_path_factory.mktemp("data") / "small"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def report(dataset: Dataset, encoders: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    out = tmp_path_factory.mktemp("out") / "run"
    return train(dataset, small_recipe(), out, encoders=encoders, cache=cache, options=CPU)


@pytest.mark.parametrize("name", MODELS)
def test_a_bundle_loads_and_answers_with_paths_that_exist(report: Report, dataset: Dataset, name: str) -> None:
    categorizer = Categorizer.load(report.bundle(name), device="cpu")
    photo = dataset.rows[0].photo
    assert photo is not None
    listings = [
        Listing("a", title="item 1 men", image=photo()),
        Listing("b", title="women"),
        Listing("c", image=photo()),
    ]
    known = {tuple(node.id for node in path) for path in dataset.taxonomy.paths}
    for result in categorizer.categorize(listings):
        assert tuple(node.id for node in result.path) in known
    assert categorizer.info.fingerprint == report.models[name].fingerprint


def test_photos_that_cannot_be_used_are_trained_without_and_listed(encoders: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "spoilt", zipped=False)
    data = read_folder(folder)
    (folder / "photos" / "p4.jpg").unlink()
    (folder / "photos" / "p7.jpg").write_bytes(b"\xff\xd8 no photo")
    options = Options(models=("image",), device="cpu")
    for _ in range(2):  # features from the cache know as much
        heard, cache = Heard(), tmp_path / "cache"
        train(data, small_recipe(), tmp_path / "out", encoders=encoders, cache=cache, progress=heard, options=options)
        report = Report.read(tmp_path / "out")
        assert [(line, column) for line, column, _ in report.lost_photos] == [(6, "image"), (9, "image")]
        gone, broken = (reason for _, _, reason in report.lost_photos)
        assert gone.startswith("p4: photo undecodable: cannot be read (FileNotFoundError")
        assert broken.startswith("p7: photo undecodable: ")
        assert "2 photos cannot be read or decoded, see report.json" in heard.lines


def test_the_report_reads_back_as_it_was_written(report: Report) -> None:
    again = Report.read(report.folder)
    assert again.path_accuracy() == report.path_accuracy()
    assert list(again.held) == list(report.held)
    assert again == Report.read(report.folder)


def test_each_look_at_the_test_part_is_in_the_ledger(report: Report, dataset: Dataset, cache: Path) -> None:
    noted = looks(split_file(dataset, cache, report.seed))
    assert {look.model for look in noted} == set(MODELS)
    assert {(look.split, look.recipe, look.purpose) for look in noted} == {
        (report.split_fingerprint, "small", "training report")
    }


def test_what_training_measured_is_what_the_bundle_answers(report: Report, dataset: Dataset) -> None:
    held = dict(report.held)
    rows = [row for row in dataset.rows if row.id in held]
    listings = [Listing(row.id, title=row.title, image=row.photo() if row.photo else None) for row in rows]
    results = Categorizer.load(report.bundle("cross"), device="cpu").categorize(listings)
    right = [tuple(node.id for node in result.path) == held[result.listing_id] for result in results]
    assert sum(right) / len(right) == pytest.approx(report.path_accuracy()["cross"], abs=1e-4)


@pytest.mark.parametrize(
    ("photo", "keys"),
    [({"px": 64, "grid": 2, "layers": "layer3+layer4"}, "sequence"), ({"px": 32, "views": 2}, "pooled")],
    ids=["tokens and cells", "mirrored photos"],
)
def test_every_kind_of_keys_and_head_is_served_as_it_was_measured(
    dataset: Dataset, encoders: Path, tmp_path: Path, photo: dict[str, object], keys: str
) -> None:
    values = small_recipe().model_dump()
    recipe = Recipe.model_validate(
        {**values, "photo": photo, "fusion": {**values["fusion"], "keys": keys, "epochs": 4}}
    )
    options = Options(models=("cross", "flat"), device="cpu")
    report = train(dataset, recipe, tmp_path / "run", encoders=encoders, cache=tmp_path / "cache", options=options)
    held = dict(report.held)
    listings = [
        Listing(row.id, title=row.title, image=row.photo() if row.photo else None)
        for row in dataset.rows
        if row.id in held
    ]
    for name in ("cross", "flat"):
        results = Categorizer.load(report.bundle(name), device="cpu").categorize(listings)
        right = [tuple(node.id for node in result.path) == held[result.listing_id] for result in results]
        assert sum(right) / len(right) == pytest.approx(report.path_accuracy()[name], abs=1e-4)
    shutil.rmtree(report.folder)


def test_a_grid_that_the_photos_cannot_give_is_refused_before_anything_is_computed(
    dataset: Dataset, encoders: Path, cache: Path, tmp_path: Path
) -> None:
    values = small_recipe().model_dump()
    recipe = Recipe.model_validate(
        {**values, "photo": {"px": 32, "grid": 2}, "fusion": {**values["fusion"], "keys": "sequence"}}
    )
    with pytest.raises(ModelError, match="64 px"):
        train(dataset, recipe, tmp_path / "run", encoders=encoders, cache=cache, options=CPU)
    assert not (tmp_path / "run").exists()


def test_a_second_run_reuses_features_and_gives_the_same_weights(
    report: Report, dataset: Dataset, encoders: Path, cache: Path, tmp_path: Path
) -> None:
    heard = Heard()
    again = train(
        dataset, small_recipe(), tmp_path / "run", encoders=encoders, cache=cache, progress=heard, options=CPU
    )
    assert not {"title features", "photo features"} & set(heard.stages)
    for name in MODELS:
        one, two = (load_file(str(run.bundle(name) / "model.safetensors")) for run in (report, again))
        assert all(one[key].equal(two[key]) for key in one)
    shutil.rmtree(again.folder)


def test_other_weights_or_titles_are_other_features(encoders: Path, dataset: Dataset, tmp_path: Path) -> None:
    part = np.arange(len(dataset))
    found = EncoderSteps(dataset, small_recipe(), part, part, 0, Quiet(), encoders=encoders).run()
    assert found.tokenizer is not None
    cache = FeatureCache(tmp_path, "fp16")
    first = cache.text(dataset, found.model, found.tokenizer, found.preprocessing, Quiet())
    assert first.vectors.dtype == "float16"
    renamed = Dataset(dataset.name, dataset.taxonomy, [*dataset.rows[1:], dataset.rows[0]])
    cache.text(renamed, found.model, found.tokenizer, found.preprocessing, Quiet())
    assert found.model.text_encoder is not None
    next(found.model.text_encoder.parameters()).data.add_(0.1)
    cache.text(dataset, found.model, found.tokenizer, found.preprocessing, Quiet())
    assert len(list(tmp_path.glob("text-*-float16"))) == 3


def test_a_bundle_holds_the_histograms_of_what_it_answers_to_its_calibration_part(
    report: Report, dataset: Dataset, cache: Path
) -> None:
    split = Split.load(next(cache.glob("*.split.json")))
    rows = [dataset.rows[row] for row in split.rows("calibrate", dataset)]
    listings = [Listing(row.id, title=row.title, image=row.photo() if row.photo else None) for row in rows]
    results = Categorizer.load(report.bundle("cross"), device="cpu").categorize(listings)
    reference = bundle.load(report.bundle("cross")).reference
    assert reference is not None
    assert reference.paths == Counter(">".join(node.id for node in result.path) for result in results)
    assert reference.photos == {"used": len(rows)}
    assert reference.probabilities == tuple(np.histogram([one.probability for one in results], 20, (0, 1))[0])


def test_the_card_tells_the_tail_the_missing_modalities_and_the_labels(report: Report) -> None:
    card = (report.bundle("cross") / "README.md").read_text()
    for said in ("| under 10 |", "| photo withheld |", "variant", "calibration part", "| kakao_score_expected |"):
        assert said in card
