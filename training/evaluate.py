"""The figures of a model on held rows, from its logits: what each means is said once, here.

Every level is compared as classes (ids): level 3 is right where the answered id is the true one, whatever stands above.
The whole path is right where all levels and the stop are. After fusion.py; before train.py, which reports them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcat.calibration import expected_calibration_error
from mmcat.model import LEVEL_WEIGHTS
from mmcat.paths import PathIndex
from mmcat.taxonomy import LEVELS, Taxonomy

Rows = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures on one set of rows; all but `rows` in 0 … 1, except the contest's scores (at most 1.225).

    Args:
        path_accuracy: whole path right, stop included, by the best existing path.
        level_accuracy: per level, on rows that have it; None where none has.
        kakao_score: the contest's weighted sum, levels the truth lacks skipped; an answer that stops early is wrong.
        kakao_score_never_absent: the same where each level answers its best class that is no stop.
        macro_f1: mean over paths that have rows here.
        ece: expected calibration error of the path probability (15 bins of equal mass).
        argmax_path_accuracy: whole path right if each level answered alone (four argmaxes).
        argmax_exists: share of those four answers that are a path of the taxonomy; after decode it is 1.
    """

    rows: int
    path_accuracy: float
    level_accuracy: tuple[float | None, ...]
    kakao_score: float
    kakao_score_never_absent: float
    macro_f1: float
    ece: float
    argmax_path_accuracy: float
    argmax_exists: float

    def to_json(self) -> dict[str, Any]:
        """Rounded to what thousands of rows can tell."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def measure(
    level_logits: Sequence[npt.NDArray[np.floating[Any]]], targets: Rows, taxonomy: Taxonomy, temperature: float = 1.0
) -> Metrics:
    """Computes all figures.

    Args:
        level_logits: 4 × [N, C]; N ≥ 1.
        targets: [N] true taxonomy rows.
        temperature: of the path probability.
    """
    index = PathIndex(taxonomy)
    decoded = index.decode(index.scores(level_logits), temperature)
    answers = decoded.rows[:, 0]
    right = answers == targets
    true_N4 = taxonomy.path_classes[targets]
    there_N4 = _levels_there(taxonomy)[targets]
    level_right_N4 = taxonomy.path_classes[answers] == true_N4
    alone_N4, exists = argmax_paths(level_logits, taxonomy)
    no_stop_N4 = np.stack([_best_class(logits, level) for level, logits in enumerate(level_logits)], axis=1)
    accuracies = _level_accuracy(level_right_N4, there_N4)
    return Metrics(
        rows=len(targets),
        path_accuracy=float(right.mean()),
        level_accuracy=accuracies,
        kakao_score=kakao_score(accuracies),
        kakao_score_never_absent=kakao_score(_level_accuracy(no_stop_N4 == true_N4, there_N4)),
        macro_f1=macro_f1(answers, targets),
        ece=expected_calibration_error(decoded.probabilities[:, 0], right),
        argmax_path_accuracy=float(((alone_N4 == true_N4) | (true_N4 < 0)).all(axis=1).mean()),
        argmax_exists=float(exists.mean()),
    )


def argmax_paths(
    level_logits: Sequence[npt.NDArray[np.floating[Any]]], taxonomy: Taxonomy
) -> tuple[npt.NDArray[np.int64], Bools]:
    """Each level's own answer [N, 4], cut below its first stop as -1, and whether the taxonomy has that path [N]."""
    answers_N4 = np.stack([logits.argmax(axis=1) for logits in level_logits], axis=1)
    for level in range(1, LEVELS):
        # Level 1 has no stop, so its class 0 ends nothing.
        ended = (answers_N4[:, level - 1] < 0) | ((answers_N4[:, level - 1] == 0) & (level > 1))
        answers_N4[ended, level] = -1
    known = {tuple(classes) for classes in taxonomy.path_classes.tolist()}
    return answers_N4, np.array([tuple(answer) in known for answer in answers_N4.tolist()], np.bool_)


def kakao_score(level_accuracy: Sequence[float | None]) -> float:
    """(1.0 · b + 1.2 · m + 1.3 · s + 1.4 · d) / 4; a level that no row has adds nothing."""
    return sum(
        weight * accuracy
        for weight, accuracy in zip(LEVEL_WEIGHTS, level_accuracy, strict=True)
        if accuracy is not None
    ) / len(LEVEL_WEIGHTS)


def macro_f1(answers: npt.NDArray[Any], targets: npt.NDArray[Any]) -> float:
    """Mean F1 over the classes that `targets` has."""
    scores = []
    for value in np.unique(targets):
        both = int(((answers == value) & (targets == value)).sum())
        scores.append(2 * both / (int((answers == value).sum()) + int((targets == value).sum())))
    return float(np.mean(scores))


def _levels_there(taxonomy: Taxonomy) -> Bools:
    """[P, 4]: whether a path has the level (a stop is no level)."""
    there: Bools = taxonomy.path_nodes >= 0
    return there


def _level_accuracy(right_N4: Bools, there_N4: Bools) -> tuple[float | None, ...]:
    columns = [right_N4[there_N4[:, level], level] for level in range(LEVELS)]
    return tuple(float(column.mean()) if len(column) else None for column in columns)


def _best_class(logits_NC: npt.NDArray[np.floating[Any]], level: int) -> npt.NDArray[np.int64]:
    """The best class that is no stop (class 0 of levels 2 to 4); -2, never right, where there is only the stop."""
    first = 1 if level else 0
    if logits_NC.shape[1] == first:
        return np.full(len(logits_NC), -2, np.int64)
    best: npt.NDArray[np.int64] = logits_NC[:, first:].argmax(axis=1) + first
    return best


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return [_rounded(item) for item in value] if isinstance(value, tuple) else value
