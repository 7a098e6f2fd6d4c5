"""What one would use instead: plain models on the same split, so that no figure of ours stands alone.

    majority          the most frequent path of the training part
    title             TF-IDF of words and character n-grams, linear SVM (logistic regression on its 29,000 sparse
                      columns takes six times as long on real listings and was 1.5 points better there)
    photo             frozen photo vectors, logistic regression
    title_and_photo   frozen title and photo vectors side by side, logistic regression

All answer whole paths (the flat classes of the taxonomy). Logistic regression is scikit-learn's, multinomial, stopped
after `ITERATIONS`. After features.py and splits.py; before train.py's report. Needs the extra `train`.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.features import Features
from training.progress import Progress

Rows = npt.NDArray[np.int64]
ITERATIONS = 30  # 15 lose a point on real listings (6,000 rows, 215 paths), more bring nothing
_LR_C, _SVM_C = 0.003, 0.5  # inverse strengths of the penalty, best of a few on the select part of real listings


@dataclass(frozen=True, slots=True)
class Baseline:
    """One plain model's result: path accuracy on the held rows, and how long it took."""

    name: str
    path_accuracy: float
    seconds: float


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
        found.append(Baseline(name, round(accuracy, 4), round(time.monotonic() - begun, 1)))
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
    makers: dict[str, tuple[Any, Callable[[], Any]]] = {
        "majority": (None, lambda: None),
        "title": (LinearSVC(C=_SVM_C, random_state=0), lambda: _title_matrix(titles, train_rows)),
        "photo": (logistic_regression(), lambda: dense([image], train_rows)),
        "title_and_photo": (logistic_regression(), lambda: dense([text, image], train_rows)),
    }
    progress.begin("plain baselines", len(makers))
    for name, (model, make) in makers.items():
        answers = _answers(model, make, targets, train_rows, held_rows)
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


def _answers(model: Any, make: Callable[[], Any], targets: Rows, train_rows: Rows, held_rows: Rows) -> Rows:
    values, counts = np.unique(targets[train_rows], return_counts=True)
    if model is None or len(values) < 2:  # one class cannot be fitted
        return np.full(len(held_rows), values[counts.argmax()])
    matrix = make()
    model.fit(matrix[train_rows], targets[train_rows])
    answers: Rows = model.predict(matrix[held_rows])
    return answers


def _title_matrix(titles: Sequence[str], train_rows: Rows) -> Any:
    """Sparse [N, words and 2- to 5-character pieces]; vocabulary and weights from the training part alone."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    train = [titles[row] for row in train_rows]
    parts = []
    for analyzer, sizes, limit in (("word", (1, 2), 10_000), ("char_wb", (2, 5), 20_000)):
        tfidf = TfidfVectorizer(
            analyzer=analyzer, ngram_range=sizes, max_features=limit, sublinear_tf=True, dtype=np.float32
        )
        tfidf.fit(train)
        parts.append(tfidf.transform(titles))
    return hstack(parts, format="csr")


def dense(vectors: Sequence[Features], train_rows: Rows) -> npt.NDArray[np.float32]:
    """Standardised by the training part; rows without the modality are 0, the mean."""
    columns = []
    for one in vectors:
        pooled = one.pooled()
        seen = pooled[train_rows[one.there[train_rows]]]
        if len(seen):
            matrix = (pooled - seen.mean(0)) / (seen.std(0) + 1e-3)
            matrix[~one.there] = 0.0
            columns.append(matrix.astype(np.float32))
    return np.concatenate(columns, axis=1)
