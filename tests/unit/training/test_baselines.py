"""The plain models learn what is there to learn, from the training part alone."""

import numpy as np

from training.baselines import baselines
from training.features import Features
from training.progress import Quiet

ROWS = np.arange(60)
TRAIN, HELD = ROWS[:45], ROWS[45:]
TARGETS = ROWS % 3


def of(vectors: np.ndarray, there: np.ndarray | None = None) -> Features:
    return Features(vectors.astype(np.float32), np.ones(60, np.bool_) if there is None else there)


def run(titles: list[str], text: Features, image: Features) -> dict[str, float]:
    found = baselines(titles, (text, image), TARGETS, TRAIN, HELD, Quiet())
    return {one.name: one.path_accuracy for one in found}


def test_each_model_sees_its_own_modality() -> None:
    generator = np.random.default_rng(0)
    noise, clear = of(generator.normal(size=(60, 4))), of(np.eye(3)[TARGETS] + generator.normal(size=(60, 3)) / 20)
    speaking, silent = [f"item {'abc'[target] * 3}" for target in TARGETS], ["item"] * 60
    by_photo, by_title = run(silent, noise, clear), run(speaking, noise, noise)
    assert by_photo["photo"] > 0.9
    assert by_photo["title_and_photo"] > 0.6
    assert by_photo["title"] < 0.5
    assert by_title["title"] == 1.0
    assert by_title["photo"] < 0.7
    assert by_photo["majority"] == by_title["majority"] == round(float((TARGETS[HELD] == 0).mean()), 4)


def test_held_rows_teach_nothing() -> None:
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(60, 4))
    changed = vectors.copy()
    changed[HELD[1:]] = 1e3  # all but the first held row
    silent = ["item"] * 60
    image = of(np.zeros((60, 2)), np.zeros(60, np.bool_))
    one = baselines(silent, (image, of(vectors)), TARGETS, TRAIN, HELD[:1], Quiet())
    two = baselines(silent, (image, of(changed)), TARGETS, TRAIN, HELD[:1], Quiet())
    assert [plain.path_accuracy for plain in one] == [plain.path_accuracy for plain in two]


def test_one_path_alone_is_answered_without_fitting() -> None:
    image = of(np.ones((60, 2)))
    found = baselines(["x"] * 60, (image, image), np.zeros(60, np.int64), TRAIN, HELD, Quiet())
    assert {one.path_accuracy for one in found} == {1.0}
