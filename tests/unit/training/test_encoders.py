"""Encoders learn whole, the same way each time; bf16 only where the processor has it."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing
from mmcat.taxonomy import Taxonomy
from mmcat.text import Tokenizer
from training.encoders import Lesson, RowPixels, train_image_encoder, train_text_encoder
from training.features import pixels, titles
from training.progress import Quiet
from training.readers.shop import shop_dataset
from training.recipe import Learning
from training.shop.shop import ShopConfig
from training.task import Fitted

PX = 32
BERT = {
    "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "vocab_size": 400,
}  # fmt: skip
TREE = Taxonomy.from_names([("a",), ("a", "x"), ("b", "x", "y")])
CLASSES = tuple(map(len, TREE.classes))
ROWS = np.arange(12)


def lesson(select: Sequence[int] = ()) -> Lesson:
    return Lesson(TREE, ROWS % 3, ROWS, np.array(select, np.int64))


def learn_photos(seed: int = 0, steps: int = 6, precision: str = "fp32") -> tuple[Fitted, CategoryModel]:
    """How learning twelve random photos by heart went, and the model."""
    torch.manual_seed(seed)
    model = CategoryModel(ModelConfig(CLASSES, "image", px=PX, width=16), zero_init_residual=True)
    noise = RowPixels(np.random.default_rng(0).integers(0, 256, (12, PX, PX, 3), np.uint8), ROWS)
    learning = Learning.model_validate({"steps": steps, "batch": 12, "lr": 3e-3, "precision": precision})
    fitted = train_image_encoder(model, noise, lesson(), learning, Preprocessing(px=PX), seed=seed, progress=Quiet())
    return fitted, model


def learn_titles(seed: int = 0, steps: int = 60, patience: int | None = None) -> tuple[Fitted, CategoryModel]:
    torch.manual_seed(seed)
    words = [f"{'abc'[row % 3]} {'xy'[row % 2]} {row}" for row in range(12)]
    tokenizer = Tokenizer.train_wordpiece(words, 64)
    config = ModelConfig(CLASSES, "text", text_encoder=BERT, text_pooling="mean", width=16, dropout=0.0)
    model = CategoryModel(config)
    learning = Learning(steps=steps, batch=6, lr=5e-3, patience=patience)
    fitted = train_text_encoder(model, tokenizer, words, lesson([0, 1, 2]), learning, seed=seed, progress=Quiet())
    return fitted, model


def test_loss_falls_on_a_few_titles() -> None:
    fitted, model = learn_titles()
    assert len(fitted.losses) == 30  # two steps an epoch
    assert fitted.losses[-1] < 0.4 * fitted.losses[0]
    assert not model.training


def test_loss_falls_on_a_few_photos() -> None:
    fitted, model = learn_photos(steps=14)
    assert fitted.losses[-1] < 0.7 * fitted.losses[0]
    assert not model.training


def test_an_encoder_that_learns_with_patience_is_validated_on_whole_paths() -> None:
    fitted, _ = learn_titles(steps=80, patience=40)
    assert max(fitted.accuracies) == 1.0


def test_the_same_seed_gives_the_same_encoder_and_another_gives_another() -> None:
    (first, one), (second, two), (third, _) = learn_titles(steps=4), learn_titles(steps=4), learn_titles(1, steps=4)
    assert first == second != third
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_bf16_learns_like_float32() -> None:
    exact, rounded = learn_photos(steps=4)[0], learn_photos(steps=4, precision="bf16")[0]
    assert rounded.losses[0] == pytest.approx(exact.losses[0], rel=0.03)


def test_the_shop_is_a_dataset_with_photos_that_decode() -> None:
    config = ShopConfig(absent_share=0.1, dead_share=0.1, broken_share=0.1)
    dataset = shop_dataset(config, 60)
    assert len(dataset) == 60
    assert dataset.digest == shop_dataset(config, 60).digest != shop_dataset(config.demo(), 60).digest
    stacked, there = pixels(dataset.rows, Preprocessing(px=48))
    assert stacked.shape == (int(there.sum()), 48, 48, 3)
    assert 0 < (~there).sum() < 35
    assert titles(dataset, Preprocessing(px=48)) == [row.title for row in dataset.rows]
