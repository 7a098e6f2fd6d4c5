"""The optimiser of a step of training and its learning rate, as the recipe says.

After recipe.py; before engine.py.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from training.recipe import Learning


def lr_share(step: int, steps: int, learning: Learning) -> float:
    """Share of the highest learning rate in a step counted from 0: up in a line, then down by `decay`."""
    warmup = max(1, round(steps * learning.warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    past = min(1.0, (step - warmup) / max(1, steps - warmup))
    return 1 - past if learning.decay == "linear" else 0.5 * (1 + math.cos(math.pi * past))


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
        return torch.optim.RAdam(listed, lr=learning.lr, decoupled_weight_decay=True)
    return torch.optim.AdamW(listed, lr=learning.lr, fused=True)
