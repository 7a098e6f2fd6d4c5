"""The weights that learn: which mode they learn in, copies of them, their moving average; and what dropout draws from.

Before engine.py.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.errors import TrainingError


class Average:
    """An exponential moving average, steadier than any single step's weights (Polyak & Juditsky 1992).

    Follows a module's trainable parameters; frozen ones and buffers have nothing to average.

    Args:
        decay: per step; 0: the weights themselves.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self._means = {name: value.detach().clone() for name, value in self._live.items()} if decay else {}

    @torch.no_grad()
    def follow(self) -> None:
        """Call after each step of the optimiser."""
        for name, mean in self._means.items():
            mean.lerp_(self._live[name], 1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module has the averaged weights inside, and its own again afterwards."""
        own = {name: self._live[name].detach().clone() for name in self._means}
        self._put(self._means)
        try:
            yield
        finally:
            self._put(own)

    def tensors(self) -> dict[str, Tensor]:
        return dict(self._means)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`, in place."""
        for name, mean in self._means.items():
            mean.copy_(tensors[name])

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._live[name].copy_(value)


def train_mode(network: nn.Module) -> None:
    """Training mode for what learns, eval mode (dropout off, running statistics) for what is frozen."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def learnable(network: nn.Module) -> dict[str, Tensor]:
    """Copies of what a run changes: trainable parameters, and buffers (BatchNorm's statistics)."""
    found = {name: value for name, value in network.named_parameters() if value.requires_grad}
    return {name: value.detach().clone() for name, value in (*found.items(), *network.named_buffers())}


@torch.no_grad()
def fill(network: nn.Module, values: Mapping[str, Tensor]) -> None:
    """The inverse of `learnable`: every name must be there, and no other."""
    here: dict[str, Tensor] = {name: value for name, value in network.named_parameters() if value.requires_grad}
    here.update(network.named_buffers())
    if here.keys() != values.keys():
        raise TrainingError(f"these weights are of another network: {sorted(here.keys() ^ values.keys())[:3]}")
    for name, value in values.items():
        here[name].copy_(value)


def random_state(device: torch.device) -> Tensor:
    """uint8: the generators that dropout draws from."""
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    return torch.cat(states).to(device)


def set_random_state(state: Tensor, device: torch.device) -> None:
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[size:].cpu(), device)
