"""Labels that look wrong: held-out predictions of a plain model that contradict them, surest first.

Each row is predicted by a model that saw no row of its group (cross-validation by group), as in confident learning
(Northcutt et al. 2021), ranked by the margin of the predicted path over the given one. A list for people to look at:
nothing is ever removed, and least of all from the test part, for a hard row is not a wrong one.

After features; before the HTML report. Needs the extra `train`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Suspect:
    """One row: its number, the path that was predicted for it, and the probabilities of that and of its label."""

    row: int
    answer: int
    answer_probability: float
    label_probability: float


def suspects(
    standardised: Callable[[Rows], Callable[[Rows], npt.NDArray[np.float32]]],
    model: Callable[[], Any],
    targets: Rows,
    groups: npt.NDArray[Any],
    rows: Rows,
    most: int,
    folded: Callable[[], None] = lambda: None,
    seed: int = 0,
) -> list[Suspect]:
    """The `most` suspected labels among `rows`; blocks for FOLDS fits.

    Args:
        standardised: by the rows given; gives the features [B, D] of B rows.
        model: makes an untrained classifier of scikit-learn's kind.
        targets: [N] labels of all rows, as taxonomy rows.
        groups: [len(rows)] labels; rows of one group stand in one fold.
        rows: what is looked at; the others are neither trained on nor listed.
        folded: called after each fold.
    """
    found: list[Suspect] = []
    fold_of = _folds(groups, seed)
    for fold in range(FOLDS):
        held, rest = rows[fold_of == fold], rows[fold_of != fold]
        if len(held) and len(np.unique(targets[rest])) > 1:
            matrix_of = standardised(rest)
            fitted = model().fit(matrix_of(rest), targets[rest])
            found += _contradicted(fitted, matrix_of(held), targets[held], held)
        folded()
    return sorted(found, key=lambda one: one.label_probability - one.answer_probability)[:most]


def _folds(groups: npt.NDArray[Any], seed: int) -> Rows:
    """[N] fold of each row; whole groups, dealt evenly in a random order."""
    names, member = np.unique(groups, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(len(names)) % FOLDS
    fold: Rows = dealt[member]
    return fold


def _contradicted(fitted: Any, matrix: npt.NDArray[np.float32], labels: Rows, rows: Rows) -> list[Suspect]:
    """Rows whose label is known to the model and not its answer."""
    probabilities = fitted.predict_proba(matrix)
    column = {int(path): place for place, path in enumerate(fitted.classes_)}
    best = probabilities.argmax(axis=1)
    found = []
    for at, (row, label) in enumerate(zip(rows.tolist(), labels.tolist(), strict=True)):
        place = column.get(label)
        if place is not None and best[at] != place:  # a path that only held rows have could not be answered
            answer = int(fitted.classes_[best[at]])
            found.append(Suspect(row, answer, float(probabilities[at, best[at]]), float(probabilities[at, place])))
    return found
