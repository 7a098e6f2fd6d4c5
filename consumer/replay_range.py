"""What a replay would read: a range of a topic turned into offsets that the broker has, fixed before the first record.

Asks the broker, changes nothing: this is `mmcat replay --dry-run`. Comes before `replay_plan`, which keeps these spans.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from consumer.errors import ConfigError
from consumer.kafka import OFFSET_END, Consumer, KafkaError, TopicPartition, make_admin, make_consumer, require_topics
from consumer.settings import Settings
from consumer.spans import Bound, Remaining, Span, spans_between

TIMEOUT_S = 15.0
NEVER_MS = 2**53
"""A time after every record: a broker that knows times answers that it has nothing there."""


@dataclass(frozen=True, slots=True)
class Range:
    """What to replay.

    Args:
        topic: the input topic, or another with the same events.
        start: where to begin.
        end: where to end, not included.
        group_id: under which progress is kept; not the group of the live service.
    """

    topic: str
    start: Bound
    end: Bound
    group_id: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What a range holds.

    Args:
        topic: that is replayed.
        spans: offsets of each partition that has something in the range.
        first_ms: time of the earliest first record of a span; None where the spans hold no record.
        last_ms: time of the latest last record of a span.
    """

    topic: str
    spans: tuple[Span, ...]
    first_ms: int | None
    last_ms: int | None

    @property
    def at_most(self) -> int:
        """How many records there can be: offsets, some of which may be empty."""
        return sum(span.at_most for span in self.spans)

    def summary(self) -> dict[str, object]:
        """As JSON; times as RFC 3339."""
        return {
            "topic": self.topic,
            "records_at_most": self.at_most,
            "first_at": _rfc3339(self.first_ms),
            "last_at": _rfc3339(self.last_ms),
            "partitions": [{"partition": one.partition, "start": one.start, "end": one.end} for one in self.spans],
        }


def look(settings: Settings, wanted: Range) -> Survey:
    """Pin a range to offsets and look at its edges; changes nothing.

    Raises:
        ConfigError: the range or its topic cannot be replayed.
        KafkaException: the broker is away.
    """
    refuse_source(settings, wanted.topic, wanted.group_id)
    require_topics(make_admin(settings.kafka), settings.kafka, [wanted.topic], TIMEOUT_S)
    consumer = open_consumer(settings, wanted.group_id)
    try:
        return survey(consumer, wanted.topic, wanted.start, wanted.end)
    finally:
        consumer.close()


def refuse_source(settings: Settings, topic: str, group_id: str) -> None:
    """Stop before a topic that is not one of events, or a group that others rely on.

    Raises:
        ConfigError: it is one.
    """
    names, live = settings.topics, settings.kafka.group_id
    if topic == names.dead_letter:
        raise ConfigError(f"{topic} holds dead letters: they have a command of their own, mmcat dead-letter replay")
    if topic in (names.output, names.review) or topic.startswith(f"{names.retry_prefix}."):
        raise ConfigError(f"{topic} is written by the service: replay the topic of its events, {names.input}")
    if group_id in (live, f"{live}-view"):
        raise ConfigError(f"the group {group_id} belongs to the live service: a replay needs one of its own")


def open_consumer(settings: Settings, group_id: str) -> Consumer:
    """A consumer that reads ranges: it is told of the end of each partition."""
    extra = {"enable.partition.eof": True, "fetch.wait.max.ms": 50}
    return make_consumer(settings.kafka, group_id=group_id, extra=extra)


def survey(consumer: Consumer, topic: str, start: Bound, end: Bound, timeout_s: float = TIMEOUT_S) -> Survey:
    """Turn a range into spans and look at their edges; blocks for a few round trips a partition.

    Args:
        consumer: from `make_consumer`, with `enable.partition.eof`; its assignment is used and left empty.
        topic: to replay.
        start: where to begin.
        end: where to end, not included; what it leaves open is fixed to the present end.
        timeout_s: for each round trip.

    Raises:
        ConfigError: no such topic, or a broker that does not know where its topics end.
        KafkaException: the broker is away.
    """
    spans = find_spans(consumer, topic, start, end, timeout_s)
    firsts = [_first_time(consumer, topic, span, timeout_s) for span in spans]
    lasts = [_last_time(consumer, topic, span, timeout_s) for span in spans]
    consumer.unassign()
    return Survey(
        topic,
        spans,
        min((one for one in firsts if one is not None), default=None),
        max((one for one in lasts if one is not None), default=None),
    )


def find_spans(
    consumer: Consumer, topic: str, start: Bound, end: Bound, timeout_s: float = TIMEOUT_S
) -> tuple[Span, ...]:
    """Turn a range into the spans of what the topic holds now; blocks for a round trip a partition, and a few more.

    Raises:
        ConfigError: no such topic, or a broker that does not know where its topics end.
        KafkaException: the broker is away.
    """
    found = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
    if found.error is not None:
        raise ConfigError(f"the topic {topic} cannot be replayed: {found.error.str()}")
    partitions = sorted(found.partitions)
    if any(offset != OFFSET_END for offset in _at_time(consumer, topic, partitions, NEVER_MS, timeout_s).values()):
        raise ConfigError(
            "this broker does not tell where its topics end, nor offsets by time (the embedded one does not): "
            "replay needs Apache Kafka"
        )
    watermarks = {
        one: consumer.get_watermark_offsets(TopicPartition(topic, one), timeout=timeout_s) for one in partitions
    }

    def times(bound: Bound) -> dict[int, int] | None:
        if bound.time_ms is None:
            return None
        offsets = _at_time(consumer, topic, partitions, bound.time_ms, timeout_s)
        return {one: watermarks[one][1] if offset == OFFSET_END else offset for one, offset in offsets.items()}

    return spans_between(start, end, watermarks=watermarks, start_times=times(start), end_times=times(end))


def _at_time(consumer: Consumer, topic: str, partitions: list[int], time_ms: int, timeout_s: float) -> dict[int, int]:
    asked = [TopicPartition(topic, partition, time_ms) for partition in partitions]
    return {one.partition: one.offset for one in consumer.offsets_for_times(asked, timeout=timeout_s)}


def _first_time(consumer: Consumer, topic: str, span: Span, timeout_s: float) -> int | None:
    return next(_times(consumer, topic, span, timeout_s), None)


def _last_time(consumer: Consumer, topic: str, span: Span, timeout_s: float) -> int | None:
    """The last offsets may be empty: look at the last one, the last two, four, … until a record shows itself."""
    back = 1
    while True:
        tail = Span(span.partition, max(span.start, span.end - back), span.end)
        times = list(_times(consumer, topic, tail, timeout_s))
        if times or tail.start == span.start:
            return times[-1] if times else None
        back *= 2


def _times(consumer: Consumer, topic: str, span: Span, timeout_s: float) -> Iterator[int]:
    """The time of each record of a span, in order; ends early where records were deleted meanwhile."""
    consumer.assign([TopicPartition(topic, span.partition, span.start)])
    remaining = Remaining([span])
    deadline = time.monotonic() + timeout_s
    while remaining.open and time.monotonic() < deadline:
        message = consumer.poll(0.1)
        if message is None:
            continue
        error, offset = message.error(), message.offset()
        if error is None and offset is not None:
            if remaining.record(span.partition, offset):
                yield message.timestamp()[1]
        elif error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
            return
        elif offset is not None:
            remaining.end_of_partition(span.partition, offset)


def _rfc3339(time_ms: int | None) -> str | None:
    if time_ms is None:
        return None
    return datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
