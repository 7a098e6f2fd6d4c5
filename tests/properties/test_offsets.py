"""Committed is never past an unfinished record, whatever the order in which records finish."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.offsets import Lease, Offsets

P = ("topic", 0)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Offsets as polled (rising, with gaps), and some of them in an order of finishing."""
    offsets = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=30)))
    finished = draw(st.permutations(offsets))
    return offsets, finished[: draw(st.integers(0, len(finished)))]


@given(histories())
def test_committable_is_the_lowest_unfinished_offset(history: tuple[list[int], list[int]]) -> None:
    offsets, finished = history
    lease = Lease(P)
    for offset in offsets:
        lease.start(offset)
    done: set[int] = set()
    for offset in finished:
        lease.finish(offset)
        done.add(offset)
        unfinished = [one for one in offsets if one not in done]
        assert lease.committable() == (unfinished[0] if unfinished else offsets[-1] + 1)
        assert lease.unfinished == len(unfinished)


@given(histories())
def test_records_may_start_while_others_finish(history: tuple[list[int], list[int]]) -> None:
    offsets, finished = history
    lease = Lease(P)
    started: list[int] = []
    for offset in offsets:
        lease.start(offset)
        started.append(offset)
        for done in finished:
            if done in started:
                lease.finish(done)
        unfinished = [one for one in started if one not in finished]
        assert lease.committable() == (unfinished[0] if unfinished else started[-1] + 1)


@given(histories())
def test_nothing_is_committable_after_the_end(history: tuple[list[int], list[int]]) -> None:
    offsets, finished = history
    lease = Lease(P)
    for offset in offsets:
        lease.start(offset)
    before = lease.committable()
    assert lease.end() == before
    for offset in finished:
        lease.finish(offset)
    assert lease.committable() is None
    assert lease.end() is None


def test_offsets_of_a_partition_must_rise() -> None:
    lease = Lease(P)
    lease.start(5)
    with pytest.raises(ValueError, match="offset 5"):
        lease.start(5)


def test_a_new_lease_ends_the_old_one() -> None:
    offsets = Offsets()
    old = offsets.begin(P)
    old.start(3)
    new = offsets.begin(P)
    old.finish(3)
    assert old.ended
    assert offsets.changed() == {}
    new.start(3)
    new.finish(3)
    assert offsets.changed() == {P: 4}


def test_what_was_committed_is_not_committed_again_unless_it_failed() -> None:
    offsets = Offsets()
    lease = offsets.begin(P)
    lease.start(0)
    lease.finish(0)
    assert offsets.changed() == {P: 1}
    assert offsets.changed() == {}
    offsets.forget([P])
    assert offsets.changed() == {P: 1}
    assert offsets.end([P]) == {}
    assert lease.ended


def test_giving_up_returns_what_is_still_to_be_committed() -> None:
    offsets = Offsets()
    lease = offsets.begin(P)
    lease.start(0)
    lease.start(1)
    lease.finish(0)
    assert offsets.end([P, ("topic", 9)]) == {P: 1}
    assert offsets.lease(P) is None
