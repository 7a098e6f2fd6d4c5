"""Steps 1 and 2 of training: a text encoder learns on titles, an image encoder on photos, whole.

Each encoder is trained inside a `CategoryModel` of its own modality, from random weights or from those it came with, so
that what comes out is at once the frozen encoder of the fusion step and the single-modality baseline. The recipe for
photos from random weights is measured (docs/decisions/0002): many small steps, AdamW, warm-up then linear decay,
zero-initialised residuals, bf16 where the processor multiplies it.

After the readers, splits and engine.py; before features.py, which runs the trained encoders once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmcat.model import CategoryModel
from mmcat.normalisation import Normalisation
from mmcat.photos import Pixels
from mmcat.preparation import Preprocessing
from mmcat.taxonomy import Taxonomy
from mmcat.text import Tokenizer
from training.engine import fit
from training.order import Dice, Rows
from training.progress import Progress
from training.recipe import Learning
from training.task import NOTHING, Arguments, Fitted, Keep, Task


@dataclass(frozen=True)
class Lesson:
    """Whose paths an encoder learns.

    Args:
        truth: int64 [N], path of each row as a row of the taxonomy.
        train, select: numbers of rows that have the modality.
    """

    taxonomy: Taxonomy
    truth: Rows
    train: Rows
    select: Rows


@dataclass(frozen=True, slots=True)
class RowPixels:
    """Photos of some rows, taken by the row's number.

    Args:
        pixels: uint8 [R, px, px, 3].
        at: int64 [N], where a row's photo stands; -1: nowhere.
    """

    pixels: Pixels
    at: Rows

    def __getitem__(self, rows: Rows) -> Pixels:
        return self.pixels[self.at[rows]]


def train_text_encoder(
    model: CategoryModel,
    tokenizer: Tokenizer,
    titles: Sequence[str],
    lesson: Lesson,
    learning: Learning,
    *,
    seed: int,
    progress: Progress,
    device: str = "cpu",
    keep: Keep = NOTHING,
) -> Fitted:
    """Trains a model of modality "text" in place, encoder and heads; see `engine.fit`.

    Args:
        titles: of all rows, as serving sees them (`mmcat.preparation.listing_text`).
    """
    if model.text_encoder is not None and model.config.text_pooling != "pooler":
        _freeze_unread(model.text_encoder)

    def arguments(rows: Rows, _: Dice | None) -> Arguments:
        ids_BT, mask_BT = tokenizer.encode([titles[row] for row in rows])
        ids = {"ids_BT": torch.from_numpy(ids_BT), "mask_BT": torch.from_numpy(mask_BT)}
        return {**ids, "pixels_BCXX": None}

    task = Task(model, arguments, lesson.taxonomy, lesson.truth, lesson.train, lesson.select)
    return fit(task, learning, seed=seed, stage="step 1: text encoder", progress=progress, device=device, keep=keep)


def train_image_encoder(
    model: CategoryModel,
    pixels: RowPixels,
    lesson: Lesson,
    learning: Learning,
    preprocessing: Preprocessing,
    *,
    seed: int,
    progress: Progress,
    device: str = "cpu",
    keep: Keep = NOTHING,
) -> Fitted:
    """Trains a model of modality "image" in place; from random weights make it with `zero_init_residual=True`.

    Args:
        pixels: as `mmcat.photos.decode` gives them.
    """
    model.to(memory_format=torch.channels_last)

    def arguments(rows: Rows, _: Dice | None) -> Arguments:
        return {"pixels_BXXC": torch.from_numpy(pixels[rows])}

    network = FromPixels(model, preprocessing)
    task = Task(network, arguments, lesson.taxonomy, lesson.truth, lesson.train, lesson.select)
    return fit(task, learning, seed=seed, stage="step 2: image encoder", progress=progress, device=device, keep=keep)


class FromPixels(nn.Module):
    """A model of modality "image" that takes photos as they are decoded, and normalises them on its own device."""

    def __init__(self, model: CategoryModel, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.normalisation = Normalisation(preprocessing)

    def forward(self, pixels_BXXC: Tensor) -> list[Tensor]:
        logits: list[Tensor] = self.model(None, None, self.normalisation(pixels_BXXC))
        return logits


def _freeze_unread(encoder: nn.Module) -> None:
    """BERT's pooler learns nothing where nothing reads it; processes that share gradients would wait for its own."""
    for name, parameter in encoder.named_parameters():
        if ".pooler." in name:
            parameter.requires_grad_(False)
