"""What a promise may never do: claim more under a stricter one, grow bolder on less proof, skip a level."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcat.calibration import (
    NEVER,
    Bools,
    binomial_at_most,
    count_claims,
    fit_threshold,
    levels_by_threshold,
    safe_level,
    tuning_rows,
)
from mmcat.paths import Scores

ROWS = 600
UNHURRIED = settings(max_examples=30, deadline=None)  # the machine may be busy with other tests
rates = st.floats(0.01, 0.3)
confidences = st.floats(0.5, 0.99)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Scores, Bools]:
    """Marginals that never rise and nodes that are right down to some level, more often where they are likely."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sharp, honest = draw(st.floats(0.2, 8)), draw(st.floats(0.3, 1.2))
    marginals_N4 = np.cumprod(random.beta(sharp * 4, 1, (ROWS, 4)), axis=1).astype(np.float64)
    ends = random.integers(1, 5, ROWS)
    marginals_N4[np.arange(4) >= ends[:, None]] = 0.0
    right_N4 = (random.random((ROWS, 1)) < marginals_N4**honest) & (marginals_N4 > 0)
    return marginals_N4, right_N4


def fitted(marginals_N4: Scores, right_N4: Bools, tune: Bools, rate: float, confidence: float) -> float:
    return fit_threshold(marginals_N4, right_N4, tune, error_rate=rate, confidence=confidence)


@UNHURRIED
@given(answers(), rates, rates, confidences)
def test_a_looser_promise_is_never_shallower(
    drawn: tuple[Scores, Bools], rate: float, other: float, confidence: float
) -> None:
    strict, loose = sorted((rate, other))
    thresholds = [fitted(*drawn, tuning_rows(ROWS), each, confidence) for each in (strict, loose)]
    assert thresholds[0] >= thresholds[1]
    for marginals_4 in drawn[0][:20].tolist():
        assert safe_level(marginals_4, thresholds[0]) <= safe_level(marginals_4, thresholds[1])


@UNHURRIED
@given(answers(), rates, confidences, confidences)
def test_more_confidence_is_never_deeper(
    drawn: tuple[Scores, Bools], rate: float, confidence: float, other: float
) -> None:
    sure, unsure = sorted((confidence, other), reverse=True)
    assert fitted(*drawn, tuning_rows(ROWS), rate, sure) >= fitted(*drawn, tuning_rows(ROWS), rate, unsure)


@UNHURRIED
@given(answers(), rates, confidences, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_fewer_right_rows_never_make_a_threshold_bolder(
    drawn: tuple[Scores, Bools], rate: float, confidence: float, share: float, seed: int
) -> None:
    """Rows that are right at every level are proof; without some of them less can be promised."""
    marginals_N4, right_N4 = drawn
    tune = tuning_rows(ROWS)
    good = (right_N4 | (marginals_N4 == 0)).all(axis=1) & ~tune
    kept = ~(good & (np.random.default_rng(seed).random(ROWS) < share))
    fewer = fitted(marginals_N4[kept], right_N4[kept], tune[kept], rate, confidence)
    assert fewer >= fitted(marginals_N4, right_N4, tune, rate, confidence)


@UNHURRIED
@given(answers(), rates, st.floats(0.6, 0.99), st.integers(2, 4))
def test_the_same_figures_from_fewer_rows_are_never_bolder(
    drawn: tuple[Scores, Bools], rate: float, confidence: float, times: int
) -> None:
    marginals_N4, right_N4 = drawn
    tune = tuning_rows(ROWS)
    again = np.concatenate([np.flatnonzero(tune), *[np.flatnonzero(~tune)] * times])  # where tests begin stays
    many = fitted(marginals_N4[again], right_N4[again], tune[again], rate, confidence)
    assert fitted(marginals_N4, right_N4, tune, rate, confidence) >= many


@UNHURRIED
@given(answers(), st.lists(st.floats(0.01, 0.999), min_size=2, max_size=6))
def test_bolder_thresholds_claim_more_and_deeper(drawn: tuple[Scores, Bools], thresholds: list[float]) -> None:
    levels_GN = levels_by_threshold(drawn[0], np.array(sorted(thresholds, reverse=True)))
    assert (np.diff(levels_GN, axis=0) >= 0).all()
    claims_G, wrong_G = count_claims(levels_GN, drawn[1])
    assert (np.diff(claims_G) >= 0).all()
    assert (wrong_G <= claims_G).all()
    for row, marginals_4 in enumerate(drawn[0][:20].tolist()):
        alone = [safe_level(marginals_4, each) for each in sorted(thresholds, reverse=True)]
        assert alone == levels_GN[:, row].tolist()
    assert not levels_by_threshold(drawn[0], np.array([NEVER])).any()


@UNHURRIED
@given(st.integers(0, 60), st.integers(0, 200), st.floats(0.01, 0.4))
def test_the_binomial_tail_is_that_of_the_long_sum(successes: int, more: int, rate: float) -> None:
    trials = successes + more
    found = binomial_at_most(successes, trials, rate)
    chance = np.ones(1)
    for _ in range(trials):
        chance = np.convolve(chance, [1 - rate, rate])
    exact = float(chance[: successes + 1].sum())
    assert (abs(found - exact) < 1e-9) if successes < rate * trials + 1 else (found == 1.0 and exact >= 0.5)
