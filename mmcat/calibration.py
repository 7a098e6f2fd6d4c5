"""How far an answer can be relied on: one temperature, one acceptance threshold per level, and the measure of both.

    held-out scores ──> temperature (least NLL of the true path; Guo et al. 2017)
                    └─> thresholds  (per level: the smallest marginal above which the error stays within the promise)
    marginals of an answer + thresholds ──> safe_level 0..4; 0 goes to review

Kept per modality ("both", "text" alone, "image" alone), because a listing without a photo is less sure; where one is
not fitted, "both" stands in. After paths.py; before bundle.py (stores it) and categorizer.py (uses it). Pure numpy.

A first cut, said plainly: each candidate threshold is tested alone at the given confidence, without correcting for
having looked at many, so the promise is slightly optimistic on small calibration parts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmcat.errors import ModelError
from mmcat.paths import PathIndex, Rows, Scores, path_probabilities
from mmcat.taxonomy import LEVELS

Seen = Literal["both", "text", "image"]
SEEN: tuple[Seen, ...] = ("both", "text", "image")
NEVER = 2.0  # a threshold that no probability reaches: the promise cannot be kept at this level
_CANDIDATES = 1_000  # thresholds tried per level: finer steps than 0.1 % of the rows decide nothing


@dataclass(frozen=True, slots=True)
class Calibration:
    """Temperatures and thresholds by what the model saw.

    Args:
        temperatures: by modality, > 0; "both" is required.
        thresholds: by modality, of levels 1 to 4, on the node's marginal; NEVER where the promise cannot be kept.
        error_rate: the promise: share of accepted nodes that may be wrong.
        confidence: with which each threshold was tested.
    """

    temperatures: Mapping[Seen, float] = field(default_factory=lambda: {"both": 1.0})
    thresholds: Mapping[Seen, tuple[float, ...]] = field(default_factory=lambda: {"both": (NEVER,) * LEVELS})
    error_rate: float = 0.02
    confidence: float = 0.9

    def __post_init__(self) -> None:
        if "both" not in self.temperatures or "both" not in self.thresholds:
            raise ModelError("a calibration needs at least the values for 'both'")
        if {*self.temperatures, *self.thresholds} - set(SEEN):
            raise ModelError(f"a calibration knows {', '.join(SEEN)} only")
        if not all(math.isfinite(value) and value > 0 for value in self.temperatures.values()):
            raise ModelError(f"temperatures must be positive: {dict(self.temperatures)}")
        if any(len(values) != LEVELS or not all(value >= 0 for value in values) for values in self.thresholds.values()):
            raise ModelError(f"thresholds must be {LEVELS} numbers ≥ 0 each: {dict(self.thresholds)}")

    def temperature(self, seen: Seen) -> float:
        return self.temperatures.get(seen, self.temperatures["both"])

    def threshold(self, seen: Seen) -> tuple[float, ...]:
        return self.thresholds.get(seen, self.thresholds["both"])

    def to_json(self) -> dict[str, Any]:
        return {
            "temperatures": dict(self.temperatures),
            "thresholds": {seen: list(values) for seen, values in self.thresholds.items()},
            "error_rate": self.error_rate,
            "confidence": self.confidence,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Calibration":
        """The inverse of `to_json`; a missing or unknown key is a ModelError."""
        try:
            thresholds = {seen: tuple(map(float, values)) for seen, values in data["thresholds"].items()}
            return cls(dict(data["temperatures"]), thresholds, float(data["error_rate"]), float(data["confidence"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"calibration cannot be read: {error!r}") from error


def seen_of(has_text: bool, has_image: bool) -> Seen:
    """The modality whose calibration holds; a listing with neither counts as the weaker: "text"."""
    return ("both" if has_text else "image") if has_image else "text"


def safe_level(marginals: Sequence[float], thresholds: Sequence[float]) -> int:
    """How deep the promise holds: the deepest level whose node, and every node above it, passes its threshold.

    Args:
        marginals: of the answered path's nodes, level 1 first.
    """
    level = 0
    for marginal, threshold in zip(marginals, thresholds, strict=False):  # a path may be shorter than four levels
        if marginal < threshold:
            break
        level += 1
    return level


def fit(
    scores_NP: Scores, target_rows: Rows, index: PathIndex, *, error_rate: float = 0.02, confidence: float = 0.9
) -> tuple[float, tuple[float, ...]]:
    """Fits temperature and thresholds on held-out rows of one modality.

    Args:
        scores_NP: path scores of the calibration part (`PathIndex.scores`).
        target_rows: [N] true taxonomy rows.

    Returns:
        temperature, thresholds of levels 1 to 4.
    """
    temperature = fit_temperature(scores_NP, target_rows)
    decoded = index.decode(scores_NP, temperature)
    answered_N4 = index.path_nodes[decoded.rows[:, 0]]
    right_N4 = (answered_N4 == index.path_nodes[target_rows]) & (answered_N4 >= 0)
    thresholds = tuple(
        fit_threshold(
            decoded.marginals[there, 0, level], right_N4[there, level], error_rate=error_rate, confidence=confidence
        )
        for level in range(LEVELS)
        for there in [answered_N4[:, level] >= 0]
    )
    return temperature, thresholds


def fit_temperature(scores_NP: Scores, target_rows: Rows) -> float:
    """The temperature in 0.05 to 20 with the least mean negative log-probability of the true path.

    Golden-section search over its logarithm: the loss is convex in 1 / temperature, so it has one valley.
    """
    rows = np.arange(len(target_rows))

    def nll(log_temperature: float) -> float:
        probabilities_NP = path_probabilities(scores_NP, math.exp(log_temperature))
        return float(-np.log(np.maximum(probabilities_NP[rows, target_rows], 1e-300)).mean())

    low, high = math.log(0.05), math.log(20.0)
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    nll_left, nll_right = nll(left), nll(right)
    while high - low > 1e-4:
        if nll_left < nll_right:
            high, right, nll_right = right, left, nll_left
            left = high - golden * (high - low)
            nll_left = nll(left)
        else:
            low, left, nll_left = left, right, nll_right
            right = low + golden * (high - low)
            nll_right = nll(right)
    return math.exp((low + high) / 2)


def fit_threshold(
    marginals: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], *, error_rate: float, confidence: float
) -> float:
    """The smallest threshold above which the error is within the promise; NEVER if there is none.

    Within the promise: were the true rate `error_rate`, so few errors would be seen with at most 1 − confidence
    probability (the exact binomial test behind the Clopper-Pearson bound).

    Args:
        marginals: [N] of the answered node, rows that answer this level only.
        right: [N] whether the true path goes through that node.
    """
    if not len(marginals):
        return NEVER
    order = np.argsort(-marginals, kind="stable")
    marginals, wrong = marginals[order], np.cumsum(~right[order])
    # A threshold holds all rows with its marginal: only the last row of equal ones is a candidate.
    ends = np.flatnonzero(np.append(np.diff(marginals) != 0, True))
    step = max(1, math.ceil(len(ends) / _CANDIDATES))
    best = NEVER
    for end in ends[::-1][::step]:
        if _binomial_at_most(int(wrong[end]), int(end) + 1, error_rate) <= 1 - confidence:
            best = float(marginals[end])
            break
    return best


def _binomial_at_most(successes: int, trials: int, rate: float) -> float:
    """P(X ≤ successes) for X ~ Binomial(trials, rate)."""
    if successes >= rate * trials + 1:
        return 1.0  # above the mean: at least a half, so no confidence above 50 % is met; spares the long sum
    terms = [
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(rate)
        + (trials - k) * math.log1p(-rate)
        for k in range(successes + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, terms)))


def expected_calibration_error(
    probabilities: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], bins: int = 15
) -> float:
    """Mean distance of confidence from accuracy over bins of equal mass (Nixon et al. 2019).

    Args:
        probabilities: [N] of the answered path.
        right: [N] whether the whole path is right.
    """
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [len(part) * abs(float(probabilities[part].mean()) - float(right[part].mean())) for part in parts]
    return sum(gaps) / max(1, len(order))
