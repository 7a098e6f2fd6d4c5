"""The pace lets through what was asked for and no more; what saw more stays."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.rank import Rank
from consumer.replay_guard import Pace, saw_more


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    st.floats(min_value=0.01, max_value=1e4),
    st.lists(st.tuples(st.floats(min_value=0, max_value=3), st.integers(0, 500)), max_size=40),
)
def test_never_more_than_a_second_ahead_of_the_rate(per_s: float, steps: list[tuple[float, int]]) -> None:
    clock = _Clock()
    pace = Pace(per_s, clock)
    taken = 0
    for wait_s, most in steps:
        clock.now += wait_s
        allowed = pace.allowed(most)
        assert 0 <= allowed <= most
        pace.spend(allowed)
        taken += allowed
        assert taken <= clock.now * per_s + 1e-6


def test_a_steady_reader_gets_the_whole_rate() -> None:
    clock = _Clock()
    pace = Pace(10, clock)
    taken = 0
    for _ in range(1_000):
        clock.now += 0.05
        allowed = pace.allowed(500)
        pace.spend(allowed)
        taken += allowed
    assert 499 <= taken <= 500


def test_after_a_pause_there_is_no_flood() -> None:
    clock = _Clock()
    pace = Pace(10, clock)
    clock.now = 3_600
    assert pace.allowed(500) == 10


def test_without_a_rate_everything_goes() -> None:
    assert Pace(None).allowed(500) == 500


BLIND, SEEING = Rank(5, 0, 2, 1), Rank(5, 0, 2, 2)


def _result(image: str = "unavailable", input_hash: str = "a", offset: int = 1) -> bytes:
    return json.dumps({"image": image, "input_hash": input_hash, "origin": {"offset": offset}}).encode()


@pytest.mark.parametrize(
    ("held", "ours", "value", "stays"),
    [
        (_result("used"), BLIND, _result(), True),
        (_result("used", offset=0), BLIND, _result(), True),  # registered again as it was
        (_result("used", "b"), BLIND, _result(), True),  # from the same event
        (_result("used", "b", 0), BLIND, _result(), False),  # another listing
        (_result("unavailable"), BLIND, _result(), False),
        (_result("used"), SEEING, _result("used"), False),
        (_result("used"), Rank(5, 2, 2, 0), None, False),  # a deletion
        (None, BLIND, _result(), False),
    ],
)
def test_an_answer_that_saw_the_photo_of_the_same_listing_stays(
    held: bytes | None, ours: Rank, value: bytes | None, stays: bool
) -> None:
    assert saw_more(held, ours, value) is stays
