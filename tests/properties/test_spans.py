"""A replay reads what is in its range, all of it, and ends: whatever offsets are empty, wherever the end lies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.spans import Bound, Remaining, Span, spans_between


@st.composite
def partitions(draw: st.DrawFn) -> tuple[list[int], int, int, int]:
    """Offsets that hold a record, the log's end now, and a span planned when the log was shorter or as long."""
    high = draw(st.integers(min_value=1, max_value=60))
    offsets = sorted(draw(st.sets(st.integers(min_value=0, max_value=high - 1))))
    start = draw(st.integers(min_value=0, max_value=high - 1))
    end = draw(st.integers(min_value=start + 1, max_value=high))
    return offsets, high, start, end


@given(partitions())
def test_everything_in_range_is_read_and_it_ends_even_with_nothing_at_the_end(
    case: tuple[list[int], int, int, int],
) -> None:
    offsets, high, start, end = case
    remaining = Remaining([Span(0, start, end)])
    read = []
    for offset in (one for one in offsets if one >= start):
        if not remaining.open:
            break
        if remaining.record(0, offset):
            read.append(offset)
    if remaining.open:
        remaining.end_of_partition(0, high)
    assert read == [one for one in offsets if start <= one < end]
    assert not remaining.open


@given(partitions(), st.integers(min_value=0, max_value=60))
def test_it_does_not_end_before_the_broker_has_passed_the_end(
    case: tuple[list[int], int, int, int], stable: int
) -> None:
    """An open transaction holds the readable end back: what lies behind it is still to come."""
    _, _, start, end = case
    remaining = Remaining([Span(0, start, end)])
    remaining.end_of_partition(0, min(stable, end - 1))
    assert remaining.open == {0}


@given(
    st.dictionaries(st.integers(0, 5), st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=4),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_spans_stay_within_what_the_broker_has(marks: dict[int, tuple[int, int]], first: int, last: int) -> None:
    watermarks = {partition: (min(pair), max(pair)) for partition, pair in marks.items()}
    for span in spans_between(Bound(offset=first), Bound(offset=last), watermarks=watermarks):
        low, high = watermarks[span.partition]
        assert max(low, first) == span.start < span.end == min(high, last)
    whole = spans_between(Bound(), Bound(), watermarks=watermarks)
    assert sum(span.at_most for span in whole) == sum(high - low for low, high in watermarks.values())


def test_partitions_that_a_bound_does_not_name_are_left_out() -> None:
    watermarks = {0: (0, 10), 1: (0, 10), 2: (0, 10)}
    spans = spans_between(Bound(offsets={0: 3, 1: 4}), Bound(offsets={1: 8}), watermarks=watermarks)
    assert spans == (Span(1, 4, 8),)


def test_times_use_the_offsets_that_the_broker_gave() -> None:
    spans = spans_between(
        Bound(time_ms=5), Bound(time_ms=9), watermarks={0: (0, 10)}, start_times={0: 2}, end_times={0: 7}
    )
    assert spans == (Span(0, 2, 7),)


def test_records_deleted_meanwhile_move_the_start_or_end_the_partition() -> None:
    remaining = Remaining([Span(0, 5, 10)])
    assert remaining.gone_up_to(0, 7) == 7
    assert remaining.open == {0}
    assert remaining.gone_up_to(0, 10) is None
    assert not remaining.open


@pytest.mark.parametrize("wrong", [{"time_ms": 1, "offset": 1}, {"offset": -1}, {"offsets": {0: -1}}, {"time_ms": -5}])
def test_a_bound_is_one_thing_and_not_negative(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a bound"):
        Bound(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_the_last_record_of_the_range_ends_it_without_waiting_for_the_broker() -> None:
    remaining = Remaining([Span(0, 3, 5)])
    assert remaining.record(0, 4)
    assert not remaining.open
