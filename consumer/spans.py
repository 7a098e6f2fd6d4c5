"""Which records a replay reads, and when it has read them all. Pure: knows no client.

A topic's end is a moving thing, and the record before it may not exist: compaction, transaction markers and deletion
leave offsets with nothing in them. So a span ends by position, never by the record at its last offset: it is over when
a record at or past the end comes, or when the broker says that there is nothing more before it.
Comes before `replay`, which asks the broker for the numbers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bound:
    """One side of a range: a time, or offsets (one for all partitions, or one for each), or neither: as far as it goes.

    Args:
        time_ms: first record at or after this time.
        offset: the same offset in every partition.
        offsets: an offset for each partition named; the others are left out of the replay.
    """

    time_ms: int | None = None
    offset: int | None = None
    offsets: Mapping[int, int] | None = None

    def __post_init__(self) -> None:
        given = [one for one in (self.time_ms, self.offset, self.offsets) if one is not None]
        if len(given) > 1:
            raise ValueError("a bound is a time, an offset, or an offset for each partition: one of them")
        numbers = [*(self.offsets or {}).values(), self.time_ms or 0, self.offset or 0]
        if min(numbers) < 0:
            raise ValueError("a bound cannot be negative")

    def of(self, partition: int, at_time: Mapping[int, int], otherwise: int) -> int | None:
        """Return the bound's offset in a partition, None where the bound leaves the partition out.

        Args:
            partition: which.
            at_time: for a bound by time, the offset that the broker gave for it in each partition.
            otherwise: for a bound that names nothing.
        """
        if self.time_ms is not None:
            return at_time[partition]
        if self.offset is not None:
            return self.offset
        if self.offsets is not None:
            return self.offsets.get(partition)
        return otherwise


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of one partition: from `start` up to, not including, `end`."""

    partition: int
    start: int
    end: int

    @property
    def at_most(self) -> int:
        """How many records there can be; fewer where offsets are empty."""
        return self.end - self.start


def spans_between(
    start: Bound,
    end: Bound,
    *,
    watermarks: Mapping[int, tuple[int, int]],
    start_times: Mapping[int, int] | None = None,
    end_times: Mapping[int, int] | None = None,
) -> tuple[Span, ...]:
    """Return the spans of a range within what each partition still has, empty ones left out.

    Args:
        start: where each partition begins; nothing means its first record.
        end: where it ends (not included); nothing means its present end, which is thereby fixed.
        watermarks: (first offset, offset after the last) of each partition.
        start_times: the offsets that the broker gave for `start.time_ms`.
        end_times: the offsets that the broker gave for `end.time_ms`.
    """
    spans = []
    for partition, (low, high) in sorted(watermarks.items()):
        first = start.of(partition, start_times or {}, low)
        last = end.of(partition, end_times or {}, high)
        if first is None or last is None:
            continue
        span = Span(partition, max(low, first), min(high, last))
        if span.start < span.end:
            spans.append(span)
    return tuple(spans)


class Remaining:
    """What is still to be read: told of every record and of every end of a partition, it says what belongs to the range
    and which partitions are over. Single-threaded."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = {span.partition: span for span in spans}
        self._open = set(self._spans)

    @property
    def open(self) -> frozenset[int]:
        """Partitions of which more may come."""
        return frozenset(self._open)

    def record(self, partition: int, offset: int) -> bool:
        """A record came. Returns whether it belongs to the range."""
        span = self._spans.get(partition)
        if span is None:
            return False
        if offset >= span.end - 1:
            self._open.discard(partition)
        return span.start <= offset < span.end

    def end_of_partition(self, partition: int, position: int) -> None:
        """The broker has nothing before `position`, which it would read next."""
        span = self._spans.get(partition)
        if span is not None and position >= span.end:
            self._open.discard(partition)

    def again(self, span: Span) -> None:
        """Read this partition again from the span's start on."""
        self._spans[span.partition] = span
        self._open.add(span.partition)

    def gone_up_to(self, partition: int, low: int) -> int | None:
        """Records before `low` were deleted meanwhile. Returns where to go on, None where that is past the end."""
        span = self._spans[partition]
        if low < span.end:
            return max(low, span.start)
        self._open.discard(partition)
        return None
