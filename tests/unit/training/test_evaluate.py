"""Each figure against a case small enough to count by hand."""

import numpy as np
import pytest

from mmcat.taxonomy import Taxonomy
from training.evaluate import argmax_paths, kakao_score, macro_f1, measure

TAXONOMY = Taxonomy.from_names([("a",), ("a", "x"), ("b", "x", "y"), ("b", "z")])


def logits_for(rows: list[list[int]]) -> list[np.ndarray]:
    """Logits whose argmax per level are these classes."""
    return [
        np.eye(len(classes), dtype=np.float32)[[row[level] for row in rows]] * 9
        for level, classes in enumerate(TAXONOMY.classes)
    ]


def classes_of(path: int) -> list[int]:
    return [max(0, value) for value in TAXONOMY.path_classes[path].tolist()]


def test_sure_and_right_answers_score_all_there_is() -> None:
    targets = np.array([0, 1, 2, 3])
    metrics = measure(logits_for([classes_of(path) for path in targets]), targets, TAXONOMY)
    assert metrics.path_accuracy == metrics.argmax_path_accuracy == metrics.argmax_exists == metrics.macro_f1 == 1.0
    assert metrics.level_accuracy == (1.0, 1.0, 1.0, None)
    assert metrics.kakao_score == pytest.approx((1.0 + 1.2 + 1.3) / 4)


def test_an_answer_that_stops_early_is_wrong_where_stops_count_and_right_where_they_may_not_be_answered() -> None:
    rows = logits_for([classes_of(0)])
    rows[1][0, TAXONOMY.classes[1].index("x")] = 8.0  # second best
    metrics = measure(rows, np.array([1]), TAXONOMY)
    assert metrics.path_accuracy == 0.0
    assert metrics.level_accuracy[:2] == (1.0, 0.0)
    assert metrics.kakao_score_never_absent == pytest.approx((1.0 + 1.2) / 4)


def test_four_answers_of_their_own_may_be_no_path() -> None:
    level2 = TAXONOMY.classes[1]
    rows = logits_for([[0, level2.index("z"), 0, 0], classes_of(2)])  # a > z does not exist
    answers, exist = argmax_paths(rows, TAXONOMY)
    assert exist.tolist() == [False, True]
    assert answers[0].tolist() == [0, level2.index("z"), 0, -1]


def test_levels_are_weighted_and_absent_ones_add_nothing() -> None:
    assert kakao_score((0.5, None, 1.0, 0.0)) == pytest.approx((0.5 + 1.3) / 4)


def test_macro_f1_is_over_the_paths_that_have_rows() -> None:
    # Path 0: one of two found, nothing wrongly added: F1 2/3. Path 1: found, with one wrongly added: 2/3.
    assert macro_f1(np.array([0, 1, 1]), np.array([0, 0, 1])) == pytest.approx(2 / 3)
