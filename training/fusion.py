"""Learning on frozen features: the fusion and its heads, or the heads of a single modality. Step 3, and steps 1 and 2
where the encoders come trained.

A listing loses one modality by chance in training (ModDrop, Neverova et al. 2015), so that title-only listings work in
serving; where features come in several augmented views, each step draws one per row.

After features.py and engine.py; before evaluate.py and train.py. Knows no encoders: its models are built without them.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcat.model import CategoryModel, ModelConfig
from mmcat.taxonomy import Taxonomy
from training.engine import fit
from training.features import Features
from training.order import DROP, IMAGE_VIEW, TEXT_VIEW, Dice, Rows
from training.progress import Progress
from training.recipe import FusionRecipe
from training.task import NOTHING, Arguments, Fitted, Keep, Logits, Task, level_logits

__all__ = ["Inputs", "Learned", "Logits", "Rows", "Withheld", "drop_modalities", "learn", "logits", "standardise"]

Withheld = Literal["text", "image"]
_STANDARD_ROWS = 2_000  # rows whose statistics stand for all; with a grid of 7 × 7 cells they take 0.8 GB


@dataclass(frozen=True)
class Inputs:
    """All rows' features and truths; what a model does not read may be None.

    Args:
        targets: [N] taxonomy rows.
    """

    taxonomy: Taxonomy
    targets: Rows
    text: Features | None = None
    image: Features | None = None

    def take(self, rows: Rows, config: ModelConfig, dice: Dice | None = None) -> Arguments:
        """Arguments of `CategoryModel.fuse` for these rows, on the CPU; `dice` draw among the views."""
        found: Arguments = dict.fromkeys(("text_BTD", "has_text_B", "text_mask_BT", "image_BND", "has_image_B"))
        if config.reads_text and self.text is not None:
            found["text_BTD"], found["text_mask_BT"], found["has_text_B"] = _drawn(self.text, rows, dice, TEXT_VIEW)
        if config.reads_image and self.image is not None:
            found["image_BND"], _, found["has_image_B"] = _drawn(self.image, rows, dice, IMAGE_VIEW)
        return found


@dataclass(frozen=True, slots=True)
class Learned:
    """A trained model and how it came about.

    Args:
        model: without encoders, in eval mode, on the CPU.
    """

    model: CategoryModel
    fitted: Fitted


class _Fuse(nn.Module):
    """A model whose `fuse` is what it does when called, as the engine calls it."""

    def __init__(self, model: CategoryModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, **arguments: Tensor | None) -> list[Tensor]:
        return self.model.fuse(**arguments)  # the names are those of `Inputs.take`


def learn(
    config: ModelConfig,
    inputs: Inputs,
    train_rows: Rows,
    select_rows: Rows,
    recipe: FusionRecipe,
    *,
    seed: int,
    progress: Progress,
    stage: str,
    device: str = "cpu",
    keep: Keep = NOTHING,
) -> Learned:
    """Trains one model on features; blocks for a second or two per epoch of 6,000 rows. See `engine.fit`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CategoryModel(config, encoders=False)
    standardise(model, inputs, train_rows)

    def arguments(rows: Rows, dice: Dice | None) -> Arguments:
        found = inputs.take(rows, config, dice)
        return found if dice is None else drop_modalities(found, config, recipe.missing, dice)

    task = Task(_Fuse(model), arguments, inputs.taxonomy, inputs.targets, train_rows, select_rows)
    fitted = fit(task, recipe, seed=seed, stage=stage, progress=progress, device=device, keep=keep)
    return Learned(model.cpu(), fitted)


def logits(model: CategoryModel, inputs: Inputs, rows: Rows, withhold: Withheld | None = None) -> list[Logits]:
    """Four levels of logits float32 [len(rows), C], in eval mode, optionally as if one modality were missing."""

    def arguments(chunk: Rows, dice: Dice | None) -> Arguments:
        found = inputs.take(chunk, model.config, dice)
        if withhold is not None and (there_B := found[f"has_{withhold}_B"]) is not None:
            found[f"has_{withhold}_B"] = torch.zeros_like(there_B)
        return found

    return level_logits(_Fuse(model), arguments, rows)


def drop_modalities(arguments: Arguments, config: ModelConfig, chance: float, dice: Dice) -> Arguments:
    """Takes one modality from some of the rows that have both; never the last one a row has."""
    has_text_B, has_image_B = arguments.get("has_text_B"), arguments.get("has_image_B")
    if config.modality != "both" or has_text_B is None or has_image_B is None:
        return arguments
    draw_B, both_B = torch.from_numpy(dice[:, DROP]), has_text_B & has_image_B
    return {
        **arguments,
        "has_text_B": has_text_B & ~(both_B & (draw_B < chance / 2)),
        "has_image_B": has_image_B & ~(both_B & (draw_B >= 1 - chance / 2)),
    }


def standardise(model: CategoryModel, inputs: Inputs, rows: Rows) -> None:
    """Starts the input LayerNorms so that each feature has mean 0 and deviation 1 over the training rows.

    Frozen features lie in a narrow cone; freed of their mean at the start, they are learned from in fewer epochs.
    """
    arguments = inputs.take(rows[:: max(1, len(rows) // _STANDARD_ROWS)], model.config)
    mask_BT = arguments["text_mask_BT"]
    for vectors, there, mask, layer in (
        (arguments["text_BTD"], arguments["has_text_B"], mask_BT, getattr(model.fusion, "text_in", None)),
        (arguments["image_BND"], arguments["has_image_B"], None, getattr(model.fusion, "image_in", None)),
    ):
        if layer is None or vectors is None or there is None or int(there.sum()) < 2:
            continue
        norm: nn.LayerNorm = layer[0]
        real = vectors[there].flatten(0, 1) if mask is None else vectors[mask & there[:, None]]
        seen_RD = F.layer_norm(real, norm.normalized_shape, eps=norm.eps)
        deviation_D = seen_RD.std(0).clamp_min(0.05)  # a feature that never moves must not become noise
        with torch.no_grad():
            norm.weight.copy_(1 / deviation_D)
            norm.bias.copy_(-seen_RD.mean(0) / deviation_D)


def _drawn(features: Features, rows: Rows, dice: Dice | None, column: int) -> tuple[Tensor, Tensor, Tensor]:
    """`Features.take`, each row in the view that its chance names; in the view of serving where there are no dice."""
    if dice is None or features.views == 1:
        return features.take(rows)
    view_B = (dice[:, column] * features.views).astype(np.int64)
    taken = {view: features.take(rows[view_B == view], int(view)) for view in np.unique(view_B)}
    length, width = max(x_BLD.shape[1] for x_BLD, _, _ in taken.values()), next(iter(taken.values()))[0].shape[2]
    x_BLD = torch.zeros(len(rows), length, width)
    mask_BL, there_B = torch.zeros(len(rows), length, dtype=torch.bool), torch.zeros(len(rows), dtype=torch.bool)
    for view, (some_BLD, some_BL, some_B) in taken.items():
        at = torch.from_numpy(np.flatnonzero(view_B == view))
        x_BLD[at, : some_BLD.shape[1]] = some_BLD
        mask_BL[at, : some_BL.shape[1]] = some_BL
        there_B[at] = some_B
    return x_BLD, mask_BL, there_B
