"""Each figure against a case small enough to count by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmcat.taxonomy import Taxonomy
from training.errors import DataError
from training.evaluate import measure_answers
from training.figures.accuracy import accuracy_by_training_rows, exist, hierarchical_f1, macro_f1
from training.figures.answers import answer_levels, answer_paths
from training.figures.confusions import where_answers_leave, worst_siblings
from training.figures.contest import kakao_score, level_ids, official_score, read_csv, write_csv
from training.figures.suspects import suspects

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
    answers = answer_levels(logits_for([classes_of(path) for path in targets]), TAXONOMY)
    metrics = measure_answers(answers, targets, TAXONOMY)
    ones = (metrics.path_accuracy, metrics.macro_f1, metrics.hierarchical_f1, metrics.exists, metrics.argmax_exists)
    assert ones == (1.0,) * 5
    assert metrics.argmax_path_accuracy == 1.0
    assert metrics.level_accuracy == (1.0, 1.0, 1.0, None)
    assert metrics.kakao_score == metrics.kakao_score_expected == pytest.approx((1.0 + 1.2 + 1.3) / 4)
    assert metrics.risk_coverage_area == 0.0


def test_an_answer_that_stops_early_is_wrong_where_stops_count_and_right_where_they_may_not_be_answered() -> None:
    rows = logits_for([classes_of(0)])
    rows[1][0, TAXONOMY.classes[1].index("x")] = 8.0  # second best
    metrics = measure_answers(answer_levels(rows, TAXONOMY), np.array([1]), TAXONOMY)
    assert metrics.path_accuracy == 0.0
    assert metrics.level_accuracy[:2] == (1.0, 0.0)
    assert metrics.kakao_score_never_absent == metrics.kakao_score_expected == pytest.approx((1.0 + 1.2) / 4)


def test_the_answer_for_the_contest_may_be_another_at_every_level() -> None:
    # b > x > y is likeliest (.4), but a is likelier than b (.35 + .25 against .4), and x stands under both.
    scores = np.log(np.array([[0.35, 0.25, 0.4, 1e-9]]))
    answers = answer_paths(scores, TAXONOMY)
    assert answers.rows.tolist() == [2]
    assert level_ids(answers.expected, TAXONOMY) == [("a", "x", "y", "-1")]
    metrics = measure_answers(answers, np.array([1]), TAXONOMY)
    assert metrics.kakao_score == pytest.approx(1.2 / 4)
    assert metrics.kakao_score_expected == pytest.approx((1.0 + 1.2) / 4)
    assert metrics.argmax_exists is None


def test_four_answers_of_their_own_may_be_no_path() -> None:
    level2 = TAXONOMY.classes[1]
    rows = logits_for([[0, level2.index("z"), 0, 0], classes_of(2)])  # a > z does not exist
    answers = answer_levels(rows, TAXONOMY)
    assert answers.alone is not None
    assert exist(answers.alone, TAXONOMY).tolist() == [False, True]
    assert answers.alone[0].tolist() == [0, level2.index("z"), 0, -1]
    assert exist(TAXONOMY.path_classes[answers.rows], TAXONOMY).all()


def test_levels_are_weighted_and_absent_ones_add_nothing() -> None:
    assert kakao_score((0.5, None, 1.0, 0.0)) == pytest.approx((0.5 + 1.3) / 4)


def test_macro_f1_is_over_the_paths_that_have_rows() -> None:
    # Path 0: one of two found, nothing wrongly added: F1 2/3. Path 1: found, with one wrongly added: 2/3.
    assert macro_f1(np.array([0, 1, 1]), np.array([0, 0, 1])) == pytest.approx(2 / 3)


def test_a_near_miss_costs_less_than_a_far_one() -> None:
    truth = np.array([2])  # b > x > y
    near, far = (hierarchical_f1(np.array([answer]), truth, TAXONOMY) for answer in (3, 1))
    assert near == pytest.approx(2 * 1 / (2 + 3))  # b is right of {b, b > z} and {b, b > x, b > x > y}
    assert far == 0.0  # a > x shares an id with it and no node


def test_the_tail_is_told_by_training_rows() -> None:
    right, targets = np.array([True, False, True]), np.array([0, 0, 1])
    found = accuracy_by_training_rows(right, targets, np.array([9, 10, 0, 0]), edges=(10, 30))
    assert found == [("under 10", 2, 0.5), ("10 to 29", 1, 1.0), ("30 and more", 0, None)]


def test_siblings_part_at_their_last_level_and_the_rest_is_told_by_where_it_leaves() -> None:
    answers, targets = np.array([1, 0, 2, 3, 2, 0]), np.array([0, 1, 3, 2, 1, 0])
    pairs = worst_siblings(answers, targets, np.linspace(0.9, 0.4, 6), TAXONOMY, 10)
    # b > z and b > x > y differ in two levels, a > x and b > x > y in three: neither are siblings.
    assert [(one.truth, one.answer, one.rows, one.share) for one in pairs] == [(0, 1, (0,), 0.5), (1, 0, (1,), 0.5)]
    left = where_answers_leave(answers, targets, TAXONOMY)
    assert {name: round(share * 6) for name, share in left.items() if share} == {
        "another node at level 1": 1, "another node at level 2": 2, "stops too early": 1, "goes on too deep": 1,
    }  # fmt: skip


def test_the_contests_csv_is_paired_by_id_and_not_by_position(tmp_path: Path) -> None:
    targets = np.array([0, 1, 2, 3])
    truth = dict(zip("pqrs", level_ids(TAXONOMY.path_classes[targets], TAXONOMY), strict=True))
    assert truth["p"] == ("a", "-1", "-1", "-1")
    write_csv(tmp_path / "answers.csv", list(truth)[::-1], list(truth.values())[::-1])
    assert (tmp_path / "answers.csv").read_text().startswith("pid,b,m,s,d\ns,b,z,-1,-1\n")
    score = official_score(read_csv(tmp_path / "answers.csv"), truth)
    answers = answer_levels(logits_for([classes_of(path) for path in targets]), TAXONOMY)
    metrics = measure_answers(answers, targets, TAXONOMY)
    assert score == pytest.approx(metrics.kakao_score)


def test_answers_to_other_products_or_twice_to_one_are_refused(tmp_path: Path) -> None:
    one = ("a", "-1", "-1", "-1")
    with pytest.raises(DataError, match="1 products have no answer and 1 answers no product"):
        official_score({"p": one}, {"q": one})
    write_csv(tmp_path / "twice.csv", ["p", "p"], [one, one])
    with pytest.raises(DataError, match="line 3"):
        read_csv(tmp_path / "twice.csv")
    (tmp_path / "other.csv").write_text("pid,path\n")
    with pytest.raises(DataError, match="header"):
        read_csv(tmp_path / "other.csv")


def test_a_label_that_the_other_groups_contradict_is_the_first_suspect() -> None:
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    true = np.arange(60) % 3
    matrix = (np.eye(3)[true] + generator.normal(size=(60, 3)) / 20).astype(np.float32)
    labels = true.copy()
    labels[7] = (labels[7] + 1) % 3
    labels[8] = 9  # a path that no other group has: it could not be answered, so nothing contradicts it

    def standardised(_: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda rows: matrix[rows]

    found = suspects(standardised, LogisticRegression, labels, np.arange(60), np.arange(60), 10)
    assert [one.row for one in found] == [7]
    assert found[0].answer == true[7]
    without = suspects(standardised, LogisticRegression, labels, np.arange(20, 60), np.arange(20, 60), 10)
    assert not without
