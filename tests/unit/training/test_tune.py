"""Tuned last blocks go on from what the frozen ones made, change nothing else, and leave BatchNorm as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.training.small import small_recipe, write_encoders, write_folder
from training.data import Dataset
from training.errors import RecipeError
from training.features import FeatureCache, pixels, titles
from training.fusion import Inputs
from training.order import DICE
from training.progress import Quiet
from training.readers.folder import read_folder
from training.recipe import Recipe, Tune
from training.stem import make_stem
from training.steps import Encoders, EncoderSteps
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


def test_a_photo_that_cannot_be_read_is_kept_as_none(tmp_path: Path, trained: Encoders) -> None:
    folder = write_folder(tmp_path / "data", zipped=False)
    spoilt = read_folder(folder)
    (folder / "photos" / "p4.jpg").unlink()
    stem = make_stem(spoilt, trained.model, trained.preprocessing, 1, tmp_path, Quiet())
    (kept, *_) = stem.kept.values()
    assert [bool(kept[row].any()) for row in (3, 4, 5)] == [True, False, True]


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
