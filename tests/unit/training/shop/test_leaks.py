"""Nothing but content gives the answer away: boosted trees on everything else hardly beat the largest path."""

import numpy as np
import numpy.typing as npt
import pytest

from training.shop.leaks import Facts, score, side_facts, together
from training.shop.shop import ShopConfig

TRAIN, TEST = 4_000, 2_000
MOST = 1.2  # times the share of the largest path

Measured = tuple[Facts, npt.NDArray[np.int64]]


@pytest.fixture(scope="module")
def measured() -> Measured:
    return side_facts(ShopConfig(label_noise=0.0), TRAIN + TEST)


@pytest.mark.parametrize("family", ["colours", "file", "title length", "id", "address", "time and order"])
def test_no_family_of_side_facts_tells_the_path(measured: Measured, family: str) -> None:
    facts, paths = measured
    accuracy, largest = score(facts[family], paths, TRAIN)
    assert accuracy <= MOST * largest


def test_all_side_facts_together_do_not_tell_the_path(measured: Measured) -> None:
    facts, paths = measured
    assert len(facts) == 6
    accuracy, largest = score(together(facts), paths, TRAIN)
    assert accuracy <= MOST * largest


def test_the_trees_would_find_a_leak(measured: Measured) -> None:
    """The instrument works: a trace of the answer among the side facts is found."""
    facts, paths = measured
    leaky = np.concatenate([facts["title length"], (paths % 5)[:, None]], axis=1)
    accuracy, largest = score(leaky, paths, TRAIN)
    assert accuracy > MOST * largest
