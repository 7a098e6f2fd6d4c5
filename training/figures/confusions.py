"""What goes wrong: which path is taken for which, and at which level answers leave the true path.

After answers.py; before the HTML report, which shows photos of the worst.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmcat.taxonomy import LEVELS, Taxonomy

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """A true path and the path that was answered instead.

    Args:
        truth, answer: taxonomy rows.
        share: of the true path's held rows.
        rows: numbers of the held rows, surest mistake first.
    """

    truth: int
    answer: int
    share: float
    rows: tuple[int, ...]


def worst_siblings(
    answers: Rows, targets: Rows, probabilities: npt.NDArray[np.float64], taxonomy: Taxonomy, most: int
) -> list[Confusion]:
    """The pairs of siblings most often taken for one another, most rows first.

    Siblings differ in nothing but their last level: two children of a node, or the node and its child.
    """
    wrong = np.flatnonzero(answers != targets)
    shared = _shared(answers[wrong], targets[wrong], taxonomy)
    deepest = np.maximum(_depth(taxonomy)[answers[wrong]], _depth(taxonomy)[targets[wrong]])
    near = wrong[shared >= np.maximum(deepest - 1, 1)]
    totals = np.bincount(targets, minlength=len(taxonomy))
    found: dict[tuple[int, int], list[int]] = {}
    for row in near[np.argsort(-probabilities[near], kind="stable")].tolist():
        found.setdefault((int(targets[row]), int(answers[row])), []).append(row)
    pairs = sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:most]
    return [Confusion(truth, answer, len(rows) / int(totals[truth]), tuple(rows)) for (truth, answer), rows in pairs]


def where_answers_leave(answers: Rows, targets: Rows, taxonomy: Taxonomy) -> dict[str, float]:
    """Shares of all rows: by the first level at which the answer is another node, or stops too early or too late."""
    wrong = answers != targets
    shared, depth = _shared(answers, targets, taxonomy), _depth(taxonomy)
    early = wrong & (shared == depth[answers])
    late = wrong & (shared == depth[targets])
    other = wrong & ~early & ~late
    shares = {f"another node at level {level + 1}": other & (shared == level) for level in range(LEVELS)}
    shares |= {"stops too early": early, "goes on too deep": late}
    return {name: float(there.mean()) for name, there in shares.items()}


def _depth(taxonomy: Taxonomy) -> Rows:
    depth: Rows = (taxonomy.path_nodes >= 0).sum(axis=1)
    return depth


def _shared(answers: Rows, targets: Rows, taxonomy: Taxonomy) -> Rows:
    """[N] how many levels, from the top, the two paths have in common."""
    true_N4 = taxonomy.path_nodes[targets]
    same: Rows = ((taxonomy.path_nodes[answers] == true_N4) & (true_N4 >= 0)).sum(axis=1)
    return same
