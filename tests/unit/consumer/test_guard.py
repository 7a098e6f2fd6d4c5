"""The guard holds a partition back when most of what it brings is bad, for long enough, and lets it go by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.guard import Guard
from consumer.settings import GuardSettings

ONE, OTHER = ("in", 1), ("in", 2)
WINDOW, HOLD_S, PROBES = 10, 60.0, 4


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Partition:
    """A guarded partition whose records have their outcome at once."""

    def __init__(self, share: float = 0.5) -> None:
        self.clock = Clock()
        settings = GuardSettings(share=share, window=WINDOW, hold_s=HOLD_S, probes_per_minute=PROBES)
        self.guard = Guard(settings, self.clock)
        self.offset = 0

    def give(self, outcomes: str) -> list[float]:
        """`x` is a dead letter; returns how long the partition rests after each."""
        rests = []
        for outcome in outcomes:
            rests.append(self.guard.admit(ONE, self.offset))
            self.guard.told(ONE, [(self.offset, outcome == "x")])
            self.offset += 1
        return rests

    def paused(self) -> "Partition":
        self.give("x" * WINDOW)
        self.clock.now += HOLD_S
        self.give("x")
        assert self.guard.paused == [1]
        return self


def test_half_bad_for_a_minute_pauses_and_then_one_record_at_a_time_is_tried() -> None:
    partition = Partition()
    partition.give("x." * (WINDOW // 2))
    partition.clock.now = HOLD_S - 0.1
    assert partition.give("x.") == [0.0, 0.0]
    assert partition.guard.sentence is None
    partition.clock.now = HOLD_S
    assert partition.give("x") == [60 / PROBES]
    assert partition.guard.paused == [1]
    assert "partitions 1: 50% and more of the last 10" in (partition.guard.sentence or "")


@pytest.mark.parametrize("outcomes", ["x" * (WINDOW - 1), "xxxx......" * 5, "x" * 8 + "." * 10])
def test_too_few_or_not_bad_enough_or_long_over_pauses_nothing(outcomes: str) -> None:
    partition = Partition()
    partition.give(outcomes)
    partition.clock.now = 10 * HOLD_S
    partition.give(outcomes[:1] if len(outcomes) >= WINDOW else "")
    assert partition.guard.paused == []


def test_a_good_while_between_begins_the_minute_anew() -> None:
    partition = Partition()
    partition.give("x" * WINDOW)
    partition.clock.now = HOLD_S / 2
    partition.give("." * WINDOW + "x" * WINDOW)
    partition.clock.now = HOLD_S + 1
    assert partition.give("x") == [0.0]


def test_good_probes_let_it_go_and_bad_ones_do_not() -> None:
    partition = Partition().paused()
    partition.give("x" * 3 * PROBES + "x..")
    assert partition.guard.paused == [1], "half of the last four is bad"
    partition.give(".")
    assert partition.guard.paused == []
    assert partition.give("x") == [0.0], "judged anew: one bad record says nothing"


def test_outcomes_told_together_count_like_those_told_one_by_one() -> None:
    partition = Partition()
    partition.guard.told(ONE, [(offset, offset % 2 == 0) for offset in range(3 * WINDOW)])
    assert partition.guard.paused == []
    partition.clock.now = HOLD_S
    partition.guard.told(ONE, [(100, True)])
    assert partition.guard.paused == [1]
    probes = range(200, 200 + PROBES)
    for offset in probes:
        assert partition.guard.admit(ONE, offset) == 60 / PROBES
    partition.guard.told(ONE, [(150, False), *((offset, False) for offset in probes)])
    assert partition.guard.paused == []


def test_what_was_in_flight_when_it_was_paused_says_nothing_of_now() -> None:
    partition = Partition().paused()
    for offset in range(1000, 1000 + 2 * PROBES):
        partition.guard.told(ONE, [(offset, False)])
    assert partition.guard.paused == [1]


def test_a_person_lets_it_go_all_or_one() -> None:
    partition = Partition().paused()
    assert partition.guard.resume([2]) == []
    assert partition.guard.paused == [1]
    assert partition.guard.resume() == [1]
    assert partition.guard.paused == []
    assert partition.guard.sentence is None


def test_partitions_are_judged_alone_and_forgotten_when_they_go() -> None:
    partition = Partition().paused()
    assert partition.guard.admit(OTHER, 0) == 0.0
    partition.guard.forget(ONE)
    assert partition.guard.paused == []
    assert partition.give("x") == [0.0]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 40))), st.floats(0.1, 1.0))
def test_it_pauses_exactly_when_a_full_window_has_been_bad_for_long_enough(
    records: list[tuple[bool, float]], share: float
) -> None:
    partition, seen, since = Partition(share), list[bool](), None
    for dead, later in records:
        partition.clock.now += later
        last = seen[-WINDOW:]
        expected = since is not None and partition.clock.now - since >= HOLD_S and len(last) == WINDOW
        paused = partition.guard.admit(ONE, len(seen)) > 0
        assert paused == expected
        if paused:
            return
        partition.guard.told(ONE, [(len(seen), dead)])
        seen.append(dead)
        last = seen[-WINDOW:]
        bad = len(last) == WINDOW and sum(last) >= share * WINDOW
        since = (partition.clock.now if since is None else since) if bad else None
