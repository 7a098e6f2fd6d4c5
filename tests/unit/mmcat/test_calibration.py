"""The temperature undoes over-confidence, the threshold keeps its promise on fresh listings, levels have no gap."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from mmcat.calibration import (
    GRID,
    NEVER,
    Calibration,
    answered,
    count_claims,
    expected_calibration_error,
    fit,
    fit_temperature,
    fit_threshold,
    learn_then_test,
    safe_level,
    seen_of,
    tuning_rows,
)
from mmcat.errors import ModelError
from mmcat.paths import PathIndex, Rows, Scores, path_probabilities
from tests.benchmarks.safe_level_proof import Part, prove
from tests.support.tiny import tiny_taxonomy

TAXONOMY = tiny_taxonomy()
INDEX = PathIndex(TAXONOMY)


def _draw(count: int, seed: int, sharpness: float = 3.0) -> tuple[Scores, Rows]:
    """Scores of a model that is calibrated at temperature 1, and truths drawn from what it says."""
    random = np.random.default_rng(seed)
    scores = np.log(path_probabilities(random.normal(size=(count, len(TAXONOMY))) * sharpness))
    probabilities = path_probabilities(scores)
    truths = (probabilities.cumsum(axis=1) < random.uniform(size=(count, 1))).sum(axis=1)
    return scores, np.minimum(truths, len(TAXONOMY) - 1)


def _threshold(marginals: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], error_rate: float = 0.02) -> float:
    """Fitted on answers of one level."""
    marginals_N4, right_N4 = np.zeros((len(right), 4)), np.zeros((len(right), 4), bool)
    marginals_N4[:, 0], right_N4[:, 0] = marginals, right
    return fit_threshold(marginals_N4, right_N4, tuning_rows(len(right)), error_rate=error_rate, confidence=0.9)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_was_there_is_found(temperature: float) -> None:
    scores, truths = _draw(6_000, seed=0)
    assert fit_temperature(scores * temperature, truths) == pytest.approx(temperature, rel=0.08)


def test_the_temperature_has_the_least_loss_of_all() -> None:
    scores, truths = _draw(500, seed=1)

    def nll(temperature: float) -> float:
        return float(-np.log(path_probabilities(scores * 3, temperature)[np.arange(500), truths]).mean())

    best = nll(fit_temperature(scores * 3, truths))
    assert all(best <= nll(t) + 1e-9 for t in np.geomspace(0.06, 19, 60))


def test_calibration_lowers_the_expected_calibration_error() -> None:
    scores, truths = _draw(6_000, seed=2)
    scores = scores * 4

    def error(temperature: float) -> float:
        decoded = INDEX.decode(scores, temperature)
        return expected_calibration_error(decoded.probabilities[:, 0], decoded.rows[:, 0] == truths)

    assert error(1.0) > 0.1
    assert error(fit_temperature(scores, truths)) < 0.03


def test_the_promise_holds_on_fresh_listings_deeper_and_with_less_review_than_one_threshold_on_the_path() -> None:
    pool, fresh = Part(*_draw(20_000, seed=3, sharpness=5.0)), Part(*_draw(6_000, seed=4, sharpness=5.0))
    promise = {"error_rate": 0.05, "confidence": 0.9}
    served, rival = prove(pool, fresh, INDEX, seen="both", draws=100, rows=960, **promise)
    assert served.kept >= served.needed
    assert served.kept < 1  # kept in every draw, it could be promised deeper
    assert served.depth > rival.depth
    assert served.review < rival.review < 0.9
    assert served.silent < 0.1


def test_a_threshold_is_the_boldest_that_keeps_the_promise() -> None:
    marginals = np.linspace(1.0, 0.0, 4_000)
    right = marginals >= 0.5
    threshold = _threshold(marginals, right, error_rate=0.02)
    bolder = GRID[threshold > GRID][0]
    assert (~right[marginals >= threshold]).mean() <= 0.02
    assert (~right[marginals >= bolder]).mean() > 0.02


@pytest.mark.parametrize(("count", "reached"), [(113, False), (114, True)])
def test_too_few_rows_prove_nothing(count: int, reached: bool) -> None:
    # With no error at all, 0.98 ** n ≤ 0.1 needs n ≥ 114 (Clopper-Pearson).
    found = learn_then_test(np.array([count]), np.array([0]), 0, error_rate=0.02, confidence=0.9)
    assert (found == 0) == reached


def test_the_test_stops_at_the_first_rule_that_fails() -> None:
    claims, wrong = np.array([50, 400, 500, 600, 5_000]), np.array([0, 1, 20, 1, 1])
    assert learn_then_test(claims, wrong, 1, error_rate=0.02, confidence=0.9) == 1
    assert learn_then_test(claims, wrong, 0, error_rate=0.02, confidence=0.9) is None
    assert learn_then_test(claims, wrong, 3, error_rate=0.02, confidence=0.9) == 4


def test_the_rows_that_choose_where_to_begin_are_not_tested() -> None:
    marginals, right = np.full(1_000, 0.9), np.ones(1_000, bool)
    tune = tuning_rows(1_000)
    right[tune] = False  # were they tested, a quarter of all claims would be wrong
    assert _threshold(marginals, right) <= 0.9
    right[:] = True
    right[~tune] = False
    assert _threshold(marginals, right) == NEVER


def test_the_temperature_is_fitted_on_rows_that_are_not_tested() -> None:
    scores, truths = _draw(4_000, seed=5)
    tune = tuning_rows(len(truths))
    temperature, _ = fit(scores, truths, INDEX)
    assert temperature == fit_temperature(scores[tune], truths[tune])


def test_rows_of_equal_marginal_stand_or_fall_together() -> None:
    right: npt.NDArray[np.bool_] = np.arange(1_000) < 500
    assert _threshold(np.full(1_000, 0.7), right) == NEVER


def test_no_rows_no_promise() -> None:
    assert fit(np.zeros((0, len(TAXONOMY))), np.zeros(0, np.int64), INDEX) == (1.0, NEVER)


def test_an_answered_node_counts_as_right_only_on_the_true_path() -> None:
    # Truth stops at `shoes`; the answer goes on to `boots`: right on levels 1 and 2, wrong on 3, silent on 4.
    truth, answer = TAXONOMY.index(["fashion", "shoes"]), TAXONOMY.index(["fashion", "shoes", "boots"])
    scores = np.full((400, len(TAXONOMY)), -20.0)
    scores[:, answer] = 0.0
    _, right_N4 = answered(scores, np.full(400, truth), INDEX, 1.0)
    assert right_N4.tolist() == [[True, True, False, False]] * 400


def test_a_claim_is_wrong_where_its_own_level_is_wrong() -> None:
    levels = np.array([[0, 1, 2, 3, 4]] * 2)
    right = np.array([[False] * 4, [True] * 4, [True, False, False, False], [True, True, True, False], [True] * 4])
    claims, wrong = count_claims(levels, right)
    assert (claims.tolist(), wrong.tolist()) == ([4, 4], [1, 1])


@pytest.mark.parametrize(
    ("marginals", "level"),
    [([], 0), ([0.5], 0), ([0.9], 1), ([0.9, 0.9, 0.9, 0.9], 4), ([0.9, 0.7, 0.9, 0.9], 1), ([0.8, 0.8, 0.1], 2)],
)
def test_safe_levels_have_no_gap(marginals: list[float], level: int) -> None:
    assert safe_level(marginals, 0.8) == level


def test_what_never_passes_never_passes() -> None:
    assert safe_level([1.0, 1.0], NEVER) == 0


def test_each_modality_has_its_place_and_a_promise_that_was_not_tested_is_not_made() -> None:
    calibration = Calibration({"both": 1.5, "text": 2.0}, {"both": 0.1, "image": 0.2})
    pairs = [(True, True), (True, False), (False, True), (False, False)]
    seen = [seen_of(*pair) for pair in pairs]
    assert seen == ["both", "text", "image", None]
    assert [calibration.temperature(one) for one in seen] == [1.5, 2.0, 1.5, 1.5]
    assert [calibration.threshold(one) for one in seen] == [0.1, NEVER, 0.2, NEVER]


def test_a_calibration_survives_json() -> None:
    calibration = Calibration({"both": 1.5, "text": 2.0}, {"both": 0.1, "image": NEVER}, 0.05, 0.95)
    assert Calibration.from_json(calibration.to_json()) == calibration


@pytest.mark.parametrize(
    "change",
    [
        {"temperatures": {"text": 1.0}},
        {"temperatures": {"both": 0.0}},
        {"temperatures": {"both": math.inf}},
        {"temperatures": {"both": 1.0, "sound": 1.0}},
        {"thresholds": {"both": [0.1, 0.1, 0.1, 0.1]}},
        {"thresholds": {"both": math.nan}},
        {"thresholds": {"both": 0.0}},
        {"thresholds": {"sound": 0.5}},
        {"thresholds": 3},
        {"error_rate": "small"},
        {"error_rate": 0.0},
        {"confidence": 0.4},
    ],
)
def test_a_calibration_out_of_range_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        Calibration.from_json({**Calibration().to_json(), **change})


def test_the_calibration_error_of_known_gaps() -> None:
    probabilities = np.repeat([0.2, 0.8], 150)
    right = np.concatenate([np.arange(150) < 60, np.arange(150) < 120])  # .4 and .8 right
    assert expected_calibration_error(probabilities, right, bins=2) == pytest.approx(0.1)
    assert expected_calibration_error(np.zeros(0), np.zeros(0, bool)) == 0.0
