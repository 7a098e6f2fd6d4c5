"""Scores of held rows → what is answered, row by row; all figures but the bootstrap start here.

Works through some rows at a time: path scores of a million rows would be gigabytes, their answers are not.
After the model's logits and paths.py; before accuracy.py, contest.py, confidence.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcat.paths import PathIndex, path_probabilities
from mmcat.taxonomy import LEVELS, Taxonomy
from training.figures.contest import ClassMarginals

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]
Temperature = float | npt.NDArray[np.float64]
_CHUNK = 2_048  # rows: 70 MB of path scores where there are 4,000 paths


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of N rows.

    Args:
        rows: [N] the most probable existing path, as taxonomy row.
        probabilities: [N] of it.
        expected: [N, 4] per level the class that expects most of the contest's score (contest.py).
        alone: [N, 4] per level the best class by itself, -1 below a stop; None for models that score whole paths.
    """

    rows: Rows
    probabilities: npt.NDArray[np.float64]
    expected: Rows
    alone: Rows | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def join(cls, parts: Iterable["Answers"], count: int) -> "Answers":
        """Of all parts, in order; `count` rows in all.

        Written into arrays that are there beforehand: small ones, kept while the large ones of each part's scores come
        and go, would hold on to the memory of these, gigabytes for a million rows.
        """
        rows, probabilities, alone = np.empty(count, np.int64), np.empty(count), None
        expected = np.empty((count, LEVELS), np.int64)
        done = 0
        for part in parts:
            at = slice(done, done + len(part))
            rows[at], probabilities[at], expected[at] = part.rows, part.probabilities, part.expected
            if part.alone is not None:
                alone = np.empty((count, LEVELS), np.int64) if alone is None else alone
                alone[at] = part.alone
            done = at.stop
        return cls(rows, probabilities, expected, alone)


def answer_levels(level_logits: Sequence[Floats], taxonomy: Taxonomy, temperature: Temperature = 1.0) -> Answers:
    """Answers of four level heads, or of a flat one.

    Args:
        level_logits: 4 × [N, C], or one [N, P].
        temperature: of the path probability, one for all or one per row [N].
    """
    count = len(level_logits[0])
    slices = (slice(start, start + _CHUNK) for start in range(0, max(1, count), _CHUNK))
    temperature_N = np.broadcast_to(temperature, count)
    chunks = (([logits_NC[rows] for logits_NC in level_logits], temperature_N[rows]) for rows in slices)
    return answer_chunks(chunks, count, taxonomy)


def answer_chunks(chunks: Iterable[tuple[Sequence[Floats], Temperature]], count: int, taxonomy: Taxonomy) -> Answers:
    """Answers to chunks of rows, one after the other: neither logits nor path scores of one outlive it.

    Args:
        chunks: each with the temperature of its rows; see `answer_levels`.
        count: rows of all chunks.
    """
    index, marginals = PathIndex(taxonomy), ClassMarginals(taxonomy)

    def parts() -> Iterator[Answers]:
        for level_logits, temperature in chunks:
            alone = None if len(level_logits) == 1 else _alone(level_logits)
            yield replace(_answer(index.scores(level_logits), marginals, temperature), alone=alone)

    return Answers.join(parts(), count)


def answer_paths(scores_NP: Floats, taxonomy: Taxonomy, temperature: Temperature = 1.0) -> Answers:
    """Answers of a model that scores whole paths (a flat head, a fusion of probabilities); [N, P] log-scores."""
    marginals, temperature_N = ClassMarginals(taxonomy), np.broadcast_to(temperature, len(scores_NP))
    slices = (slice(start, start + _CHUNK) for start in range(0, len(scores_NP), _CHUNK))
    return Answers.join((_answer(scores_NP[rows], marginals, temperature_N[rows]) for rows in slices), len(scores_NP))


def _answer(scores_NP: Floats, marginals: ClassMarginals, temperature: Temperature) -> Answers:
    probabilities_NP = path_probabilities(scores_NP.astype(np.float64), temperature)
    best = scores_NP.argmax(axis=1)
    return Answers(best, probabilities_NP[np.arange(len(best)), best], marginals.best(probabilities_NP))


def _alone(level_logits: Sequence[Floats]) -> Rows:
    """Each level's own answer [N, 4], cut below its first stop as -1."""
    answers_N4 = np.stack([logits_NC.argmax(axis=1) for logits_NC in level_logits], axis=1)
    for level in range(1, LEVELS):
        # Level 1 has no stop, so its class 0 ends nothing.
        ended = (answers_N4[:, level - 1] < 0) | ((answers_N4[:, level - 1] == 0) & (level > 1))
        answers_N4[ended, level] = -1
    return answers_N4
