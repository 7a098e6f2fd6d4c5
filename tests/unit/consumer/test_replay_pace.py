"""The pace lets through what was asked for and no more."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.replay_pace import Pace


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
