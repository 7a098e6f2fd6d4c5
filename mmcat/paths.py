"""Level scores → existing paths: the decode that never answers a path the taxonomy does not have.

    score(path) = Σ log p(level class) over the levels up to and including the first stop
    p(path)     = softmax over the existing paths of score / temperature
    p(node)     = Σ p(path) over the paths through the node (its marginal)

After model.py (logits); before calibration.py and categorizer.py. Pure numpy, no torch, so that an engine without
torch can use it. Five milliseconds for 4,215 paths and a batch of 32 (one core).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcat.taxonomy import LEVELS, Taxonomy

Floats = npt.NDArray[np.floating[Any]]
Scores = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def log_softmax(logits_BC: Floats) -> Scores:
    """Log-probabilities of one level, in float64: sums over levels and paths then hold to 1e-12."""
    shifted_BC: Scores = logits_BC.astype(np.float64) - logits_BC.max(axis=1, keepdims=True)
    shifted_BC -= np.log(np.exp(shifted_BC).sum(axis=1, keepdims=True))
    return shifted_BC


def path_log_scores(level_log_probs: Sequence[Floats], path_classes: Rows) -> Scores:
    """Sums each path's level log-probabilities.

    Args:
        level_log_probs: 4 × [B, C].
        path_classes: [P, 4] of the taxonomy; -1 (below the stop) adds nothing.

    Returns:
        float64 [B, P].
    """
    scores_BP = np.zeros((len(level_log_probs[0]), len(path_classes)))
    for level, log_probs_BC in enumerate(level_log_probs):
        # One more class of log-probability 0 at the end: index -1 finds it.
        padded_BC = np.pad(log_probs_BC.astype(np.float64), ((0, 0), (0, 1)))
        scores_BP += np.take(padded_BC, path_classes[:, level], axis=1)
    return scores_BP


def path_probabilities(scores_BP: Scores, temperature: float | Scores = 1.0) -> Scores:
    """Softmax over the existing paths.

    Args:
        temperature: > 0, one for all or one per row [B].
    """
    scaled_BP = scores_BP / np.reshape(np.asarray(temperature, np.float64), (-1, 1))
    scaled_BP -= scaled_BP.max(axis=1, keepdims=True)
    np.exp(scaled_BP, out=scaled_BP)
    scaled_BP /= scaled_BP.sum(axis=1, keepdims=True)
    return scaled_BP


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch's best paths.

    Args:
        rows: [B, K] taxonomy rows, most probable first; ties go to the lower row.
        probabilities: [B, K] of those paths.
        marginals: [B, K, 4] of the nodes of those paths, level by level, never rising; 0 below a path's end.
    """

    rows: Rows
    probabilities: Scores
    marginals: Scores


class PathIndex:
    """A taxonomy laid out for decoding; build once, use for every batch. Thread-safe."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.path_classes: Rows = taxonomy.path_classes
        self.path_nodes: Rows = taxonomy.path_nodes
        # Sorted by prefix, the paths through any node stand side by side: a marginal is the sum of one slice.
        self._order_P = np.lexsort(tuple(self.path_nodes[:, level] for level in reversed(range(LEVELS))))
        self._columns, self._starts = [], []
        for level in range(LEVELS):
            nodes_P = self.path_nodes[self._order_P, level]
            columns = np.flatnonzero(nodes_P >= 0)
            starts = np.flatnonzero(np.diff(nodes_P[columns], prepend=-1))
            self._columns.append(self._order_P[columns])
            self._starts.append((starts, nodes_P[columns][starts]))

    def scores(self, logits: Sequence[Floats]) -> Scores:
        """Logits 4 × [B, C], or [B, P] of one flat head → path scores [B, P]."""
        log_probs = [log_softmax(logits_BC) for logits_BC in logits]
        return log_probs[0] if len(log_probs) == 1 else path_log_scores(log_probs, self.path_classes)

    def node_marginals(self, probabilities_BP: Scores) -> list[Scores]:
        """Path probabilities → per level [B, nodes], columns as in `Taxonomy.nodes`."""
        marginals = []
        for columns, (starts, nodes) in zip(self._columns, self._starts, strict=True):
            level_BN = np.zeros((len(probabilities_BP), len(nodes)))
            if len(nodes):
                level_BN[:, nodes] = np.add.reduceat(probabilities_BP[:, columns], starts, axis=1)
            marginals.append(level_BN)
        return marginals

    def decode(self, scores_BP: Scores, temperature: float | Scores = 1.0, top_k: int = 1) -> Decoded:
        """The `top_k` most probable existing paths of each row (fewer where the taxonomy has fewer)."""
        probabilities_BP = path_probabilities(scores_BP, temperature)
        rows_BK = _best(scores_BP, min(top_k, scores_BP.shape[1]))
        marginals_BK4 = np.zeros((*rows_BK.shape, LEVELS))
        for level, level_BN in enumerate(self.node_marginals(probabilities_BP)):
            nodes_BK = self.path_nodes[rows_BK, level]
            if level_BN.shape[1]:
                found_BK = np.take_along_axis(level_BN, np.maximum(nodes_BK, 0), axis=1)
                marginals_BK4[:, :, level] = np.where(nodes_BK >= 0, found_BK, 0.0)
        # Sums in another order differ in the last bit: a child must not look likelier than its parent, nor than 1.
        marginals_BK4 = np.minimum.accumulate(np.minimum(marginals_BK4, 1.0), axis=2)
        return Decoded(rows_BK, np.take_along_axis(probabilities_BP, rows_BK, axis=1), marginals_BK4)


def _best(scores_BP: Scores, count: int) -> Rows:
    """Columns of the `count` largest scores per row, largest first; ties go to the lower column."""
    if count == 1:
        first: Rows = np.argmax(scores_BP, axis=1, keepdims=True)
        return first
    paths = scores_BP.shape[1]
    threshold_B1 = np.partition(scores_BP, paths - count, axis=1)[:, paths - count, None]
    best = np.empty((len(scores_BP), count), np.int64)
    for row, at_least in enumerate(scores_BP >= threshold_B1):
        candidates = np.flatnonzero(at_least)
        best[row] = candidates[np.argsort(-scores_BP[row, candidates], kind="stable")[:count]]
    return best
