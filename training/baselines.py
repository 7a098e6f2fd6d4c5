"""What one would use instead: plain models on the same split, so that no figure of ours stands alone.

    majority          the most frequent path of the training part
    title             TF-IDF of words and character n-grams, logistic regression
    photo             frozen photo features, logistic regression
    title_and_photo   both side by side, logistic regression

All answer whole paths (the flat classes of the taxonomy). Logistic regression is scikit-learn's, multinomial, lbfgs,
stopped after `ITERATIONS`: on 6,000 listings and 215 paths its accuracy does not move any more after that.

After features.py and splits.py; before train.py's report. Needs the extra `train`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.features import Features
from training.progress import Progress

Rows = npt.NDArray[np.int64]
ITERATIONS = 40
_TITLE_C, _PHOTO_C = 30.0, 0.003  # inverse strengths of the penalty: best of a few on the select part of real listings


@dataclass(frozen=True, slots=True)
class Baseline:
    """One plain model's result: path accuracy on the held rows, and how long it took."""

    name: str
    path_accuracy: float
    seconds: float


def baselines(
    titles: Sequence[str], image: Features, targets: Rows, train_rows: Rows, held_rows: Rows, progress: Progress
) -> list[Baseline]:
    """Trains and scores all four; blocks for less than a minute on 9,500 listings.

    Args:
        titles: of all rows, as the models see them.
        targets: [N] taxonomy rows of all rows.
    """
    progress.begin("plain baselines", 4)
    words = _Lazy(lambda: _title_matrix(titles, train_rows))
    photos = _Lazy(lambda: _photo_matrix(image, train_rows))
    makers: dict[str, Callable[[], Any]] = {
        "majority": lambda: None,
        "title": lambda: words() * _TITLE_C**0.5,
        "photo": lambda: photos() * _PHOTO_C**0.5,
        "title_and_photo": lambda: _beside(words() * _TITLE_C**0.5, photos() * _PHOTO_C**0.5),
    }
    found = []
    for name, make in makers.items():
        begun = time.monotonic()
        answers = _answers(make(), targets, train_rows, held_rows)
        accuracy = float((answers == targets[held_rows]).mean())
        found.append(Baseline(name, round(accuracy, 4), round(time.monotonic() - begun, 1)))
        progress.advance(note=f"{name} {accuracy:.3f}")
    return found


class _Lazy:
    """Computes once, when first asked."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made = make, False

    def __call__(self) -> Any:
        if not self._made:
            self._value, self._made = self._make(), True
        return self._value


def _answers(matrix: Any, targets: Rows, train_rows: Rows, held_rows: Rows) -> Rows:
    if matrix is None or len(np.unique(targets[train_rows])) < 2:
        values, counts = np.unique(targets[train_rows], return_counts=True)
        return np.full(len(held_rows), values[counts.argmax()])
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # The strength of the penalty is in the scale of the columns, so that each kind of column can have its own.
    model = LogisticRegression(C=1.0, max_iter=ITERATIONS, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped on purpose, see above
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


def _photo_matrix(image: Features, train_rows: Rows) -> npt.NDArray[np.float32]:
    """Standardised by the training part; rows without a photo are 0, the mean."""
    seen = image.vectors[train_rows[image.there[train_rows]]].astype(np.float32)
    if not len(seen):
        return np.zeros(image.vectors.shape, np.float32)
    matrix: npt.NDArray[np.float32] = (image.vectors - seen.mean(0)) / (seen.std(0) + 1e-3)
    matrix[~image.there] = 0.0
    return matrix.astype(np.float32)


def _beside(words: Any, photos: npt.NDArray[np.float32]) -> Any:
    from scipy.sparse import csr_matrix, hstack

    return hstack([words, csr_matrix(photos)], format="csr")
