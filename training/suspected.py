"""Suspected labels of a data set, by plain models on the bundle's own cached features, held-out by group.

The test part is left out unless it is the part that is being looked at. After evaluate_bundle.py and
figures/suspects.py; before pages/evaluation.py, which lists them.
"""

from functools import partial

import numpy as np

from training.baselines import dense, logistic_regression
from training.evaluate_bundle import Evaluation, group_labels
from training.figures.suspects import FOLDS, suspects
from training.pages.evaluation import Suspected
from training.progress import Progress

MOST = 40
ROWS = 20_000  # looked at; more would take minutes and a list nobody reads to its end


def suspected_labels(evaluation: Evaluation, progress: Progress) -> Suspected:
    """Fits FOLDS logistic regressions; blocks for a minute on 9,500 listings and 200 paths."""
    dataset, part, inputs = evaluation.dataset, evaluation.part, evaluation.inputs
    rows = evaluation.rows
    if evaluation.split.dataset_digest == dataset.digest:
        rest = np.concatenate([
            evaluation.split.rows(name, dataset) for name in evaluation.split.parts if name not in (part, "test")
        ])  # fmt: skip
        rows = np.concatenate([rows, rest])
    looked_at = np.sort(rows[:ROWS])
    vectors = [one for one in (inputs.text, inputs.image) if one is not None]
    progress.begin("suspected labels", FOLDS)
    found = suspects(
        partial(dense, vectors),
        logistic_regression,
        dataset.targets,
        group_labels(dataset, looked_at),
        looked_at,
        MOST,
        folded=progress.advance,
    )
    return Suspected(found, f"Looked for among {len(looked_at):,} of {len(rows):,} listings.")
