"""What a step of training is: a network and its data, what is kept of the run, and how it went.

After order.py and checkpoint.py; before engine.py, which runs any of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mmcat.paths import PathIndex
from mmcat.taxonomy import Taxonomy
from training.checkpoint import Identity
from training.order import Dice, Rows

Arguments = dict[str, Tensor | None]
Logits = npt.NDArray[np.float32]
_CHUNK = 512  # rows per run in evaluation


class ArgumentsOf(Protocol):
    """Gives a network's arguments for rows [B], on the CPU; called from any one thread."""

    def __call__(self, rows: Rows, dice: Dice | None, /) -> Arguments:
        """`dice` [B, DICE] in [0, 1) decide what is random besides dropout; None: as in serving."""


@dataclass(frozen=True)
class Task:
    """What a step of training learns.

    Args:
        network: called as network(**arguments), gives four levels of logits, or those of a flat head; trained in place.
        truth: path of each row, as a row of the taxonomy.
        train, select: row numbers.
        lr_share: of a parameter's name, its share of the recipe's learning rate.
        flat: whether the network answers whole paths.
    """

    network: nn.Module
    arguments: ArgumentsOf
    taxonomy: Taxonomy
    truth: Rows
    train: Rows
    select: Rows
    lr_share: Callable[[str], float] = field(default=lambda _: 1.0)
    flat: bool = False

    @property
    def classes(self) -> Sequence[int]:
        """Of each head."""
        return [len(self.taxonomy)] if self.flat else [len(level) for level in self.taxonomy.classes]

    def targets(self, rows: Rows) -> Rows:
        """int64 [B, S], classes per level, -1 where a row has no such level; of a flat head the path."""
        return self.truth[rows, None] if self.flat else self.taxonomy.path_classes[self.truth[rows]]

    def right(self, rows: Rows) -> int:
        """How many of these rows' whole paths are answered right."""
        if not len(rows):
            return 0
        chunks = level_logits(self.network, self.arguments, rows)
        return sum(int((self._index.scores(heads).argmax(axis=1) == self.truth[some]).sum()) for some, heads in chunks)

    @cached_property
    def _index(self) -> PathIndex:
        return PathIndex(self.taxonomy)


@dataclass(frozen=True, slots=True)
class Keep:
    """What of a run outlives it.

    Args:
        checkpoints: folder; None keeps none.
        logs: folder of the JSON lines; None writes none.
        identity: see checkpoint.Identity.
        resume: go on from a checkpoint that is there; otherwise it is replaced.
        every: steps between checkpoints; each epoch's end is one too.
    """

    checkpoints: Path | None = None
    logs: Path | None = None
    identity: Identity = field(default_factory=dict)
    resume: bool = False
    every: int = 1_000
    trackers: Sequence[str] = ()


NOTHING = Keep()


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a step of training went.

    Args:
        losses: mean training loss of each epoch.
        accuracies: path accuracy on `select` after each epoch; empty where none was measured.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]

    @property
    def best_epoch(self) -> int | None:
        """From 1, of equals the last; None where no epochs were counted."""
        if not self.accuracies:
            return None
        return len(self.accuracies) - int(np.argmax(self.accuracies[::-1]))


def level_logits(network: nn.Module, arguments: ArgumentsOf, rows: Rows) -> Iterator[tuple[Rows, list[Logits]]]:
    """What a network in eval mode says of the rows, as in serving: some rows at a time, in order.

    Logits and path scores of millions of rows would be gigabytes: the caller keeps what it reads of each chunk.

    Yields:
        B rows, and logits float32 [B, C] of each head; once, with B = 0, where there are no rows.
    """
    device = next(network.parameters()).device
    for start in range(0, max(1, len(rows)), _CHUNK):
        some = rows[start : start + _CHUNK]
        with torch.inference_mode():
            given = arguments(some, None)
            logits = network(**{name: None if value is None else value.to(device) for name, value in given.items()})
            found = [level_BC.float().cpu().numpy() for level_BC in logits]
        yield some, found
