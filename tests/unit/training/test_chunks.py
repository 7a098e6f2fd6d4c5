"""Held rows are answered some at a time: bit for bit as all at once, in memory that does not hold all their scores."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mmcat.calibration import Calibration, answered, count_claims, levels_by_threshold, seen_of
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.paths import PathIndex
from mmcat.taxonomy import Taxonomy
from tests.unit.training import by_heart
from training.calibrate import attained
from training.export import answers_as_served
from training.features import Features
from training.figures.answers import answer_levels
from training.fusion import Inputs, Learned, Withheld, learn, logits
from training.progress import Quiet

TAXONOMY = Taxonomy.from_names((f"b{n % 10}", f"m{n % 100}", f"s{n}") for n in range(1_000))
INDEX = PathIndex(TAXONOMY)
COUNT = 5_000
ROWS = np.arange(COUNT)
SOME = ROWS[:1_100]  # two chunks and one that is not full
CALIBRATION = Calibration({"both": 1.3, "text": 0.9, "image": 2.0})
BYTES_A_ROW = 1_000  # answers are a tenth of that; logits and path scores 12,000 at least


def shape(*classes: int) -> ModelConfig:
    return ModelConfig.from_json(by_heart.config().to_json() | {"classes": classes or [*map(len, TAXONOMY.classes)]})


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """Noise; a seventh of the rows has no title, a fifth no photo."""
    generator = np.random.default_rng(0)
    text = generator.normal(size=(COUNT, 16)).astype(np.float32)
    image = generator.normal(size=(COUNT, 2_048)).astype(np.float32)
    return Inputs(TAXONOMY, ROWS * 7 % 1_000, Features(text, ROWS % 7 > 0), Features(image, ROWS % 5 > 0))


def learned(inputs: Inputs, select: np.ndarray, config: ModelConfig) -> Learned:
    """After one epoch of a few rows, with its accuracy on `select`."""
    few = by_heart.recipe(epochs=1)
    return learn(config, inputs, ROWS[:16], select, few, seed=0, progress=Quiet(), stage="chunks")


@pytest.fixture(scope="module", params=["levels", "flat"])
def run(inputs: Inputs, request: pytest.FixtureRequest) -> Learned:
    return learned(inputs, SOME, shape() if request.param == "levels" else shape(len(TAXONOMY)))


def scores(model: CategoryModel, inputs: Inputs, rows: np.ndarray, withhold: Withheld | None = None) -> np.ndarray:
    return INDEX.scores(logits(model, inputs, rows, withhold))


def test_an_epochs_accuracy_is_that_of_all_rows_at_once(inputs: Inputs, run: Learned) -> None:
    right = scores(run.model, inputs, SOME).argmax(axis=1) == inputs.targets[SOME]
    assert run.fitted.accuracies == (right.mean(),)


@pytest.mark.parametrize("withhold", [None, "image"])
def test_answers_are_those_of_all_rows_at_once(inputs: Inputs, run: Learned, withhold: Withheld | None) -> None:
    assert inputs.text is not None
    assert inputs.image is not None
    there = zip(inputs.text.there[SOME], inputs.image.there[SOME] & (withhold is None), strict=True)
    temperatures = np.array([CALIBRATION.temperature(seen_of(*pair)) for pair in there])
    whole = answer_levels(logits(run.model, inputs, SOME, withhold), TAXONOMY, temperatures)
    found = answers_as_served(run.model, inputs, CALIBRATION, SOME, withhold)
    assert np.array_equal(found.rows, whole.rows)
    assert np.array_equal(found.probabilities, whole.probabilities)
    assert np.array_equal(found.expected, whole.expected)
    assert np.array_equal(np.array(found.alone), np.array(whole.alone))  # of a flat head: None
    none = answers_as_served(run.model, inputs, CALIBRATION, SOME[:0], withhold)
    assert (len(none), none.expected.shape) == (0, (0, 4))


def test_what_the_promise_comes_to_is_that_of_all_rows_at_once(inputs: Inputs, run: Learned) -> None:
    rows = SOME[(SOME % 7 > 0) & (SOME % 5 > 0)]
    marginals_N4, right_N4 = answered(scores(run.model, inputs, rows), inputs.targets[rows], INDEX, 1.3)
    threshold = float(np.median(marginals_N4[:, 0]))
    levels_1N = levels_by_threshold(marginals_N4, np.array([threshold]))
    claims, wrong = (int(count[0]) for count in count_claims(levels_1N, right_N4))
    assert 0 < claims < len(rows)
    calibration = Calibration(CALIBRATION.temperatures, {"both": threshold})
    assert attained(run.model, inputs, SOME, calibration)["both"] == {
        "rows": len(rows),
        "error_rate": round(wrong / claims, 4),
        "depth": round(float(levels_1N.mean()), 4),
        "review": round(1 - claims / len(rows), 4),
    }


def peak(work: Callable[[np.ndarray], Any], rows: np.ndarray) -> int:
    """Bytes of NumPy's arrays and Python's objects at their most, beyond those that were there before."""
    tracemalloc.start()
    work(rows)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.parametrize("what", ["validation", "answers", "withheld", "promise"])
def test_memory_does_not_grow_with_the_scores_of_the_rows(inputs: Inputs, run: Learned, what: str) -> None:
    work: dict[str, Callable[[np.ndarray], Any]] = {
        "validation": lambda rows: learned(inputs, rows, run.model.config),
        "answers": lambda rows: answers_as_served(run.model, inputs, CALIBRATION, rows),
        "withheld": lambda rows: answers_as_served(run.model, inputs, CALIBRATION, rows, "text"),
        "promise": lambda rows: attained(run.model, inputs, rows, CALIBRATION),
    }
    few, many = ROWS[:1_024], ROWS
    work[what](few)  # what is made once is made
    assert peak(work[what], many) - peak(work[what], few) < BYTES_A_ROW * (len(many) - len(few))
