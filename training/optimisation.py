"""The optimiser of a step of training and its learning rate, as the recipe says.

After recipe.py; before engine.py.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from training.recipe import Learning

_HUGE = 1e8  # beside it any gradient is small, and float32 keeps the quotient


def lr_share(step: int, steps: int, learning: Learning) -> float:
    """Share of the highest learning rate in a step counted from 0: up in a line, then down by `decay`."""
    warmup = max(1, round(steps * learning.warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    past = min(1.0, (step - warmup) / max(1, steps - warmup))
    return 1 - past if learning.decay == "linear" else 0.5 * (1 + math.cos(math.pi * past))


class RAdam(torch.optim.AdamW):
    """RAdam (Liu et al. 2020, "On the Variance of the Adaptive Learning Rate and Beyond"), weight decay decoupled.

    A step of it is one of AdamW with the rate times the rectification, so AdamW's fused kernel takes it: PyTorch's own
    RAdam makes a dozen passes over all weights, 0.6 s of two cores for 60 M. The first steps, whose variance is not
    tractable, do not divide by it: there epsilon is so large that nothing else counts. A step counts from 1 for all
    weights of a group.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """See `torch.optim.Optimizer.step`."""
        given = [{name: group[name] for name in ("lr", "weight_decay", "eps")} for group in self.param_groups]
        for group in self.param_groups:
            done = next((int(self.state[one]["step"]) for one in group["params"] if one in self.state), 0)
            share, epsilon = _rectified(done + 1, group["betas"][1], group["eps"])
            group["lr"] *= share
            group["weight_decay"] /= share
            group["eps"] = epsilon
        try:
            return super().step(closure)
        finally:
            for group, values in zip(self.param_groups, given, strict=True):
                group.update(values)


def _rectified(step: int, beta: float, epsilon: float) -> tuple[float, float]:
    """What AdamW's rate is multiplied by in a step counted from 1, and its epsilon."""
    corrected = 1 - beta**step
    longest = 2 / (1 - beta) - 1
    length = longest - 2 * step * beta**step / corrected  # of the moving average of squared gradients
    if length <= 5:
        return _HUGE, _HUGE
    ratio = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return math.sqrt(ratio), epsilon / math.sqrt(corrected)  # RAdam adds epsilon before it corrects the bias


def optimizer(network: nn.Module, learning: Learning, lr_shares: Callable[[str], float]) -> torch.optim.Optimizer:
    """Over what is trainable. Matrices decay, vectors (biases, norms, the missing-modality tokens) do not.

    Args:
        lr_shares: of a parameter's name, its share of the recipe's learning rate; kept as "lr_share" of its group.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((lr_shares(name), parameter.ndim > 1), []).append(parameter)
    listed: list[dict[str, Any]] = [
        {"params": parameters, "lr_share": share, "weight_decay": learning.weight_decay if decays else 0.0}
        for (share, decays), parameters in groups.items()
    ]
    if learning.optimizer == "radam":
        return RAdam(listed, lr=learning.lr, fused=True)
    return torch.optim.AdamW(listed, lr=learning.lr, fused=True)
