"""Medians of interleaved pairs with their interval: what every claim of speed here is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

RESAMPLES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Ratio:
    """A median over pairs, with its 95 % bootstrap interval (pairs drawn with replacement)."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f}, 95 % interval {self.low:.2f} to {self.high:.2f}, {self.pairs} pairs"

    def meets(self, target: float) -> bool:
        """Whether the interval is not wholly below `target`."""
        return self.high >= target


def ratio(ours: Sequence[float], peers: Sequence[float]) -> Ratio:
    """Ours ÷ the peer's, pair by pair.

    Raises:
        ValueError: not as many of the one as of the other, or none.
    """
    if len(ours) != len(peers) or not ours:
        raise ValueError(f"{len(ours)} runs of ours and {len(peers)} of the peer are no pairs")
    return median(np.asarray(ours) / np.asarray(peers))


def median(values: "Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]") -> Ratio:
    """The median of repeated runs, [N]."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return Ratio(float(np.median(values)), float(low), float(high), len(values))
