"""The figures against slow references that are obviously right, and the statistics against what they promise."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcat.calibration import expected_calibration_error
from mmcat.paths import path_probabilities
from mmcat.taxonomy import LEVELS, STOP, Taxonomy
from training.figures.accuracy import exist, hierarchical_f1, level_accuracy, macro_f1
from training.figures.answers import answer_levels, answer_paths
from training.figures.bootstrap import POWER_FACTOR, mean_interval, over_seeds, paired_difference
from training.figures.confidence import (
    accepted_at,
    calibration_floor,
    reliability,
    risk_coverage,
    risk_coverage_area,
    threshold_for,
)

PATHS = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple), min_size=1, max_size=9, unique=True
)
Rows, Floats = npt.NDArray[np.int64], npt.NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)


def drawn(
    paths: list[tuple[str, ...]], seed: int, rows: int = 12
) -> tuple[Taxonomy, npt.NDArray[np.int64], np.ndarray]:
    """A taxonomy, truths and path scores."""
    generator = np.random.default_rng(seed)
    taxonomy = Taxonomy.from_names(paths)
    targets = generator.integers(0, len(taxonomy), rows)
    return taxonomy, targets, generator.normal(size=(rows, len(taxonomy))) * 2


def ids_of(taxonomy: Taxonomy, path: int) -> list[str]:
    ids = [node.id for node in taxonomy.paths[path]]
    return ids + [STOP] * (LEVELS - len(ids))


@given(PATHS, SEEDS)
def test_figures_of_paths_are_those_of_counting_one_by_one(paths: list[tuple[str, ...]], seed: int) -> None:
    taxonomy, targets, scores = drawn(paths, seed)
    answers = answer_paths(scores, taxonomy).rows
    answered, true = ([ids_of(taxonomy, row) for row in rows.tolist()] for rows in (answers, targets))
    for level, found in enumerate(level_accuracy(taxonomy.path_classes[answers], targets, taxonomy)):
        hits = [a[level] == t[level] for a, t in zip(answered, true, strict=True) if t[level] != STOP]
        assert found == (pytest.approx(sum(hits) / len(hits)) if hits else None)
    ancestors = [
        tuple({tuple(ids[:depth]) for depth in range(1, LEVELS + 1) if ids[depth - 1] != STOP} for ids in pair)
        for pair in zip(answered, true, strict=True)
    ]
    precision = sum(len(a & t) for a, t in ancestors) / sum(len(a) for a, _ in ancestors)
    recall = sum(len(a & t) for a, t in ancestors) / sum(len(t) for _, t in ancestors)
    expected = 2 * precision * recall / (precision + recall) if precision else 0.0
    assert hierarchical_f1(answers, targets, taxonomy) == pytest.approx(expected)
    f1 = []
    for path in set(targets.tolist()):
        hit = sum((answers == path) & (targets == path))
        f1.append(2 * hit / (sum(answers == path) + sum(targets == path)))
    assert macro_f1(answers, targets) == pytest.approx(np.mean(f1))
    assert exist(taxonomy.path_classes[answers], taxonomy).all()


@given(PATHS, SEEDS)
def test_no_other_answer_expects_more_of_the_contests_score(paths: list[tuple[str, ...]], seed: int) -> None:
    taxonomy, _, scores = drawn(paths, seed, rows=3)
    answers = answer_paths(scores, taxonomy)
    for probabilities, classes in zip(path_probabilities(scores), answers.expected.tolist(), strict=True):
        for level in range(LEVELS):
            expected = dict.fromkeys((key for key in taxonomy.classes[level] if key != STOP), 0.0)
            for path, probability in enumerate(probabilities):
                if ids_of(taxonomy, path)[level] != STOP:
                    expected[ids_of(taxonomy, path)[level]] += probability
            chosen = taxonomy.classes[level][classes[level]] if classes[level] >= 0 else None
            assert (chosen is None) == (not expected)
            if chosen is not None:
                assert expected[chosen] == pytest.approx(max(expected.values()))


@given(PATHS, SEEDS)
def test_answers_do_not_depend_on_how_rows_are_parted(paths: list[tuple[str, ...]], seed: int) -> None:
    generator = np.random.default_rng(seed)
    taxonomy = Taxonomy.from_names(paths)
    logits = [generator.normal(size=(5, len(classes))) for classes in taxonomy.classes]
    whole = answer_levels(logits, taxonomy)
    parts = [answer_levels([one[[row]] for one in logits], taxonomy) for row in range(5)]
    joined = whole.join(parts, 5)
    assert (joined.rows == whole.rows).all()
    assert (joined.expected == whole.expected).all()
    np.testing.assert_allclose(joined.probabilities, whole.probabilities)


ANSWERS = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.5001, 0.8, 0.9, 1.0]), st.booleans()), min_size=1)


@given(ANSWERS, st.sampled_from([0.5, 0.75, 0.9, 0.98]))
def test_a_threshold_accepts_as_much_as_any_that_is_precise_enough(
    answers: list[tuple[float, bool]], precision: float
) -> None:
    probabilities, right = (np.array(column) for column in zip(*answers, strict=True))
    found = accepted_at(threshold_for(probabilities, right, precision), probabilities, right)
    precise = [t for t in set(probabilities) if right[probabilities >= t].mean() >= precision]
    assert found.coverage == max([(probabilities >= t).mean() for t in precise], default=0.0)
    assert found.precision is None or found.precision >= precision


@given(ANSWERS, SEEDS)
def test_risk_and_coverage_do_not_depend_on_the_order_of_rows(answers: list[tuple[float, bool]], seed: int) -> None:
    probabilities, right = (np.array(column) for column in zip(*answers, strict=True))
    coverage, risk = risk_coverage(probabilities, right)
    assert coverage[-1] == 1.0
    assert risk[-1] == pytest.approx(1 - right.mean())
    for threshold in set(probabilities):  # where a threshold can cut, the curve is what it says
        above = probabilities >= threshold
        assert risk[above.sum() - 1] == pytest.approx(1 - right[above].mean())
    order = np.random.default_rng(seed).permutation(len(right))
    assert risk_coverage_area(probabilities[order], right[order]) == pytest.approx(
        risk_coverage_area(probabilities, right)
    )


@given(ANSWERS)
def test_the_diagram_shows_what_the_calibration_error_sums(answers: list[tuple[float, bool]]) -> None:
    probabilities, right = (np.array(column) for column in zip(*answers, strict=True))
    bars = reliability(probabilities, right)
    assert sum(bar.rows for bar in bars) == len(right)
    summed = sum(bar.rows * abs(bar.probability - bar.right) for bar in bars) / len(right)
    assert summed == pytest.approx(expected_calibration_error(probabilities, right))


def test_the_floor_falls_to_nothing_with_rows_and_a_calibrated_model_stands_on_it() -> None:
    generator = np.random.default_rng(0)
    few, many = generator.random(200), generator.random(40_000)
    assert calibration_floor(many) < 0.01 < calibration_floor(few)
    assert calibration_floor(few) == calibration_floor(few)
    errors = [expected_calibration_error(few, generator.random(200) < few) for _ in range(200)]
    assert np.mean(errors) == pytest.approx(calibration_floor(few), rel=0.1)
    assert expected_calibration_error(few, generator.random(200) < few**3) > 2 * calibration_floor(few)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-1.0, 0.0, 0.2, 1.0])), min_size=1, max_size=20))
@settings(max_examples=15)
def test_the_bootstrap_is_that_of_drawing_groups_one_by_one(rows: list[tuple[int, float]]) -> None:
    groups, values = (np.array(column) for column in zip(*rows, strict=True))
    found = mean_interval(values, groups)
    generator = np.random.default_rng(1)
    parts = [values[groups == group] for group in np.unique(groups)]
    means = [
        np.concatenate([parts[place] for place in generator.integers(0, len(parts), len(parts))]).mean()
        for _ in range(1_000)
    ]
    assert found.value == pytest.approx(values.mean())
    assert found.smallest / POWER_FACTOR == pytest.approx(np.std(means), rel=0.15, abs=1e-9)


def test_the_interval_holds_the_truth_as_often_as_it_says_and_only_where_groups_are_drawn() -> None:
    generator = np.random.default_rng(2)
    groups = np.repeat(np.arange(120), 4)
    held = {"groups": 0, "rows": 0}
    for _ in range(150):
        # Rows of a group are right together most of the time; both models have the same true accuracy.
        ours, theirs = (
            np.where(
                generator.random(480) < 0.8, np.repeat(generator.random(120) < 0.6, 4), generator.random(480) < 0.6
            )
            for _ in range(2)
        )
        for name, labels in (("groups", groups), ("rows", np.arange(480))):
            found = paired_difference([ours], [theirs], labels, seed=3)
            held[name] += found.low <= 0 <= found.high
    assert 0.9 <= held["groups"] / 150 <= 0.99
    assert held["rows"] / 150 < 0.85


def test_the_smallest_difference_is_found_four_times_in_five() -> None:
    generator = np.random.default_rng(4)
    smallest = paired_difference([generator.random(900) < 0.6], [generator.random(900) < 0.6], np.arange(900)).smallest
    found = [
        paired_difference(
            [generator.random(900) < 0.6 + smallest / 2], [generator.random(900) < 0.6 - smallest / 2], np.arange(900)
        ).above_zero
        for _ in range(200)
    ]
    assert 0.7 <= np.mean(found) <= 0.9


def test_seeds_are_averaged_row_by_row() -> None:
    ours = [np.array([True, False]), np.array([True, True])]
    theirs = [np.array([False, False]), np.array([True, False])]
    found = paired_difference(ours, theirs, np.array(["g", "h"]))
    assert found.value == pytest.approx(0.5)  # rows (1, .5) against (.5, 0): .5 each, so nothing is left to luck
    assert (found.low, found.high) == (0.5, 0.5)
    assert not mean_interval(np.array([0.0, 0.0]), np.array([1, 2])).above_zero
    assert over_seeds([0.1, 0.3]) == pytest.approx((0.2, 0.1 * 2**0.5))
    assert over_seeds([0.5]) == (0.5, 0.0)
