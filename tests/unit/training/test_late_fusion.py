"""Late fusion: no worse than the better half on the part it is chosen on, and alone where one half is missing."""

import numpy as np
import numpy.typing as npt
import pytest

from mmcat.paths import path_probabilities
from training.late_fusion import LateFusion, Single, fit_late_fusion

TARGETS = np.arange(300) % 4
ALL = np.ones(300, np.bool_)


def noisy(strength: float, seed: int) -> npt.NDArray[np.float64]:
    """Scores that know the truth as well as `strength` says."""
    return np.random.default_rng(seed).normal(size=(300, 4)) + strength * np.eye(4)[TARGETS]


def accuracy(scores: npt.NDArray[np.float64]) -> float:
    return float((scores.argmax(axis=1) == TARGETS).mean())


def test_two_halves_that_know_different_things_are_better_together() -> None:
    text, image = Single(noisy(1.5, 0), ALL), Single(noisy(1.5, 1), ALL)
    fused = fit_late_fusion((text, image, TARGETS), (text, image, TARGETS))
    assert accuracy(fused.scores(text, image)) > max(accuracy(text.scores), accuracy(image.scores)) + 0.05


def test_a_half_that_knows_nothing_gets_no_say() -> None:
    text, image = Single(noisy(2.0, 0), ALL), Single(noisy(0.0, 1), ALL)
    fused = fit_late_fusion((text, image, TARGETS), (text, image, TARGETS))
    assert accuracy(fused.scores(text, image)) >= accuracy(text.scores)


def test_overconfidence_of_one_half_is_taken_back_before_they_are_joined() -> None:
    text, calm = Single(noisy(1.5, 0), ALL), Single(noisy(1.5, 1), ALL)
    loud = Single(calm.scores * 10, ALL)
    one, other = (fit_late_fusion((text, photo, TARGETS), (text, photo, TARGETS)) for photo in (calm, loud))
    assert other.image_temperature / one.image_temperature == pytest.approx(10, rel=0.01)
    assert accuracy(other.scores(text, loud)) == pytest.approx(accuracy(one.scores(text, calm)), abs=0.01)


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_a_listing_without_a_photo_is_answered_by_its_title_alone(mean: str) -> None:
    there = np.arange(300) % 2 == 0
    fusion = LateFusion(2.0, 0.5, 0.3, mean)  # type: ignore[arg-type]  # one of the literals
    text, image = Single(noisy(1.0, 0), ALL), Single(noisy(1.0, 1), there)
    found = path_probabilities(fusion.scores(text, image))
    np.testing.assert_allclose(found[~there], path_probabilities(text.scores[~there], 2.0), rtol=1e-9)
    found = path_probabilities(fusion.scores(Single(text.scores, there), Single(image.scores, ALL)))
    np.testing.assert_allclose(found[~there], path_probabilities(image.scores[~there], 0.5), rtol=1e-9)
