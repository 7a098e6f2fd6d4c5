"""Learning on frozen features: the fusion and its heads, or the heads of a single modality. Step 3, and steps 1 and 2
where the encoders come trained.

A listing loses one modality by chance in training (ModDrop, Neverova et al. 2015), so that title-only listings work in
serving; where features come in several augmented views, each step draws one per row.

After features.py and engine.py; before evaluate.py and train.py. Knows no encoders: its models are built without them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcat.family import ModelConfig
from mmcat.model import CategoryModel, Fusion
from mmcat.taxonomy import Taxonomy
from training.engine import fit
from training.features import Features
from training.order import DROP, IMAGE_VIEW, TEXT_VIEW, Dice, Rows
from training.progress import Progress
from training.recipe import FusionRecipe
from training.task import NOTHING, Arguments, Fitted, Keep, Logits, Task, level_logits

__all__ = [
    "Inputs",
    "Learned",
    "Logits",
    "Rows",
    "Withheld",
    "drop_modalities",
    "learn",
    "logits",
    "logits_by_chunk",
    "standardise",
]

Withheld = Literal["text", "image"]
_MEMBER_SEED = 1_000  # apart from the seeds that people count up
_STANDARD_PLACES = 20_000  # vectors of photos whose statistics stand for all


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
    """Trains one model on features; blocks for a second or two per epoch of 6,000 rows and member. See `engine.fit`."""
    with torch.random.fork_rng(devices=[]):
        model = CategoryModel(config, encoders=False)  # its members take the place of what stands in it now
    fitted = []
    for number in range(config.members):
        own_seed = seed + number * _MEMBER_SEED
        of = f", member {number + 1}" if config.members > 1 else ""
        member = _begun(replace(config, members=1), inputs, train_rows, own_seed)
        task = _task(member, inputs, train_rows, select_rows, recipe)
        fitted.append(fit(task, recipe, seed=own_seed, stage=stage + of, progress=progress, device=device, keep=keep))
        model.members[number] = member.members[0]
    return Learned(model.cpu().eval(), fitted[0])


def _begun(config: ModelConfig, inputs: Inputs, train_rows: Rows, seed: int) -> CategoryModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CategoryModel(config, encoders=False)
    standardise(model, inputs, train_rows)
    return model


def _task(model: CategoryModel, inputs: Inputs, train_rows: Rows, select_rows: Rows, recipe: FusionRecipe) -> Task:
    config = model.config

    def arguments(rows: Rows, dice: Dice | None) -> Arguments:
        found = inputs.take(rows, config, dice)
        return found if dice is None else drop_modalities(found, config, recipe.missing, dice)

    return Task(
        _Fuse(model), arguments, inputs.taxonomy, inputs.targets, train_rows, select_rows, flat=len(config.classes) == 1
    )


def logits_by_chunk(
    model: CategoryModel, inputs: Inputs, rows: Rows, withhold: Withheld | None = None
) -> Iterator[tuple[Rows, list[Logits]]]:
    """Some rows at a time with their logits, optionally as if one modality were missing; see `task.level_logits`."""

    def arguments(chunk: Rows, dice: Dice | None) -> Arguments:
        found = inputs.take(chunk, model.config, dice)
        if withhold is not None and (there_B := found[f"has_{withhold}_B"]) is not None:
            found[f"has_{withhold}_B"] = torch.zeros_like(there_B)
        return found

    return level_logits(_Fuse(model), arguments, rows)


def logits(model: CategoryModel, inputs: Inputs, rows: Rows, withhold: Withheld | None = None) -> list[Logits]:
    """The logits of all rows at once, float32 [len(rows), C] of each head: for rows of which they fit into memory."""
    chunks = [chunk for _, chunk in logits_by_chunk(model, inputs, rows, withhold)]
    return [np.concatenate(level) for level in zip(*chunks, strict=True)]


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
    places, members = model.config.image_cells, [member for member in model.members if isinstance(member, Fusion)]
    arguments = inputs.take(rows[:: max(1, len(rows) * places // _STANDARD_PLACES)], model.config)
    text_BTD, there_B, mask_BT = arguments["text_BTD"], arguments["has_text_B"], arguments["text_mask_BT"]
    if text_BTD is not None and there_B is not None and mask_BT is not None:
        for member in members:
            _start(member.text_in[0], text_BTD[mask_BT & there_B[:, None]])
    image_BND, there_B = arguments["image_BND"], arguments["has_image_B"]
    if image_BND is not None and there_B is not None:
        for member in members:
            cells = member.image_in
            _start(cells.cells[0], image_BND[there_B, cells.fronts :].flatten(0, 1))
            if cells.front is not None:
                _start(cells.front[0], image_BND[there_B, 0])


def _start(norm: nn.Module, real_RD: Tensor) -> None:
    """One LayerNorm, by the vectors that it will see."""
    if len(real_RD) < 2 or not isinstance(norm, nn.LayerNorm):
        return
    seen_RD = F.layer_norm(real_RD, norm.normalized_shape, eps=norm.eps)
    deviation_D = seen_RD.std(0).clamp_min(0.05)  # a feature that never moves must not become noise
    with torch.no_grad():
        norm.weight.copy_(1 / deviation_D)
        norm.bias.copy_(-seen_RD.mean(0) / deviation_D)


def _drawn(features: Features, rows: Rows, dice: Dice | None, column: int) -> tuple[Tensor, Tensor, Tensor]:
    """`Features.take`, each row in the view that its chance names; in the view of serving where there are no dice."""
    if dice is None or features.views == 1:
        return features.take(rows)
    return features.take(rows, (dice[:, column] * features.views).astype(np.int64))
