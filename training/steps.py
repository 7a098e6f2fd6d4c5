"""Steps 1 and 2: the encoders of a run, trained from nothing or taken as they come, and then frozen.

After recipe.py, encoders.py, frozen.py; before features.py, which runs what comes out of here once over all rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mmcat.model import CategoryModel, ModelConfig
from mmcat.photos import Pixels
from mmcat.preparation import Preprocessing
from mmcat.text import Tokenizer
from training import features
from training.data import Dataset
from training.encoders import EncoderTraining, train_image_encoder, train_text_encoder
from training.errors import DataError
from training.frozen import find
from training.fusion import Rows
from training.progress import Progress
from training.recipe import EncoderSteps, Recipe

_DECODE = 256  # photos per turn of the progress bar


@dataclass(frozen=True)
class Encoders:
    """What steps 1 and 2 give.

    Args:
        model: of both modalities, its encoders frozen; its fusion is not trained.
        singles: models of one modality that were trained whole, by "text" and "image"; none where encoders came frozen.
    """

    model: CategoryModel
    tokenizer: Tokenizer
    preprocessing: Preprocessing
    singles: dict[str, CategoryModel] = field(default_factory=dict)

    def config(self, modality: Literal["text", "image", "both"], fusion: Literal["concat", "cross"]) -> ModelConfig:
        """The shape of a model on these encoders."""
        shape = self.model.config.to_json() | {"modality": modality, "fusion": fusion}
        return ModelConfig.from_json(shape | ({"text_encoder": None} if modality == "image" else {}))

    def attach(self, model: CategoryModel) -> CategoryModel:
        """Gives a fusion that was trained on features the encoders that made them."""
        if model.config.reads_text:
            model.text_encoder = self.model.text_encoder
        if model.config.reads_image:
            model.image_encoder = self.model.image_encoder
        return model.eval()


def pretrained_encoders(dataset: Dataset, recipe: Recipe, encoders: str | Path | None, device: str) -> Encoders:
    """Takes encoders as they come; blocks for seconds, or on the network for names on a hub."""
    found = find(encoders, recipe.text.pooling)
    preprocessing = _preprocessing(recipe)
    tokenizer = found.tokenizer(preprocessing.max_tokens)
    config = _config(dataset, recipe, found.text_config(), found.pooling, found.strides)
    model = CategoryModel(config)
    found.fill(model)
    return Encoders(_frozen(model, device), tokenizer, preprocessing)


def scratch_encoders(
    dataset: Dataset, recipe: Recipe, train_rows: Rows, seed: int, progress: Progress, device: str
) -> Encoders:
    """Trains both encoders from random weights; blocks for minutes.

    Raises:
        DataError: no title, or no photo, to learn from.
    """
    if recipe.text_training is None or recipe.image_training is None:
        raise DataError(
            "a recipe from scratch needs text_training and image_training"
        )  # the recipe's check says so too
    preprocessing = _preprocessing(recipe)
    titles = features.titles(dataset, preprocessing)
    with_title = np.array([row for row in train_rows if titles[row]], np.int64)
    if not len(with_title):
        raise DataError(f"{dataset.name}: no listing with a title to train on")
    train_titles = [titles[row] for row in with_title]
    tokenizer = Tokenizer.train_wordpiece(train_titles, recipe.text.vocabulary, preprocessing.max_tokens)
    config = _config(dataset, recipe, _bert(recipe, tokenizer), recipe.text.pooling or "mean", "v1.5")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        both = CategoryModel(config, zero_init_residual=True).to(device)
        empty = Encoders(both, tokenizer, preprocessing)
        text = empty.attach(CategoryModel(empty.config("text", "concat"), encoders=False)).to(device)
        image = empty.attach(CategoryModel(empty.config("image", "concat"), encoders=False)).to(device)
    text_4 = dataset.taxonomy.path_classes[dataset.targets[with_title]]
    progress.begin("step 1: text encoder", recipe.text_training.steps)
    train_text_encoder(text, tokenizer, train_titles, text_4, _steps(recipe.text_training, seed), _tell(progress))
    pixels, rows = _photos(dataset, train_rows, preprocessing, progress)
    image_4 = dataset.taxonomy.path_classes[dataset.targets[rows]]
    progress.begin("step 2: image encoder", recipe.image_training.steps)
    train_image_encoder(image, pixels, image_4, _steps(recipe.image_training, seed), _tell(progress))
    singles = {"text": text.eval().requires_grad_(False), "image": image.eval().requires_grad_(False)}
    return Encoders(_frozen(both, device), tokenizer, preprocessing, singles)


def _photos(
    dataset: Dataset, train_rows: Rows, preprocessing: Preprocessing, progress: Progress
) -> tuple[Pixels, Rows]:
    """The training part's photos, all in memory (7 kB each at 48 px), and whose they are."""
    progress.begin("photos", len(train_rows))
    found, rows = [], []
    for start in range(0, len(train_rows), _DECODE):
        part = train_rows[start : start + _DECODE]
        pixels, there = features.pixels([dataset.rows[row] for row in part], preprocessing)
        found.append(pixels)
        rows.append(part[there])
        progress.advance(len(part))
    if not sum(map(len, rows)):
        raise DataError(f"{dataset.name}: no listing with a photo to train on")
    return np.concatenate(found), np.concatenate(rows)


def _config(
    dataset: Dataset,
    recipe: Recipe,
    text_encoder: dict[str, Any],
    pooling: Literal["cls", "mean", "pooler", "layers"],
    strides: Literal["v1", "v1.5"],
) -> ModelConfig:
    fusion = recipe.fusion
    return ModelConfig(
        classes=tuple(map(len, dataset.taxonomy.classes)),
        text_encoder=text_encoder,
        text_pooling=pooling,
        resnet_strides=strides,
        image_layers=recipe.photo.layers,
        px=recipe.photo.px,
        width=fusion.width,
        blocks=fusion.blocks,
        heads=fusion.heads,
        dropout=fusion.dropout,
    )


def _bert(recipe: Recipe, tokenizer: Tokenizer) -> dict[str, Any]:
    text = recipe.text
    return {
        "model_type": "bert",
        "vocab_size": tokenizer.vocabulary_size,
        "hidden_size": text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "intermediate_size": text.feed_forward,
        "hidden_dropout_prob": text.dropout,
        "attention_probs_dropout_prob": text.dropout,
        "max_position_embeddings": text.max_tokens,
        "pad_token_id": tokenizer.pad_id,
    }


def _preprocessing(recipe: Recipe) -> Preprocessing:
    photo = recipe.photo
    return Preprocessing(px=photo.px, fit=photo.fit, fill=photo.fill, max_tokens=recipe.text.max_tokens)


def _steps(steps: EncoderSteps, seed: int) -> EncoderTraining:
    return EncoderTraining(**steps.model_dump(), seed=seed)


def _tell(progress: Progress) -> Callable[[int, int, float], None]:
    return lambda step, steps, loss: progress.advance(note=f"loss {loss:.3f}")


def _frozen(model: CategoryModel, device: str) -> CategoryModel:
    return model.to(device).eval().requires_grad_(False)
