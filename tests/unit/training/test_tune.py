"""Tuned last blocks go on from what the frozen ones made, change nothing else, and leave BatchNorm as it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.training.small import small_recipe, write_encoders, write_folder
from training.data import Dataset
from training.errors import RecipeError
from training.features import FeatureCache, pixels, titles
from training.fusion import Inputs
from training.fusion_step import FusionStep
from training.order import DICE
from training.progress import Quiet
from training.readers.folder import read_folder
from training.recipe import Recipe, Tune
from training.stem import make_stem
from training.steps import Encoders, EncoderSteps
from training.store import Features
from training.tune import Photos, Sources, Tuned, learn_tuned


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tune")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return read_folder(write_folder(folder / "data"))


@pytest.fixture(scope="module")
def trained(folder: Path, dataset: Dataset) -> Encoders:
    rows = dataset.targets[:0]
    return EncoderSteps(dataset, small_recipe(), rows, rows, 0, Quiet(), encoders=write_encoders(folder / "w")).run()


@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_the_tail_on_what_was_kept_equals_the_whole_encoder(
    blocks: int, folder: Path, dataset: Dataset, trained: Encoders
) -> None:
    stem = make_stem(dataset, trained.model, trained.preprocessing, blocks, folder, Quiet())
    assert trained.model.image_encoder is not None
    stem = stem.onto(trained.model.image_encoder)
    assert len(stem.tail) == blocks
    rows = np.arange(0, 90, 9)
    kept = [value for value in stem.take(rows).values() if value is not None]
    found, _ = pixels([dataset.rows[int(row)] for row in rows], trained.preprocessing)
    mean, std = (
        torch.tensor(value).view(3, 1, 1) * 255 for value in (trained.preprocessing.mean, trained.preprocessing.std)
    )
    with torch.inference_mode():
        whole = trained.model.encode_image((torch.from_numpy(found).permute(0, 3, 1, 2) - mean) / std)
        assert torch.allclose(stem.finish(kept), whole, atol=0.02 * float(whole.abs().max()))  # kept in half precision


def test_photos_unpacked_in_another_way_are_kept_apart(dataset: Dataset, trained: Encoders, tmp_path: Path) -> None:
    plain = trained.preprocessing
    for preprocessing in (plain, replace(plain, scaled_decode=True), replace(plain, max_tokens=9)):
        make_stem(dataset, trained.model, preprocessing, 3, tmp_path, Quiet())
    assert len(list(tmp_path.glob("stem-*"))) == 2, "how titles are cut is no matter"


def test_a_run_that_is_stopped_goes_on_from_its_last_block_and_leaves_nothing_else(
    dataset: Dataset, trained: Encoders, tmp_path: Path
) -> None:
    class Stopped(Quiet):
        def advance(self, count: int = 1, note: str = "") -> None:
            raise KeyboardInterrupt

    class Heard(Quiet):
        def __init__(self) -> None:
            self.said: list[str] = []
            self.done: list[tuple[int, str]] = []

        def say(self, line: str) -> None:
            self.said.append(line)

        def advance(self, count: int = 1, note: str = "") -> None:
            self.done.append((count, note))

    made, heard = (dataset, trained.model, trained.preprocessing, 1), Heard()
    with pytest.raises(KeyboardInterrupt):
        make_stem(*made, tmp_path / "s", Stopped())
    stem = make_stem(*made, tmp_path / "s", heard)
    assert "photos up to the tuned blocks: up to 0.00 GB (90 rows) go into" in heard.said[0]
    assert heard.done == [(32, "found from an earlier run"), (32, ""), (26, "")]
    assert len(list((tmp_path / "s").iterdir())) == 1
    at_once = make_stem(*made, tmp_path / "whole", Quiet())
    assert np.array_equal(stem.kept.vectors, at_once.kept.vectors)


def test_a_listing_without_a_photo_has_zeros_and_takes_no_place(
    dataset: Dataset, trained: Encoders, tmp_path: Path
) -> None:
    rows = [replace(dataset.rows[0], photo=None), dataset.rows[1]]
    data = Dataset("made", dataset.taxonomy, rows)
    stem = make_stem(data, trained.model, trained.preprocessing, 1, tmp_path, Quiet())
    assert len(stem.kept.vectors) == 1
    for value in stem.take(np.arange(2)).values():
        assert value is not None
        assert [bool(one.any()) for one in value] == [False, True]


def test_data_that_brings_vectors_has_no_photos_to_tune_blocks_on(
    dataset: Dataset, trained: Encoders, tmp_path: Path
) -> None:
    rows, recipe = np.arange(90), small_recipe()
    vectors = Features(np.ones((90, 3072), np.float16), np.ones(90, np.bool_))
    data = Dataset("made", dataset.taxonomy, dataset.rows, photo_vectors=vectors)
    tuned = recipe.model_copy(update={"fusion": recipe.fusion.model_copy(update={"tune": Tune(image_blocks=1)})})
    step = FusionStep(data, tuned, tmp_path, rows, rows, Quiet())
    inputs = Inputs(data.taxonomy, data.targets, image=vectors)
    with pytest.raises(RecipeError, match="made brings photo vectors: without photos no image block can be tuned"):
        step.learn(trained, trained.config("image", "concat"), inputs, seed=0, stage="image")


def test_a_photo_that_cannot_be_read_is_kept_as_none(tmp_path: Path, trained: Encoders) -> None:
    folder = write_folder(tmp_path / "data", zipped=False)
    spoilt = read_folder(folder)
    (folder / "photos" / "p4.jpg").unlink()
    stem = make_stem(spoilt, trained.model, trained.preprocessing, 1, tmp_path, Quiet())
    assert stem.kept.there[3:6].tolist() == [True, False, True]


@pytest.mark.parametrize("views", [1, 3])
def test_tuning_changes_the_last_blocks_of_a_copy_and_nothing_else(
    views: int, folder: Path, dataset: Dataset, trained: Encoders
) -> None:
    tune = {"image_blocks": 1, "text_layers": 1, "lr_scale": 1.0, "views": views}
    recipe = Recipe.check(
        small_recipe().model_dump() | {"fusion": {**small_recipe().fusion.model_dump(), "tune": tune, "epochs": 3}}, ""
    )
    cache = FeatureCache(folder)
    assert trained.tokenizer is not None
    text = cache.text(dataset, trained.model, trained.tokenizer, trained.preprocessing, Quiet())
    image = cache.image(dataset, trained.model, trained.preprocessing, Quiet())
    inputs = Inputs(dataset.taxonomy, dataset.targets, text, image)
    sources = Sources(
        titles(dataset, trained.preprocessing),
        make_stem(dataset, trained.model, trained.preprocessing, 1, folder, Quiet()) if views == 1 else None,
        Photos(dataset, trained.preprocessing, views) if views > 1 else None,
    )
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    rows = np.arange(90)
    tuned, model, fitted = learn_tuned(
        trained, trained.config("both", "cross"), inputs, sources, rows, rows, recipe.fusion,
        seed=0, progress=Quiet(), stage="tuned",
    )  # fmt: skip
    after = tuned.model.state_dict()
    changed = {name for name in after if not name.startswith("fusion.") and not after[name].equal(before[name])}
    assert changed
    assert all(
        name.startswith(("image_encoder.trunk.layer4.2.", "text_encoder.trunk.encoder.layer.0.")) for name in changed
    )
    assert not [name for name in changed if "running" in name or "num_batches" in name]
    assert all(value.equal(before[name]) for name, value in trained.model.state_dict().items())
    assert (model.text_encoder, model.image_encoder) == (None, None)
    assert fitted.losses[-1] < fitted.losses[0]


def test_what_is_learned_from_is_a_view_and_what_is_measured_is_the_photo(dataset: Dataset, trained: Encoders) -> None:
    photos, rows = Photos(dataset, trained.preprocessing, 2), np.arange(4)
    found, there = pixels([dataset.rows[int(row)] for row in rows], trained.preprocessing)
    assert there.all()
    as_they_are, mirrored = np.zeros((4, DICE)), np.full((4, DICE), 0.9)
    for dice, expected in ((None, found), (as_they_are, found), (mirrored, found[:, :, ::-1])):
        (taken,) = photos.take(rows, dice).values()
        assert taken is not None
        assert np.array_equal(taken.numpy(), expected)


def test_more_layers_than_there_are_is_refused(trained: Encoders) -> None:
    with pytest.raises(RecipeError, match=r"text_layers is 5, and the text encoder has 1 layers"):
        Tuned(trained.model, Tune(text_layers=5), None, trained.preprocessing)
