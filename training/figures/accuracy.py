"""How often answers are right: per level, whole paths, by class, by ancestors; and whether they exist at all.

Every level is compared as classes (ids): level 3 is right where the answered id is the true one, whatever stands above.
A whole path is right where all levels and the stop are. After answers.py; before training.evaluate.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mmcat.taxonomy import LEVELS, Taxonomy

Rows = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def level_accuracy(answered_N4: Rows, targets: Rows, taxonomy: Taxonomy) -> tuple[float | None, ...]:
    """Share of right classes per level, among the rows whose true path has the level; None where none has.

    Args:
        answered_N4: classes; what is no class (a stop's 0, -1, less) is wrong where the truth has the level.
        targets: [N] true taxonomy rows.
    """
    right_N4 = answered_N4 == taxonomy.path_classes[targets]
    there_N4 = taxonomy.path_nodes[targets] >= 0
    columns = [right_N4[there_N4[:, level], level] for level in range(LEVELS)]
    return tuple(float(column.mean()) if len(column) else None for column in columns)


def whole_path_right(answered_N4: Rows, targets: Rows, taxonomy: Taxonomy) -> Bools:
    """[N] whether four answers of their own are the true path, its stop included."""
    true_N4 = taxonomy.path_classes[targets]
    right: Bools = ((answered_N4 == true_N4) | (true_N4 < 0)).all(axis=1)
    return right


def exist(answered_N4: Rows, taxonomy: Taxonomy) -> Bools:
    """[N] whether the taxonomy has a path of exactly these classes (-1 below the stop)."""
    known = {tuple(classes) for classes in taxonomy.path_classes.tolist()}
    return np.array([tuple(answer) in known for answer in answered_N4.tolist()], np.bool_)


def macro_f1(answers: Rows, targets: Rows) -> float:
    """Mean F1 over the paths that `targets` has."""
    paths, true_counts = np.unique(targets, return_counts=True)
    size = int(max(answers.max(initial=0), targets.max(initial=0))) + 1
    both = np.bincount(targets[answers == targets], minlength=size)[paths]
    answered = np.bincount(answers, minlength=size)[paths]
    return float((2 * both / (answered + true_counts)).mean())


def hierarchical_f1(answers: Rows, targets: Rows, taxonomy: Taxonomy) -> float:
    """F1 of the answered nodes with all their ancestors (root left out), summed over rows before dividing.

    Kiritchenko et al. 2005; Silla & Freitas 2011, section 5: a near miss costs less than a far one.
    """
    answered_N4, true_N4 = taxonomy.path_nodes[answers], taxonomy.path_nodes[targets]
    shared = int(((answered_N4 == true_N4) & (true_N4 >= 0)).sum())
    return 2 * shared / max(1, int((answered_N4 >= 0).sum()) + int((true_N4 >= 0).sum()))


def accuracy_by_training_rows(
    right: Bools, targets: Rows, training_rows_P: Rows, edges: tuple[int, ...] = (10, 30, 100)
) -> list[tuple[str, int, float | None]]:
    """Path accuracy by how many training rows the true path has: (label, rows here, accuracy or None).

    Args:
        training_rows_P: [P] rows per taxonomy row in the training part.
        edges: where a class of sizes ends, exclusive; the first is the tail.
    """
    sizes = training_rows_P[targets]
    bounds = [0, *edges, np.inf]
    found: list[tuple[str, int, float | None]] = []
    for low, high in pairwise(bounds):
        there = (sizes >= low) & (sizes < high)
        label = f"under {high}" if not low else f"{low} and more" if high == np.inf else f"{low} to {int(high) - 1}"
        found.append((label, int(there.sum()), float(right[there].mean()) if there.any() else None))
    return found
