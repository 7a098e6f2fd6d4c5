"""Learning on frozen features: the fusion and its heads, or the heads of a single modality. Step 3, and steps 1 and 2
where the encoders come trained.

The epoch is chosen by path accuracy on `select`; the weights are an exponential moving average of the steps'. A listing
loses one modality by chance in training (ModDrop, Neverova et al. 2015), so that title-only listings work in serving.

After features.py; before evaluate.py and train.py. Knows no encoders: its models are built without them.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcat.model import IGNORED, LEVEL_WEIGHTS, CategoryModel, ModelConfig, loss
from mmcat.paths import PathIndex
from mmcat.taxonomy import Taxonomy
from training.errors import TrainingError
from training.features import Features
from training.progress import Progress
from training.recipe import FusionRecipe

Rows = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Withheld = Literal["text", "image"]
_CHUNK = 512  # rows per run in evaluation
_STANDARD_ROWS = 20_000  # rows whose statistics stand for all


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

    def take(self, rows: Rows, config: ModelConfig, device: torch.device, view: int = 0) -> dict[str, Tensor | None]:
        """Arguments of `CategoryModel.fuse` for these rows; `view` is of the photos."""
        nothing = (None, None, None)
        text = self.text.take(rows) if config.reads_text and self.text is not None else nothing
        image = self.image.take(rows, view) if config.reads_image and self.image is not None else nothing
        names = ("text_BTD", "text_mask_BT", "has_text_B", "image_BND", "", "has_image_B")  # a grid has no padding
        return {
            name: None if value is None else value.to(device)
            for name, value in zip(names, (*text, *image), strict=True)
            if name
        }


@dataclass(frozen=True, slots=True)
class Learned:
    """A trained fusion and how it came about.

    Args:
        model: without encoders, in eval mode, on the CPU.
        losses: mean training loss of each epoch.
        accuracies: path accuracy on `select` after each epoch; the best one's weights are the model's.
    """

    model: CategoryModel
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]

    @property
    def best_epoch(self) -> int | None:
        """From 1, of equals the last; None where no epochs were counted."""
        if not self.accuracies:
            return None
        return len(self.accuracies) - int(np.argmax(self.accuracies[::-1]))


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
) -> Learned:
    """Trains one model on features; blocks for a second or two per epoch of 6,000 rows.

    Raises:
        TrainingError: the loss is no number any more.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CategoryModel(config, encoders=False)
        _standardise(model, inputs, train_rows)
        model.to(device).train()
        return _epochs(model, inputs, train_rows, select_rows, recipe, seed, progress, stage)


def _epochs(
    model: CategoryModel,
    inputs: Inputs,
    train_rows: Rows,
    select_rows: Rows,
    recipe: FusionRecipe,
    seed: int,
    progress: Progress,
    stage: str,
) -> Learned:
    generator = np.random.default_rng(seed)
    steps = math.ceil(len(train_rows) / recipe.batch)
    optimizer = torch.optim.AdamW(_groups(model, recipe.weight_decay), lr=recipe.lr, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_share(step, steps * recipe.epochs, recipe))
    average = copy.deepcopy(model).eval().requires_grad_(False)
    best: dict[str, Tensor] = {}
    best_at = 0
    losses: list[float] = []
    accuracies: list[float] = []
    progress.begin(stage, recipe.epochs)
    index = PathIndex(inputs.taxonomy)
    for _ in range(recipe.epochs):
        total = 0.0
        for rows in _batches(train_rows, recipe.batch, generator):
            step_loss = _step_loss(model, inputs, rows, recipe, generator)
            optimizer.zero_grad(set_to_none=True)
            step_loss.backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
            schedule.step()
            _follow(average, model, recipe.ema)
            total += float(step_loss.detach()) * len(rows)
        losses.append(total / len(train_rows))
        if not math.isfinite(losses[-1]):
            raise TrainingError(f"{stage}: the loss is {losses[-1]} in epoch {len(losses)}: lower the learning rate")
        answers = index.scores(logits(average, inputs, select_rows)).argmax(axis=1)
        accuracies.append(float((answers == inputs.targets[select_rows]).mean()) if len(select_rows) else 0.0)
        if accuracies[-1] >= accuracies[best_at]:  # of equals the later: it has seen more
            best_at = len(accuracies) - 1
            best = {name: value.clone() for name, value in average.state_dict().items()}
        progress.advance(note=f"loss {losses[-1]:.3f}, select {accuracies[-1]:.3f}")
        if len(accuracies) - 1 - best_at >= recipe.patience:
            break
    average.load_state_dict(best)
    return Learned(average.cpu(), tuple(losses), tuple(accuracies))


def logits(model: CategoryModel, inputs: Inputs, rows: Rows, withhold: Withheld | None = None) -> list[Logits]:
    """Four levels of logits float32 [len(rows), C], in eval mode, optionally as if one modality were missing."""
    device = next(model.parameters()).device
    found = [[np.zeros((0, count), np.float32)] for count in model.config.classes]
    with torch.inference_mode():
        for start in range(0, len(rows), _CHUNK):
            arguments = inputs.take(rows[start : start + _CHUNK], model.config, device)
            if withhold is not None and (there_B := arguments[f"has_{withhold}_B"]) is not None:
                arguments[f"has_{withhold}_B"] = torch.zeros_like(there_B)
            for parts, level_BC in zip(found, model.fuse(**arguments), strict=True):
                parts.append(level_BC.float().cpu().numpy())
    return [np.concatenate(parts) for parts in found]


def _step_loss(
    model: CategoryModel, inputs: Inputs, rows: Rows, recipe: FusionRecipe, generator: np.random.Generator
) -> Tensor:
    device = next(model.parameters()).device
    arguments = inputs.take(rows, model.config, device)
    if model.config.modality == "both":
        _drop_modalities(arguments, recipe.missing, generator)
    targets_B4 = torch.from_numpy(inputs.taxonomy.path_classes[inputs.targets[rows]]).to(device)
    found = model.fuse(**arguments)
    if not recipe.label_smoothing:
        return loss(found, targets_B4)
    # (1 - s) · cross-entropy + s · the mean over classes (Szegedy et al. 2016), level by level as in `loss`.
    return (1 - recipe.label_smoothing) * loss(found, targets_B4) + recipe.label_smoothing * _to_uniform(
        found, targets_B4
    )


def _to_uniform(logits_of: list[Tensor], targets_B4: Tensor) -> Tensor:
    """Weighted cross-entropy to the uniform distribution, on the rows that have the level."""
    total = torch.zeros((), device=targets_B4.device)
    for level_BC, targets_B, weight in zip(logits_of, targets_B4.unbind(1), LEVEL_WEIGHTS, strict=True):
        there_B = targets_B != IGNORED
        spread_B = -F.log_softmax(level_BC.float(), dim=-1).mean(dim=-1)
        total = total + weight * (spread_B * there_B).sum() / there_B.sum().clamp_min(1)
    return total


def _drop_modalities(arguments: dict[str, Tensor | None], chance: float, generator: np.random.Generator) -> None:
    """Takes one modality from some of the rows that have both, in place; never the last one a row has."""
    has_text_B, has_image_B = arguments["has_text_B"], arguments["has_image_B"]
    if has_text_B is None or has_image_B is None:
        return
    draw = torch.from_numpy(generator.random(len(has_text_B))).to(has_text_B.device)
    both_B = has_text_B & has_image_B
    arguments["has_text_B"] = has_text_B & ~(both_B & (draw < chance / 2))
    arguments["has_image_B"] = has_image_B & ~(both_B & (draw >= 1 - chance / 2))


def _standardise(model: CategoryModel, inputs: Inputs, rows: Rows) -> None:
    """Starts the input LayerNorms so that each feature has mean 0 and deviation 1 over the training rows.

    Frozen features lie in a narrow cone; freed of their mean at the start, they are learned from in fewer epochs.
    """
    some = rows[:: max(1, len(rows) // _STANDARD_ROWS)]
    arguments = inputs.take(some, model.config, torch.device("cpu"))
    for vectors, there, layer in (
        (arguments["text_BTD"], arguments["has_text_B"], getattr(model.fusion, "text_in", None)),
        (arguments["image_BND"], arguments["has_image_B"], getattr(model.fusion, "image_in", None)),
    ):
        if layer is None or vectors is None or there is None or int(there.sum()) < 2:
            continue
        norm: nn.LayerNorm = layer[0]
        seen_RD = F.layer_norm(vectors[there][:, 0], norm.normalized_shape, eps=norm.eps)
        deviation_D = seen_RD.std(0).clamp_min(0.05)  # a feature that never moves must not become noise
        with torch.no_grad():
            norm.weight.copy_(1 / deviation_D)
            norm.bias.copy_(-seen_RD.mean(0) / deviation_D)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, vectors (biases, norms, the missing-modality tokens) do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _follow(average: nn.Module, model: nn.Module, ema: float) -> None:
    with torch.no_grad():
        for mean, value in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, 1 - ema)


def _lr_share(step: int, steps: int, recipe: FusionRecipe) -> float:
    """Warm-up in a line, then a half cosine down to 0."""
    warmup = max(1, round(steps * recipe.warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def _batches(rows: Rows, size: int, generator: np.random.Generator) -> Iterator[Rows]:
    order = generator.permutation(rows)
    for start in range(0, len(order), size):
        yield order[start : start + size]
