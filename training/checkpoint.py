"""Where a step of training stands, as one file: written beside and renamed, so that it is whole or the one before.

    STAGE.safetensors   tensors: weights, averaged weights, best weights, optimiser, random states
                        metadata: step, losses, accuracies, and the identity of the run, as JSON

Learning rate, data order and every chance outside the network follow from seed and step (order.py), so they need no
place here. No pickles. Before engine.py, which says what goes in.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.errors import CheckpointError

_KEY = "mmcat"
Identity = Mapping[str, str]
"""What a run is made of, by name ("recipe", "split", …), as digests or short words: all must agree to go on."""


@dataclass
class Position:
    """How far a step of training has come.

    Args:
        step: optimiser steps done.
        loss_sum, loss_count: of the steps since the last epoch ended.
        losses, accuracies: of each epoch.
        best_at: index of the best epoch.
        done: the step has ended; the weights are the ones it gives.
    """

    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    best_at: int = 0
    done: bool = False


def save(path: Path, tensors: Mapping[str, Tensor], position: Position, identity: Identity) -> None:
    """Writes the file; returns when it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    facts = {"position": asdict(position), "identity": dict(identity)}
    # Copies: weights that share memory (tied embeddings) are refused by the format.
    whole = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    try:
        save_file(whole, str(beside), metadata={_KEY: json.dumps(facts)})
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path, identity: Identity) -> tuple[dict[str, Tensor], Position]:
    """Reads the file of this very run.

    Raises:
        CheckpointError: not a checkpoint, or of another run; the message names what differs.
    """
    try:
        with safe_open(str(path), "pt") as file:
            facts: Any = json.loads((file.metadata() or {})[_KEY])
        position, written = Position(**facts["position"]), dict(facts["identity"])
        tensors = load_file(str(path))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of ours ({error}): remove it") from error
    names = sorted(written.keys() | dict(identity).keys())
    if differing := [name for name in names if written.get(name) != identity.get(name)]:
        raise CheckpointError(
            f"{path} belongs to a run of another {', '.join(differing)}: finish that one, or remove the file"
        )
    return tensors, position


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix/`, without it."""
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `under`."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments, by parameter number and name; rates and decays follow from the recipe."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`, in place."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
