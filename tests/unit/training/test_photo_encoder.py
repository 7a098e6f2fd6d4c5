"""Photos through OpenVINO give the features that PyTorch gives, and never stand in one store with them."""

from pathlib import Path

import numpy as np
import pytest

from mmcat.engines import graphs
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing
from mmcat.pretrained import load_resnet_weights
from tests.unit.training.small import lines, write_folder
from training import photo_encoder
from training.features import FeatureCache, pixels
from training.photo_encoder import FEW, PhotoEncoder
from training.progress import Quiet
from training.readers.folder import read_folder

TOLERANCE = 5e-3  # of values up to 10; roots of means near zero are the farthest apart
PX = 64


def _model(grid: int = 1) -> CategoryModel:
    config = ModelConfig(
        (1, 1, 1, 1),
        modality="image",
        image_layers="layer3+layer4",
        keys="pooled" if grid == 1 else "sequence",
        grid=grid,
        px=PX,
        resnet_strides="v1",
    )
    return CategoryModel(config).eval().requires_grad_(False)


@pytest.mark.parametrize("grid", [1, 2])
def test_both_encoders_give_the_same_features(grid: int) -> None:
    model, preprocessing = _model(grid), Preprocessing(px=PX)
    quick, plain = (PhotoEncoder(model, preprocessing, photos) for photos in (FEW, FEW - 1))
    assert (quick.name, plain.name) == ("openvino", "torch")
    assert quick.cells() == plain.cells() == (1 if grid == 1 else 5)
    seen = np.random.default_rng(0).integers(0, 256, (21, PX, PX, 3), np.uint8)
    expected = plain(seen)
    assert np.allclose(quick(seen), expected, rtol=0, atol=TOLERANCE)
    assert np.allclose(quick(seen[20:]), expected[20:], rtol=0, atol=TOLERANCE)  # alone as among others


def test_real_weights_give_the_same_features(test_weights: Path, test_data: Path) -> None:
    model, preprocessing = _model(), Preprocessing(px=PX)
    load_resnet_weights(model, test_weights / "resnet50_v1.safetensors")
    seen, _ = pixels(read_folder(test_data / "fashion", "title").rows[:32], preprocessing)
    quick, plain = (PhotoEncoder(model, preprocessing, photos)(seen) for photos in (FEW, 1))
    assert np.allclose(quick, plain, rtol=0, atol=TOLERANCE)


def test_few_photos_and_a_missing_extra_go_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, preprocessing = _model(), Preprocessing(px=PX)
    assert PhotoEncoder(model, preprocessing, FEW - 1).name == "torch"
    monkeypatch.setattr(graphs, "missing", lambda: "not installed")
    assert PhotoEncoder(model, preprocessing, 10 * FEW).name == "torch"


def test_features_of_two_encoders_are_two_stores_and_each_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = read_folder(write_folder(tmp_path / "f", lines(6), zipped=False))
    model, preprocessing = _model(), Preprocessing(px=PX)
    cache, made = FeatureCache(tmp_path / "features"), []
    export = graphs.export

    def noted(part: graphs.Part, path: Path) -> None:
        made.append(path)
        export(part, path)

    monkeypatch.setattr(graphs, "export", noted)
    found = []
    for few in (FEW, 1, FEW, 1):
        monkeypatch.setattr(photo_encoder, "FEW", few)
        found.append(cache.image(dataset, model, preprocessing, Quiet()).take(np.arange(6))[0].numpy())
    assert len(list((tmp_path / "features").glob("image-*"))) == 2
    assert len(made) == 1  # features that are on disk need no graph
    assert np.allclose(found[0], found[1], rtol=0, atol=TOLERANCE)
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], found[3])
