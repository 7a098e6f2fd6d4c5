"""How far an answer can be relied on: a temperature, a threshold that keeps a promise, and the measure of both.

    calibration part ─┬─ a quarter ──> temperature (least NLL of the true path; Guo et al. 2017), where tests begin
                      └─ the rest ───> threshold: the boldest that keeps the promised error rate, by learn-then-test
    marginals of an answer ≥ threshold ──> safe_level 0..4; 0 goes to review

The rule has one parameter: of an answered path, the deepest node that is at least `threshold` probable is claimed. The
promise: with `confidence` over the draw of the calibration part, at most `error_rate` of the claims on fresh listings
of the same kind are not on the true path. Thresholds are tested from a cautious one to bolder ones, in an order fixed
before the tested rows are looked at, up to the first that fails: that costs no correction for looking at many
(fixed-sequence testing in Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then Test", 2021). docs/promise.md says it
in plain words, docs/decisions/0008-safe-level.md says why this rule.

Kept per modality ("both", "text" alone, "image" alone), because a listing without a photo is less sure. After paths.py;
before bundle.py (stores it) and categorizer.py (uses it). Pure numpy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from mmcat.errors import ModelError
from mmcat.paths import PathIndex, Rows, Scores, path_probabilities

Bools = npt.NDArray[np.bool_]
Levels = npt.NDArray[np.int64]
T = TypeVar("T", bound=np.generic)
Seen = Literal["both", "text", "image"]
SEEN: tuple[Seen, ...] = ("both", "text", "image")
NEVER = 2.0  # a threshold that no probability reaches: no promise is made
# The thresholds that are tested, cautious first: fixed, because one chosen by the tested rows could not be tested on
# them. Even steps of log-odds from .999994 to .018: finer ones decide less than calibration parts can tell.
GRID: Scores = 1 / (1 + np.exp(-np.arange(12.0, -4.05, -0.1)))
_TUNE = 4  # every fourth row chooses temperature and first threshold: two numbers need few rows, the promise needs many


@dataclass(frozen=True, slots=True)
class Calibration:
    """Temperatures and thresholds by what the model saw.

    Args:
        temperatures: by modality, > 0; "both" is required and stands in for the others.
        thresholds: by modality, on a node's marginal; NEVER, or none, where no promise can be kept.
        error_rate: the promise: share of claimed nodes that may be wrong.
        confidence: with which the promise holds, 0.5 or more.
    """

    temperatures: Mapping[Seen, float] = field(default_factory=lambda: {"both": 1.0})
    thresholds: Mapping[Seen, float] = field(default_factory=dict)
    error_rate: float = 0.02
    confidence: float = 0.9

    def __post_init__(self) -> None:
        if "both" not in self.temperatures:
            raise ModelError("a calibration needs at least the temperature for 'both'")
        if {*self.temperatures, *self.thresholds} - set(SEEN):
            raise ModelError(f"a calibration knows {', '.join(SEEN)} only")
        if not all(math.isfinite(value) and value > 0 for value in self.temperatures.values()):
            raise ModelError(f"temperatures must be positive: {dict(self.temperatures)}")
        if not all(value > 0 for value in self.thresholds.values()):  # NaN fails as well
            raise ModelError(f"thresholds must be positive: {dict(self.thresholds)}")
        if not (0 < self.error_rate < 1 and 0.5 <= self.confidence < 1):
            raise ModelError(f"out of range: error rate {self.error_rate}, confidence {self.confidence} (at least 0.5)")

    def temperature(self, seen: Seen | None) -> float:
        return self.temperatures.get(seen or "both", self.temperatures["both"])

    def threshold(self, seen: Seen | None) -> float:
        """NEVER for what was not tested, and for a listing of which nothing was seen."""
        return NEVER if seen is None else self.thresholds.get(seen, NEVER)

    def to_json(self) -> dict[str, Any]:
        return {
            "temperatures": dict(self.temperatures),
            "thresholds": dict(self.thresholds),
            "error_rate": self.error_rate,
            "confidence": self.confidence,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Calibration":
        """The inverse of `to_json`; a missing key or a value of another kind is a ModelError."""
        try:
            thresholds = {seen: float(value) for seen, value in data["thresholds"].items()}
            return cls(dict(data["temperatures"]), thresholds, float(data["error_rate"]), float(data["confidence"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"calibration cannot be read: {error!r}") from error


def seen_of(has_text: bool, has_image: bool) -> Seen | None:
    """The modality whose calibration holds; None for a listing with neither: its answer is the prior."""
    if has_text:
        return "both" if has_image else "text"
    return "image" if has_image else None


def safe_level(marginals: Sequence[float], threshold: float) -> int:
    """How deep the promise holds: the deepest level whose node, and every node above it, reaches the threshold.

    Args:
        marginals: of the answered path's nodes, level 1 first.
    """
    level = 0
    for marginal in marginals:
        if marginal < threshold:
            break
        level += 1
    return level


# ── Fitting, on the calibration part of one modality ─────────────────────────────────────────────────────────────────


def fit(
    scores_NP: Scores, target_rows: Rows, index: PathIndex, *, error_rate: float = 0.02, confidence: float = 0.9
) -> tuple[float, float]:
    """Fits temperature and threshold.

    Args:
        scores_NP: path scores of the calibration part (`PathIndex.scores`), rows in an order that means nothing.
        target_rows: [N] true taxonomy rows.

    Returns:
        temperature, threshold (NEVER where the promise cannot be kept).
    """
    tune = tuning_rows(len(target_rows))
    temperature = fit_temperature(scores_NP[tune], target_rows[tune])
    marginals_N4, right_N4 = answered(scores_NP, target_rows, index, temperature)
    return temperature, fit_threshold(marginals_N4, right_N4, tune, error_rate=error_rate, confidence=confidence)


def fit_threshold(marginals_N4: Scores, right_N4: Bools, tune: Bools, *, error_rate: float, confidence: float) -> float:
    """The boldest threshold that keeps the promise, or NEVER.

    Args:
        marginals_N4, right_N4: see `answered`, at a temperature that the rows to test had no part in.
        tune: [N] rows that only say where the test begins; the others are tested.
    """
    levels_GN = levels_by_threshold(marginals_N4)
    start = first_to_test(levels_GN[:, tune], marginals_N4[tune], right_N4[tune])
    claims_G, wrong_G = count_claims(levels_GN[:, ~tune], right_N4[~tune])
    last = learn_then_test(claims_G, wrong_G, start, error_rate=error_rate, confidence=confidence)
    return NEVER if last is None else float(GRID[last])


def tuning_rows(count: int) -> Bools:
    """[count]: the rows that choose temperature and first threshold; the others are tested."""
    chosen: Bools = np.arange(count) % _TUNE == 0
    return chosen


def fit_temperature(scores_NP: Scores, target_rows: Rows) -> float:
    """The temperature in 0.05 to 20 with the least mean negative log-probability of the true path; 1 without rows.

    Golden-section search over its logarithm: the loss is convex in 1 / temperature, so it has one valley.
    """
    if not len(target_rows):
        return 1.0
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


def answered(scores_NP: Scores, target_rows: Rows, index: PathIndex, temperature: float) -> tuple[Scores, Bools]:
    """Of the answered path's nodes: marginals [N, 4] (0 below its end), and whether each is on the true path [N, 4]."""
    decoded = index.decode(scores_NP, temperature)
    nodes_N4 = index.path_nodes[decoded.rows[:, 0]]
    right_N4 = (nodes_N4 == index.path_nodes[target_rows]) & (nodes_N4 >= 0)
    return decoded.marginals[:, 0], right_N4


def levels_by_threshold(marginals_N4: Scores, thresholds: Scores = GRID) -> Levels:
    """`safe_level` [G, N] of every row under each threshold."""
    levels_GN: Levels = (marginals_N4[None] >= thresholds[:, None, None]).sum(axis=2)  # marginals never rise
    return levels_GN


def count_claims(levels_GN: Levels, right_N4: Bools) -> tuple[Levels, Levels]:
    """Claims [G] (rows with a level above 0) and how many of them are wrong [G], under each rule of a sequence."""
    claimed_GN = levels_GN > 0
    return claimed_GN.sum(axis=1), (claimed_GN & ~_at_level(right_N4, levels_GN)).sum(axis=1)


def first_to_test(levels_GN: Levels, marginals_N4: Scores, right_N4: Bools) -> int:
    """Where the test begins: the rule with the lowest error rate on rows that are not tested, one more error counted.

    More cautious rules claim so little that no test could pass them. Errors are the mean of those seen and those that
    the marginals expect: few rows show none. It does not look at the promise, so that a looser promise is never kept
    more cautiously.
    """
    claims_G, wrong_G = count_claims(levels_GN, right_N4)
    expected_G = ((levels_GN > 0) * (1 - _at_level(marginals_N4, levels_GN))).sum(axis=1)
    return int(np.argmin(((wrong_G + expected_G) / 2 + 1) / (claims_G + 1)))


def _at_level(values_N4: npt.NDArray[T], levels_GN: Levels) -> npt.NDArray[T]:
    """[G, N]: each row's value at its safe level; at level 1 where it has none."""
    found: npt.NDArray[T] = values_N4[np.arange(len(values_N4)), np.maximum(levels_GN, 1) - 1]
    return found


def learn_then_test(
    claims_G: Levels, wrong_G: Levels, start: int, *, error_rate: float, confidence: float
) -> int | None:
    """The last rule of the sequence before the first that fails, from `start` on; None where that one fails.

    A rule passes where, were its true rate `error_rate`, so few of its claims would be wrong with a probability of at
    most 1 − confidence: exact, because given their number the errors among claims are binomial.
    """
    last = None
    for rule in range(start, len(claims_G)):
        if binomial_at_most(int(wrong_G[rule]), int(claims_G[rule]), error_rate) > 1 - confidence:
            break
        last = rule
    return last


def binomial_at_most(successes: int, trials: int, rate: float) -> float:
    """P(X ≤ successes) for X ~ Binomial(trials, rate); 1 for what lies above the mean, where it is at least a half."""
    if successes >= rate * trials + 1:
        return 1.0  # no confidence of a half or more is met: spares the long sum
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
