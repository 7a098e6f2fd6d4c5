"""The figures of a model on held rows, gathered: from its answers to one object of numbers.

What each figure means is said in training/figures. After fusion.py; before train.py and compare/, which report them,
and evaluate_bundle.py, which shows all that can be said of one bundle.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcat.calibration import expected_calibration_error
from mmcat.taxonomy import Taxonomy
from training.figures.accuracy import exist, hierarchical_f1, level_accuracy, macro_f1, whole_path_right
from training.figures.answers import Answers
from training.figures.confidence import calibration_floor, risk_coverage_area
from training.figures.contest import kakao_score, never_absent

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures on one set of rows; all but `rows` in 0 … 1, except the contest's scores (at most 1.225).

    Args:
        path_accuracy: whole path right, stop included, by the best existing path.
        level_accuracy: per level, on rows that have it; None where none has.
        exists: share of answers that are a path of the taxonomy: 1 by the decode.
        kakao_score: the contest's weighted sum, levels the truth lacks skipped; an answer that stops early is wrong.
        kakao_score_never_absent: the same where the answer goes on below its stop with each level's likeliest class.
        kakao_score_expected: the same of the answers that expect most of the score (never served).
        macro_f1: mean over paths that have rows here.
        hierarchical_f1: over the nodes of the paths, ancestors included.
        ece: expected calibration error of the path probability (15 bins of equal mass).
        ece_floor: what a perfectly calibrated model would show on as many rows.
        risk_coverage_area: mean error over all coverages, surest rows first.
        argmax_path_accuracy: whole path right if each level answered alone (four argmaxes); None without level heads.
        argmax_exists: share of those four answers that are a path of the taxonomy.
    """

    rows: int
    path_accuracy: float
    level_accuracy: tuple[float | None, ...]
    exists: float
    kakao_score: float
    kakao_score_never_absent: float
    kakao_score_expected: float
    macro_f1: float
    hierarchical_f1: float
    ece: float
    ece_floor: float
    risk_coverage_area: float
    argmax_path_accuracy: float | None
    argmax_exists: float | None

    def to_json(self) -> dict[str, Any]:
        """Rounded to what thousands of rows can tell."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def measure_answers(answers: Answers, targets: Rows, taxonomy: Taxonomy) -> Metrics:
    """All figures of answers, whatever scored them.

    Args:
        answers: of N ≥ 1 rows.
        targets: [N] true taxonomy rows.
    """
    right = answers.rows == targets
    classes_N4, nodes_N4 = taxonomy.path_classes[answers.rows], taxonomy.path_nodes[answers.rows]
    accuracies = level_accuracy(classes_N4, targets, taxonomy)
    everywhere_N4 = never_absent(classes_N4, nodes_N4, answers.expected)
    alone_N4 = answers.alone
    return Metrics(
        rows=len(targets),
        path_accuracy=float(right.mean()),
        level_accuracy=accuracies,
        exists=float(exist(classes_N4, taxonomy).mean()),
        kakao_score=kakao_score(accuracies),
        kakao_score_never_absent=kakao_score(level_accuracy(everywhere_N4, targets, taxonomy)),
        kakao_score_expected=kakao_score(level_accuracy(answers.expected, targets, taxonomy)),
        macro_f1=macro_f1(answers.rows, targets),
        hierarchical_f1=hierarchical_f1(answers.rows, targets, taxonomy),
        ece=expected_calibration_error(answers.probabilities, right),
        ece_floor=calibration_floor(answers.probabilities),
        risk_coverage_area=risk_coverage_area(answers.probabilities, right),
        argmax_path_accuracy=(
            None if alone_N4 is None else float(whole_path_right(alone_N4, targets, taxonomy).mean())
        ),
        argmax_exists=None if alone_N4 is None else float(exist(alone_N4, taxonomy).mean()),
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return [_rounded(item) for item in value] if isinstance(value, tuple) else value
