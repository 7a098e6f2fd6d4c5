"""The plain models learn what is there to learn, from the training part alone."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

import training.baselines
from training.baselines import baselines
from training.features import Features
from training.progress import Quiet

ROWS = np.arange(60)
TRAIN, HELD = ROWS[:45], ROWS[45:]
TARGETS = ROWS % 3
SPEAKING = [f"item {'abc'[target] * 3}" for target in TARGETS]


def of(vectors: np.ndarray, there: np.ndarray | None = None) -> Features:
    return Features(vectors.astype(np.float32), np.ones(60, np.bool_) if there is None else there)


def run(titles: list[str], text: Features, image: Features) -> dict[str, float]:
    found = baselines(titles, (text, image), TARGETS, TRAIN, HELD, Quiet())
    return {one.name: one.path_accuracy for one in found}


def test_each_model_sees_its_own_modality() -> None:
    generator = np.random.default_rng(0)
    noise, clear = of(generator.normal(size=(60, 4))), of(np.eye(3)[TARGETS] + generator.normal(size=(60, 3)) / 20)
    silent = ["item"] * 60
    by_photo, by_title = run(silent, noise, clear), run(SPEAKING, noise, noise)
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


def test_more_rows_than_fit_into_memory_are_drawn_evenly_and_the_answer_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = of(np.eye(3)[TARGETS])
    assert {one.learned_from for one in baselines(SPEAKING, (image, image), TARGETS, TRAIN, HELD, Quiet())} == {45}
    monkeypatch.setattr(training.baselines, "MOST", 23)  # every second row
    misled = [title if row % 2 == 0 else "item ccc" for row, title in enumerate(SPEAKING)]  # those of the others
    found = {one.name: one for one in baselines(misled, (image, image), TARGETS, TRAIN, TRAIN[::2], Quiet())}
    assert {one.learned_from for one in found.values()} == {23}
    assert found["title"].path_accuracy == 1.0


def test_held_rows_are_answered_some_at_a_time_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    text, image = of(generator.normal(size=(60, 4))), of(np.eye(3)[TARGETS] + generator.normal(size=(60, 3)))
    whole = run(SPEAKING, text, image)
    monkeypatch.setattr(training.baselines, "_CHUNK", 4)  # the last has three rows
    assert run(SPEAKING, text, image) == whole


def test_no_row_is_read_but_those_that_are_learned_from_and_answered() -> None:
    rows = 1_000_000
    vectors = np.broadcast_to(np.float32(1), (rows, 128))  # 512 MB, were all of them read
    features = Features(vectors, np.ones(rows, np.bool_))
    titles: list[Any] = [*SPEAKING[:45], None, *SPEAKING[46:]]  # None is no title: whoever reads it fails
    tracemalloc.start()
    found = baselines(titles, (features, features), TARGETS, TRAIN, HELD[1:], Quiet())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {one.name: one.path_accuracy for one in found}["title"] == 1.0
    assert peak < 200_000_000  # scikit-learn itself included, where this test is the first to import it


def test_one_path_alone_is_answered_without_fitting() -> None:
    image = of(np.ones((60, 2)))
    found = baselines(["x"] * 60, (image, image), np.zeros(60, np.int64), TRAIN, HELD, Quiet())
    assert {one.path_accuracy for one in found} == {1.0}
