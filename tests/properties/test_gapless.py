"""A transaction holds nothing past a gap of its partition, and what it commits is exactly what it holds."""

from collections import defaultdict
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from consumer.gapless import Contents, Gapless, Outcome
from consumer.offsets import Lease
from consumer.records import Outgoing

PARTITIONS = 3


class Piece(NamedTuple):
    """Work that sends nothing."""

    lease: Lease
    offset: int
    records: tuple[Outgoing, ...] = ()


def _outcome(lease: Lease, offset: int) -> Outcome[Piece]:
    return Outcome(Piece(lease, offset), lambda *_: None)


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[int, list[int]], list[tuple[str, int, int]]]:
    """Offsets polled of each partition (rising, with gaps), and what happens after, in any order."""
    polled = {partition: sorted(draw(st.sets(st.integers(0, 30), max_size=12))) for partition in range(PARTITIONS)}
    ends = [("put", partition, offset) for partition, offsets in polled.items() for offset in offsets]
    ends = draw(st.permutations(ends))
    steps: list[tuple[str, int, int]] = []
    for end in ends[: draw(st.integers(0, len(ends)))]:
        steps.append(end)
        steps += [("take", 0, 0)] * draw(st.integers(0, 1)) + [("commit", 0, 0)] * draw(st.integers(0, 1))
    return polled, [*steps, ("take", 0, 0), ("commit", 0, 0)]


@given(histories(), st.sets(st.integers(0, PARTITIONS - 1)))
def test_a_transaction_holds_nothing_past_a_gap(
    history: tuple[dict[int, list[int]], list[tuple[str, int, int]]], probation: set[int]
) -> None:
    polled, steps = history
    waiting: Gapless[Piece] = Gapless()
    contents: Contents[Piece] = Contents()
    leases = {partition: Lease(("in", partition)) for partition in polled}
    for partition, offsets in polled.items():
        for offset in offsets:
            leases[partition].start(offset)
    for partition in probation:
        waiting.on_probation(("in", partition))
    put: dict[int, set[int]] = defaultdict(set)
    committed: dict[int, list[int]] = defaultdict(list)

    def commit(contents: Contents[Piece]) -> None:
        offsets = contents.offsets
        for outcome in contents.outcomes:
            topic, partition = outcome.work.lease.partition
            assert outcome.work.offset < offsets[topic, partition], "a record whose offset is not committed with it"
            committed[partition].append(outcome.work.offset)
        for (_, partition), end in offsets.items():
            below = [one for one in polled[partition] if one < end]
            assert committed[partition] == below, "in order, each once, and nothing missing below the offset"
            assert set(below) <= put[partition], "an offset past work that has not ended"
        waiting.passed(offsets)

    for step, partition, offset in steps:
        if step == "put":
            waiting.put([_outcome(leases[partition], offset)])
            put[partition].add(offset)
        elif step == "take":
            waiting.take(contents)
            if contents.alone is not None:
                assert {*contents.ends} == {contents.alone}
        else:
            commit(contents)
            contents = Contents()
    for _ in range(PARTITIONS):
        waiting.take(contents)
        commit(contents)
        contents = Contents()
    for partition, offsets in polled.items():
        first = next((one for one in offsets if one not in put[partition]), None)
        assert committed[partition] == [one for one in offsets if first is None or one < first], (
            "something stays behind"
        )


@given(st.sets(st.integers(0, 10), min_size=1), st.integers(0, 11))
def test_what_a_lease_that_ended_left_is_dropped_and_breaks_the_transaction_that_holds_some(
    offsets: set[int], taken_before: int
) -> None:
    waiting: Gapless[Piece] = Gapless()
    contents: Contents[Piece] = Contents()
    lease = Lease(("in", 0))
    for offset in sorted(offsets):
        lease.start(offset)
    early = [one for one in sorted(offsets) if one < taken_before]
    waiting.put([_outcome(lease, offset) for offset in early])
    taken, dropped = waiting.take(contents)
    assert ([one.work.offset for one in taken], dropped) == (early, [])
    assert not contents.broken
    waiting.put([_outcome(lease, offset) for offset in offsets.difference(early)])
    lease.end()
    taken, dropped = waiting.take(contents)
    assert taken == []
    assert sorted(one.work.offset for one in dropped) == sorted(offsets.difference(early))
    assert contents.broken == bool(early)


def test_what_is_on_probation_goes_alone_and_lets_others_go_after_it() -> None:
    waiting: Gapless[Piece] = Gapless()
    good, bad = Lease(("in", 0)), Lease(("in", 1))
    for lease in (good, bad):
        lease.start(0)
        waiting.put([_outcome(lease, 0)])
    waiting.on_probation(bad.partition)
    first: Contents[Piece] = Contents()
    second: Contents[Piece] = Contents()
    waiting.take(first)
    waiting.take(second)
    assert ({*first.ends}, {*second.ends}) == ({bad}, {good})
