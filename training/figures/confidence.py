"""How far probabilities can be relied on: calibration error and its floor, precision at a threshold, risk and coverage.

Every function takes the probability of the answered path and whether it was right, row by row. After answers.py; before
training.evaluate. The measure of calibration itself is mmcat.calibration's.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmcat.calibration import expected_calibration_error

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
BINS = 15
_DRAWS = 200  # simulated data sets behind a floor: its mean is then known to a twentieth of its own spread


def calibration_floor(probabilities: Floats, bins: int = BINS, seed: int = 0) -> float:
    """The expected calibration error that a perfectly calibrated model would show on as many rows, by chance alone.

    Draws whether each answer is right with the probability that the model gave it, many times over, and takes the mean.
    """
    generator = np.random.default_rng(seed)
    ordered = np.sort(probabilities)
    draws = [expected_calibration_error(ordered, generator.random(len(ordered)) < ordered, bins) for _ in range(_DRAWS)]
    return float(np.mean(draws))


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram: mean probability, share that is right, rows."""

    probability: float
    right: float
    rows: int


def reliability(probabilities: Floats, right: Bools, bins: int = BINS) -> list[Bin]:
    """Bins of equal mass, least probable first: the same that the calibration error is made of."""
    order = np.argsort(probabilities, kind="stable")
    return [
        Bin(float(probabilities[part].mean()), float(right[part].mean()), len(part))
        for part in np.array_split(order, bins)
        if len(part)
    ]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a threshold brings: the share of rows at or above it, and the precision there (None without such rows)."""

    threshold: float
    coverage: float
    precision: float | None


def threshold_for(probabilities: Floats, right: Bools, precision: float) -> float:
    """The smallest threshold at which the rows at or above it are right at least `precision` often; inf if none is.

    Plainly by counting, without a bound: fitted on one part, it may fall short of the precision on another. What is
    promised to users is mmcat.calibration's.
    """
    order = np.argsort(-probabilities, kind="stable")
    ordered = probabilities[order]
    precise = np.cumsum(right[order]) / np.arange(1, len(order) + 1) >= precision
    # A threshold takes all rows of its probability: only the last of equal ones is a candidate.
    last = np.append(np.diff(ordered) != 0, True)[: len(order)]
    candidates = np.flatnonzero(precise & last)
    return float(ordered[candidates[-1]]) if len(candidates) else math.inf


def accepted_at(threshold: float, probabilities: Floats, right: Bools) -> Accepted:
    """Coverage and precision of a threshold on rows that it was not fitted on."""
    above = probabilities >= threshold
    return Accepted(threshold, float(above.mean()), float(right[above].mean()) if above.any() else None)


def risk_coverage(probabilities: Floats, right: Bools) -> tuple[Floats, Floats]:
    """Coverage k / N and the error among the k surest rows, for k = 1 … N (El-Yaniv & Wiener 2010).

    Rows of equal probability share their mean error, so that the order of rows decides nothing.
    """
    _, inverse, counts = np.unique(-probabilities, return_inverse=True, return_counts=True)
    errors = (np.bincount(inverse, weights=~right) / counts)[np.sort(inverse)]
    ranks = np.arange(1, len(right) + 1)
    return ranks / len(right), np.cumsum(errors) / ranks


def risk_coverage_area(probabilities: Floats, right: Bools) -> float:
    """Area under the risk–coverage curve (AURC; Geifman et al. 2019): the mean risk over all coverages."""
    return float(risk_coverage(probabilities, right)[1].mean())
