"""Intervals: how much of a figure or a difference may be luck of the rows that happen to be held.

Rows of one group (variants of one product) are right or wrong together, so whole groups are drawn, not rows. Groups
that are alike (as many rows, as many right) are drawn by their number at once: 10,000 draws take well under a second.

After answers.py (what was right); before training.compare. Pure numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
# Normal quantiles of 97.5 % and 80 %: a two-sided test at 5 % finds a difference this many standard errors wide four
# times in five.
POWER_FACTOR = 1.960 + 0.842
_CELLS = 20_000_000  # of one turn's draws


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over rows, or the difference of two, and its 95 % interval (percentiles of the bootstrap).

    Args:
        smallest: the smallest true difference that as many rows would show (80 % power at 5 %, two-sided):
            `POWER_FACTOR` times the bootstrap's standard error.
    """

    value: float
    low: float
    high: float
    smallest: float

    @property
    def above_zero(self) -> bool:
        """Whether the data rule out that there is nothing."""
        return self.low > 0


def mean_interval(values: npt.NDArray[Any], groups: npt.NDArray[Any], seed: int = 0) -> Interval:
    """The mean over rows of `values` [N] and its interval over groups.

    Args:
        groups: [N] labels of any kind; rows of one label are drawn together.
    """
    _, member = np.unique(groups, return_inverse=True)
    sums = np.bincount(member, weights=values.astype(np.float64))
    sizes = np.bincount(member)
    # Alike groups in one column: a multinomial over columns is the same draw as a choice among groups.
    alike, count = np.unique(np.stack([np.round(sums, 9), sizes]), axis=1, return_counts=True)
    generator = np.random.default_rng(seed)
    turn = max(1, _CELLS // len(count))
    means: list[npt.NDArray[np.float64]] = []
    for start in range(0, RESAMPLES, turn):
        drawn = generator.multinomial(len(sums), count / len(sums), size=min(turn, RESAMPLES - start))
        means.append((drawn @ alike[0]) / (drawn @ alike[1]))
    found = np.concatenate(means)
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high), POWER_FACTOR * float(found.std(ddof=1)))


def paired_difference(
    ours: Sequence[npt.NDArray[Any]], theirs: Sequence[npt.NDArray[Any]], groups: npt.NDArray[Any], seed: int = 0
) -> Interval:
    """How much more often the first is right than the second, on the same rows.

    Args:
        ours, theirs: [N] correctness of each seed's model; each row counts with its mean over seeds, so that the
            interval speaks of listings while the seeds' own spread is averaged out.
    """
    ours_N, theirs_N = (np.stack(models).astype(np.float64).mean(axis=0) for models in (ours, theirs))
    return mean_interval(ours_N - theirs_N, groups, seed)


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of a sample; 0 for a single seed)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
