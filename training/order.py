"""Which rows a step sees, as a pure function of seed and step: nothing to store, nothing to lose.

A run that was killed goes on with the very next batch, and two processes deal the same batch among them as one process
sees whole. After splits.py; before engine.py.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Dice = npt.NDArray[np.float64]

DICE = 3  # numbers in [0, 1) that each row gets in each step
DROP, TEXT_VIEW, IMAGE_VIEW = range(DICE)  # what they decide: a missing modality, which augmented view of either


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that pass through the device at once, with the chances that they take in this step.

    Args:
        rows: [B].
        dice: [B, DICE].
    """

    rows: Rows
    dice: Dice


class Order:
    """Batches of `size` rows: every row once before any row again, all batches full.

    Args:
        rows: of the training part.
        size: rows per optimiser step, over all processes; no more than there are rows are taken.
    """

    def __init__(self, rows: Rows, size: int, seed: int) -> None:
        self._rows, self._seed = rows, seed
        self.size = min(size, len(rows))
        self._kept: tuple[int, Rows] = (
            -1,
            rows,
        )  # the last pass asked for: a permutation of 8 million rows takes a second

    @property
    def steps_per_pass(self) -> int:
        """Steps after which every row was seen."""
        return -(-len(self._rows) // self.size)

    def batch(self, step: int) -> Piece:
        """The whole batch of a step, counted from 0."""
        parts: list[Rows] = []
        place, end = step * self.size, (step + 1) * self.size
        while place < end:
            number, at = divmod(place, len(self._rows))
            parts.append(self._pass(number)[at : at + end - place])
            place += len(parts[-1])
        dice_BK = np.random.default_rng((self._seed, 1, step)).random((self.size, DICE))
        return Piece(np.concatenate(parts), dice_BK)

    def pieces(self, step: int, process: int, processes: int, accumulate: int) -> list[Piece]:
        """This process's share of a batch, in `accumulate` parts."""
        whole = self.batch(step)
        mine = np.array_split(np.arange(self.size), processes)[process]
        return [Piece(whole.rows[part], whole.dice[part]) for part in np.array_split(mine, accumulate)]

    def _pass(self, number: int) -> Rows:
        if number != self._kept[0]:
            self._kept = (number, np.random.default_rng((self._seed, 0, number)).permutation(self._rows))
        return self._kept[1]
