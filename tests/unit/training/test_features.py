"""The feature cache on encoders that pool and on encoders that do not: tokens, grid cells, views of a photo."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing
from mmcat.text import Tokenizer
from tests.unit.training.small import BERT, lines, write_folder
from training.data import Dataset, Row
from training.errors import DataError
from training.features import FeatureCache, pixels
from training.progress import Quiet
from training.readers.folder import read_folder
from training.store import Features

PREPROCESSING = Preprocessing(px=32, max_tokens=8)
CELLS = 4


class Unpooled(CategoryModel):
    """Encoders that give a place for each token and for each quarter of the photo, quickly and by known rules."""

    def encode_text(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        return ids_BT[:, :, None] * torch.ones(self.config.text_width)

    def encode_image(self, pixels_BCXX: Tensor) -> Tensor:
        quarters_BCXX = torch.nn.functional.adaptive_avg_pool2d(pixels_BCXX, 2)
        return quarters_BCXX.mean(1).flatten(1)[:, :, None] * torch.ones(self.config.image_width)


@pytest.fixture(scope="module")
def model() -> Unpooled:
    return Unpooled(ModelConfig((1, 1, 1, 1), text_encoder=BERT, px=32, width=16, blocks=1, heads=2))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twelve listings; p5 has no photo, that of p6 is broken."""
    rows = [line.replace("\tp5.jpg", "\t") for line in lines(12)]
    folder = write_folder(tmp_path_factory.mktemp("data") / "f", rows, zipped=False)
    (folder / "photos" / "p5.jpg").unlink()
    (folder / "photos" / "p6.jpg").write_bytes(b"")
    return read_folder(folder)


@pytest.fixture(scope="module")
def tokenizer(dataset: Dataset) -> Tokenizer:
    return Tokenizer.train_wordpiece([row.title for row in dataset.rows], 64, max_tokens=8)


def test_every_title_has_a_place_for_each_of_its_tokens(
    model: Unpooled, dataset: Dataset, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    untitled = [dataset.rows[0], *dataset.rows[7:9], Row("none", "", dataset.rows[0].path, "", dataset.rows[0].photo)]
    data = Dataset("made", dataset.taxonomy, untitled)
    features = FeatureCache(tmp_path).text(data, model, tokenizer, PREPROCESSING, Quiet())
    ids_BT, mask_BT = tokenizer.encode([row.title for row in untitled[:3]])
    x_BTD, found_BT, there_B = features.take(np.arange(4))
    assert there_B.tolist() == [True, True, True, False]
    assert np.array_equal(found_BT[:3].numpy(), mask_BT == 1)
    assert np.array_equal(x_BTD[:3, :, 0].numpy(), np.where(mask_BT == 1, ids_BT, 0))
    assert len(set(mask_BT.sum(1).tolist())) > 1


def test_every_photo_has_a_place_for_each_cell_in_each_view(model: Unpooled, dataset: Dataset, tmp_path: Path) -> None:
    features = FeatureCache(tmp_path, "fp16").image(dataset, model, PREPROCESSING, Quiet(), views=3)
    assert features.views == 3
    assert features.there.tolist() == [number not in (5, 6) for number in range(12)]
    x_BND, mask_BN, _ = features.take(np.array([0, 5, 1]))
    assert x_BND.shape == (3, CELLS, 2048)
    assert mask_BN.tolist() == [[True] * CELLS, [False] * CELLS, [True] * CELLS]
    seen, _ = pixels(dataset.rows[:1], PREPROCESSING)
    means = torch.tensor(PREPROCESSING.mean).view(3, 1, 1) * 255
    deviations = torch.tensor(PREPROCESSING.std).view(3, 1, 1) * 255
    for view, shown in ((0, seen), (1, seen[:, :, ::-1].copy())):
        expected = model.encode_image((torch.from_numpy(shown).permute(0, 3, 1, 2).float() - means) / deviations)
        assert torch.allclose(features.take(np.array([0]), view)[0], expected, rtol=2e-3)


def test_other_views_are_another_store_and_the_same_are_the_same(
    model: Unpooled, dataset: Dataset, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path)
    for views in (1, 2, 2):
        cache.image(dataset, model, PREPROCESSING, Quiet(), views=views)
    assert len(list(tmp_path.glob("image-*-float32"))) == 2
    assert not list(tmp_path.glob(".*"))


def test_vectors_that_the_data_brings_are_taken_by_a_model_that_was_made_for_their_width(
    model: Unpooled, dataset: Dataset, tmp_path: Path
) -> None:
    def brings(width: int) -> Dataset:
        vectors = Features(np.ones((12, width), np.float16), np.ones(12, np.bool_))
        return Dataset("made", dataset.taxonomy, dataset.rows, photo_vectors=vectors)

    cache = FeatureCache(tmp_path)
    given = CategoryModel(replace(model.config, given_photo_width=5))
    assert cache.image(brings(5), given, PREPROCESSING, Quiet()).take(np.arange(2))[0].shape == (2, 1, 5)
    with pytest.raises(DataError, match="photo vectors of width 3, and this model reads photo vectors of width 5"):
        cache.image(brings(3), given, PREPROCESSING, Quiet())
    with pytest.raises(DataError, match="made brings photo vectors of width 2048, and this model reads photos"):
        cache.image(brings(2048), model, PREPROCESSING, Quiet())
    with pytest.raises(DataError, match="brings photos, and this model reads photo vectors of width 5"):
        cache.image(dataset, given, PREPROCESSING, Quiet())
    assert not list(tmp_path.iterdir())
