"""Encoders learn from random weights, the same way each time; bf16 only where the processor has it."""

import numpy as np
import pytest
import torch

from mmcat.model import CategoryModel, ModelConfig
from mmcat.preparation import Preprocessing
from mmcat.text import Tokenizer
from training.encoders import EncoderTraining, bf16_is_quick, train_image_encoder, train_text_encoder
from training.features import pixels, titles
from training.readers.shop import shop_dataset
from training.shop.shop import ShopConfig

PX = 32
BERT = {
    "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "vocab_size": 400,
}  # fmt: skip
CLASSES = (3, 3, 3, 3)
TARGETS = np.array([[row % 3, row % 2, 0, -1] for row in range(12)])


def learn_photos(seed: int = 0, steps: int = 6, precision: str = "fp32") -> tuple[list[float], CategoryModel]:
    """Losses and the model after learning twelve random photos by heart."""
    torch.manual_seed(seed)
    model = CategoryModel(ModelConfig(CLASSES, "image", px=PX, width=16), zero_init_residual=True)
    noise = np.random.default_rng(0).integers(0, 256, (12, PX, PX, 3), np.uint8)
    losses: list[float] = []
    training = EncoderTraining(steps, batch=12, lr=3e-3, precision=precision, seed=seed)  # type: ignore[arg-type]
    train_image_encoder(model, noise, TARGETS, training, lambda _step, _steps, loss: losses.append(loss))
    return losses, model


def learn_titles(seed: int = 0, steps: int = 60) -> tuple[list[float], CategoryModel]:
    torch.manual_seed(seed)
    words = [f"{'abc'[row % 3]} {'xy'[row % 2]} {row}" for row in range(12)]
    tokenizer = Tokenizer.train_wordpiece(words, 64)
    config = ModelConfig(CLASSES, "text", text_encoder=BERT, text_pooling="mean", width=16, dropout=0.0)
    model = CategoryModel(config)
    losses: list[float] = []
    training = EncoderTraining(steps, batch=6, lr=5e-3, seed=seed)
    train_text_encoder(model, tokenizer, words, TARGETS, training, lambda _step, _steps, loss: losses.append(loss))
    return losses, model


def test_loss_falls_on_a_few_titles() -> None:
    losses, model = learn_titles()
    assert len(losses) == 60
    assert losses[-1] < 0.4 * losses[0]
    assert not model.training


def test_loss_falls_on_a_few_photos() -> None:
    losses, model = learn_photos(steps=14)
    assert losses[-1] < 0.7 * losses[0]
    assert not model.training


def test_the_same_seed_gives_the_same_encoder_and_another_gives_another() -> None:
    (first, one), (second, two), (third, _) = learn_titles(steps=4), learn_titles(steps=4), learn_titles(1, steps=4)
    assert first == second != third
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    _, model = learn_titles(steps=2)
    torch.manual_seed(5)
    tokenizer = Tokenizer.train_wordpiece(["a b"], 64)
    train_text_encoder(model, tokenizer, ["a", "b"], TARGETS[:2], EncoderTraining(2, batch=2))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.skipif(not bf16_is_quick("cpu"), reason="this processor has no bf16 instructions")
def test_bf16_learns_like_float32() -> None:
    exact, rounded = learn_photos(steps=4)[0], learn_photos(steps=4, precision="bf16")[0]
    assert rounded[0] == pytest.approx(exact[0], rel=0.03)
    assert rounded[-1] < rounded[0]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"warmup_share": 1.0}])
def test_training_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        EncoderTraining(**{"steps": 1, **wrong})  # type: ignore[arg-type]


def test_the_shop_is_a_dataset_with_photos_that_decode() -> None:
    config = ShopConfig(absent_share=0.1, dead_share=0.1, broken_share=0.1)
    dataset = shop_dataset(config, 60)
    assert len(dataset) == 60
    assert dataset.digest == shop_dataset(config, 60).digest != shop_dataset(config.demo(), 60).digest
    stacked, there = pixels(dataset.rows, Preprocessing(px=48))
    assert stacked.shape == (int(there.sum()), 48, 48, 3)
    assert 0 < (~there).sum() < 35
    assert titles(dataset, Preprocessing(px=48)) == [row.title for row in dataset.rows]
