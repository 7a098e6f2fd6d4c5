"""The Kakao Arena contest: its score, answers made for it alone, and its CSV `pid,b,m,s,d`.

    score = (1.0 · b + 1.2 · m + 1.3 · s + 1.4 · d) / 4, each the share of right ids among the rows that have the level

A row whose true level is absent is skipped there, so that answering "absent" never pays: the contest rewards guesses
below the stop that a shop would call wrong. Hence two readings, and a decode for the score alone, which is never
served: as the score is a sum over levels, the answer that expects most of it is each level's likeliest class that is no
stop, whatever the other levels answer. After answers' path probabilities; pairs rows by id, never by position.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmcat.model import LEVEL_WEIGHTS
from mmcat.taxonomy import LEVELS, STOP, Taxonomy
from training.errors import DataError

Rows = npt.NDArray[np.int64]
HEADER = ("pid", "b", "m", "s", "d")
ABSENT = "-1"  # the contest's sign for a level that is not there
NOTHING = -2  # a class that no truth has: the level has no class but the stop


class ClassMarginals:
    """Path probabilities → probabilities of each level's classes (ids, which may stand under several parents)."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._levels = []
        for level in range(LEVELS):
            classes_P = taxonomy.path_classes[:, level]
            columns = np.flatnonzero(taxonomy.path_nodes[:, level] >= 0)
            columns = columns[np.argsort(classes_P[columns], kind="stable")]
            starts = np.flatnonzero(np.diff(classes_P[columns], prepend=-1))
            self._levels.append((columns, starts, classes_P[columns][starts]))

    def best(self, probabilities_NP: npt.NDArray[np.float64]) -> Rows:
        """[N, 4] the likeliest class of each level that is no stop; NOTHING where a level has none."""
        best_N4 = np.full((len(probabilities_NP), LEVELS), NOTHING, np.int64)
        for level, (columns, starts, classes) in enumerate(self._levels):
            if len(starts):
                sums_NC = np.add.reduceat(probabilities_NP[:, columns], starts, axis=1)
                best_N4[:, level] = classes[sums_NC.argmax(axis=1)]
        return best_N4


def never_absent(path_classes_N4: Rows, path_nodes_N4: Rows, expected_N4: Rows) -> Rows:
    """The answered path, and below its stop each level's likeliest class: the reading in which no level is absent."""
    return np.where(path_nodes_N4 >= 0, path_classes_N4, expected_N4)


def kakao_score(level_accuracy: Sequence[float | None]) -> float:
    """The score from accuracies per level; a level that no row has adds nothing."""
    return sum(
        weight * accuracy
        for weight, accuracy in zip(LEVEL_WEIGHTS, level_accuracy, strict=True)
        if accuracy is not None
    ) / len(LEVEL_WEIGHTS)


def official_score(answers: Mapping[str, Sequence[str]], truth: Mapping[str, Sequence[str]]) -> float:
    """The contest's score of answers by id, as its own script counts, but paired by id.

    Args:
        answers, truth: four ids each by product id; ABSENT where a level is not there.

    Raises:
        DataError: other products are answered than asked.
    """
    if answers.keys() != truth.keys():
        missing, extra = len(truth.keys() - answers.keys()), len(answers.keys() - truth.keys())
        raise DataError(f"{missing} products have no answer and {extra} answers no product: answer each once")
    accuracies: list[float | None] = []
    for level in range(LEVELS):
        asked = [pid for pid, ids in truth.items() if ids[level] != ABSENT]
        right = sum(answers[pid][level] == truth[pid][level] for pid in asked)
        accuracies.append(right / len(asked) if asked else None)
    return kakao_score(accuracies)


def level_ids(classes_N4: Rows, taxonomy: Taxonomy) -> list[tuple[str, ...]]:
    """Classes of four levels as ids, ABSENT where there is none."""

    def id_of(level: int, class_: int) -> str:
        return (taxonomy.classes[level][class_] if class_ >= 0 else STOP) or ABSENT

    return [tuple(id_of(level, class_) for level, class_ in enumerate(row)) for row in classes_N4.tolist()]


def write_csv(path: Path, pids: Sequence[str], ids: Sequence[Sequence[str]]) -> None:
    """Writes `pid,b,m,s,d`, one line a product."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows([pid, *row] for pid, row in zip(pids, ids, strict=True))


def read_csv(path: Path) -> dict[str, tuple[str, ...]]:
    """Reads what `write_csv` writes, in any order of lines.

    Raises:
        DataError: unreadable, another header, a line of another length, or a pid that stands twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            if tuple(next(lines, ())) != HEADER:
                raise DataError(f"{path}, line 1: the header is not {','.join(HEADER)}")
            for number, cells in enumerate(lines, start=2):
                if len(cells) != len(HEADER) or cells[0] in found:
                    raise DataError(f"{path}, line {number}: not five cells, or a pid that stands twice")
                found[cells[0]] = tuple(cells[1:])
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return found
