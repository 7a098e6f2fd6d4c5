"""The loss of four levels, with what helps the tail: smoothed labels, class-balanced weights, adjusted logits.

`model.loss` is the plain form of it; this one knows the training part's class counts, and can be computed in parts that
add up to the loss of the whole batch: over processes, and over pieces of a batch that are accumulated.

After model.py; before engine.py.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcat.model import IGNORED
from training.recipe import Learning


class LevelLoss:
    """Weighted sum over levels of the mean cross-entropy of the rows that have the level.

    Args:
        learning: `label_smoothing` (Szegedy et al. 2016), `level_weights` and `tail`: "class_balanced" weighs a
            class of n rows by (1 - β) / (1 - βⁿ) (Cui et al. 2019); "logit_adjusted" adds τ · log of the class's
            share to its logit while training (Menon et al. 2021), so that what is served is freed of class sizes.
        classes: number of classes per level.
        targets_N4: classes of the training rows, -1 where a row has no such level.
    """

    def __init__(
        self, learning: Learning, classes: Sequence[int], targets_N4: npt.NDArray[np.int64], device: torch.device
    ) -> None:
        self._smoothing, self._weights = learning.label_smoothing, learning.level_weights
        self._class_weights: list[Tensor | None] = [None] * len(classes)
        self._shifts: list[Tensor | None] = [None] * len(classes)
        if learning.tail == "none":
            return
        for level, count in enumerate(classes):
            seen_N = targets_N4[:, level]
            counts_C = torch.from_numpy(np.bincount(seen_N[seen_N != IGNORED], minlength=count)).double().to(device)
            if learning.tail == "class_balanced":
                self._class_weights[level] = _balanced(counts_C, learning.tail_beta).float()
            else:  # a class that no training row has counts as one row: log 0 would silence it for ever
                share_C = counts_C.clamp_min(1) / counts_C.clamp_min(1).sum()
                self._shifts[level] = (learning.tail_tau * share_C.log()).float()

    def mass(self, targets_B4: Tensor) -> Tensor:
        """What each level's sum over a whole batch is divided by: the rows that have it, by their classes' weights.

        Returns:
            float32 [4]; 1 for a level that no row has, so that it adds 0 and not a division by 0.
        """
        masses = []
        for targets_B, weight_C in zip(targets_B4.unbind(1), self._class_weights, strict=True):
            there_B = targets_B != IGNORED
            mass = there_B.sum().float() if weight_C is None else (weight_C[targets_B.clamp_min(0)] * there_B).sum()
            masses.append(torch.where(mass > 0, mass, 1.0))
        return torch.stack(masses)

    def __call__(self, logits: Sequence[Tensor], targets_B4: Tensor, mass_4: Tensor) -> Tensor:
        """A piece's part of the batch's loss.

        Args:
            logits: 4 × [B, C] of the piece.
            mass_4: of the whole batch, see `mass`.
        """
        total = torch.zeros((), device=targets_B4.device)
        for level, (logits_BC, targets_B) in enumerate(zip(logits, targets_B4.unbind(1), strict=True)):
            shift_C = self._shifts[level]
            summed = F.cross_entropy(
                logits_BC.float() if shift_C is None else logits_BC.float() + shift_C,
                targets_B,
                weight=self._class_weights[level],
                ignore_index=IGNORED,
                reduction="sum",
                label_smoothing=self._smoothing,
            )
            total = total + self._weights[level] * summed / mass_4[level]
        return total


def _balanced(counts_C: Tensor, beta: float) -> Tensor:
    """One over each class's effective number of rows, scaled to a mean of 1 over the classes that have rows."""
    weight_C = torch.where(counts_C > 0, (1 - beta) / (1 - beta ** counts_C.clamp_min(1)), 0.0)
    return weight_C / weight_C[counts_C > 0].mean()
