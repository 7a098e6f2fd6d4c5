"""What one would use instead: plain models on the same split, so that no figure of ours stands alone.

    majority          the most frequent path of the training part
    title             TF-IDF of words and character n-grams, linear SVM (logistic regression on its 29,000 sparse
                      columns takes six times as long on real listings and was 1.5 points better there)
    photo             frozen photo vectors, logistic regression
    title_and_photo   frozen title and photo vectors side by side, logistic regression

All answer whole paths (the flat classes of the taxonomy), and learn from at most `MOST` rows. Logistic regression is
scikit-learn's, multinomial, stopped after `ITERATIONS`. After features.py and splits.py; before train.py's report.
Needs the extra `train`.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from training.features import Features
from training.progress import Progress

Rows = npt.NDArray[np.int64]
MatrixOf = Callable[[Rows], Any]  # what a model reads of some rows, made when asked for: of all rows it is gigabytes
_Untrained = tuple[Any, Callable[[Rows], MatrixOf]]  # a classifier, and what it reads as made by the training part
MOST = 100_000  # rows that are learned from: their vectors, and the scores of thousands of paths, fit into 16 GB
ITERATIONS = 30  # 15 lose a point on real listings (6,000 rows, 215 paths), more bring nothing
_CHUNK = 4_096  # rows answered at a time
_LR_C, _SVM_C = 0.003, 0.5  # inverse strengths of the penalty, best of a few on the select part of real listings


@dataclass(frozen=True, slots=True)
class Baseline:
    """One plain model's result.

    Args:
        path_accuracy: on the held rows.
        seconds: how long it took.
        learned_from: rows of the training part, at most MOST; None in reports of before there was a bound.
    """

    name: str
    path_accuracy: float
    seconds: float
    learned_from: int | None = None


def baselines(
    titles: Sequence[str],
    vectors: Sequence[Features],
    targets: Rows,
    train_rows: Rows,
    held_rows: Rows,
    progress: Progress,
) -> list[Baseline]:
    """Trains and scores all four; blocks for half a minute on 9,500 listings.

    Args:
        titles: of all rows, as the models see them.
        vectors: frozen title vectors, frozen photo vectors.
        targets: [N] taxonomy rows of all rows.
    """
    found = []
    begun = time.monotonic()
    for name, answers in plain_answers(titles, vectors, targets, train_rows, held_rows, progress):
        accuracy = float((answers == targets[held_rows]).mean())
        seconds = round(time.monotonic() - begun, 1)
        found.append(Baseline(name, round(accuracy, 4), seconds, len(_drawn(train_rows))))
        begun = time.monotonic()
    return found


def plain_answers(
    titles: Sequence[str],
    vectors: Sequence[Features],
    targets: Rows,
    train_rows: Rows,
    held_rows: Rows,
    progress: Progress,
) -> Iterator[tuple[str, Rows]]:
    """The name of each plain model and what it answers to `held_rows`; arguments as of `baselines`."""
    from sklearn.svm import LinearSVC

    text, image = vectors
    models: dict[str, _Untrained | None] = {
        "majority": None,
        "title": (LinearSVC(C=_SVM_C, random_state=0), partial(_title_matrix, titles)),
        "photo": (logistic_regression(), partial(dense, [image])),
        "title_and_photo": (logistic_regression(), partial(dense, [text, image])),
    }
    train_rows = _drawn(train_rows)
    progress.begin("plain baselines", len(models))
    for name, model in models.items():
        answers = _answers(model, targets, train_rows, held_rows)
        progress.advance(note=f"{name} {float((answers == targets[held_rows]).mean()):.3f}")
        yield name, answers


def logistic_regression() -> Any:
    """An untrained one, as all of ours are: multinomial, stopped after ITERATIONS without a word."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    class Stopped(LogisticRegression):  # type: ignore[misc]  # scikit-learn ships no types
        def fit(self, matrix: Any, targets: Any, sample_weight: Any = None) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # stopped on purpose, see ITERATIONS
                return super().fit(matrix, targets, sample_weight)

    return Stopped(C=_LR_C, max_iter=ITERATIONS)


def _drawn(train_rows: Rows) -> Rows:
    """Those that the plain models learn from: evenly drawn where there are more than MOST."""
    return train_rows[:: max(1, math.ceil(len(train_rows) / MOST))]


def _answers(model: _Untrained | None, targets: Rows, train_rows: Rows, held_rows: Rows) -> Rows:
    values, counts = np.unique(targets[train_rows], return_counts=True)
    if model is None or len(values) < 2:  # one class cannot be fitted
        return np.full(len(held_rows), values[counts.argmax()])
    classifier, made_by = model
    matrix_of = made_by(train_rows)
    classifier.fit(matrix_of(train_rows), targets[train_rows])
    chunks = (held_rows[start : start + _CHUNK] for start in range(0, len(held_rows), _CHUNK))
    return np.concatenate([classifier.predict(matrix_of(chunk)) for chunk in chunks])


def _title_matrix(titles: Sequence[str], train_rows: Rows) -> MatrixOf:
    """Sparse [rows, words and 2- to 5-character pieces]; vocabulary and weights from the training part alone."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    train = [titles[row] for row in train_rows]
    made = []
    for analyzer, sizes, limit in (("word", (1, 2), 10_000), ("char_wb", (2, 5), 20_000)):
        tfidf = TfidfVectorizer(
            analyzer=analyzer, ngram_range=sizes, max_features=limit, sublinear_tf=True, dtype=np.float32
        )
        made.append(tfidf.fit(train))

    def matrix_of(rows: Rows) -> Any:
        some = [titles[row] for row in rows]
        return hstack([tfidf.transform(some) for tfidf in made], format="csr")

    return matrix_of


def dense(vectors: Sequence[Features], train_rows: Rows) -> MatrixOf:
    """float32 [rows, D], standardised by the training part; rows without the modality are 0, the mean."""
    scales = []
    for one in vectors:
        seen = one.pooled(train_rows[one.there[train_rows]])
        if len(seen):
            scales.append((one, seen.mean(0), seen.std(0) + 1e-3))

    def matrix_of(rows: Rows) -> npt.NDArray[np.float32]:
        columns = []
        for one, mean, deviation in scales:
            matrix = one.pooled(rows)
            matrix -= mean
            matrix /= deviation
            matrix[~one.there[rows]] = 0.0
            columns.append(matrix)
        return np.concatenate(columns, axis=1)

    return matrix_of
