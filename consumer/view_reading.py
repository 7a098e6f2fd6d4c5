"""Reads the output topic from its beginning to where it ends now, without a group and without leaving a trace.

Before view_rebuild.py and view_verify.py. A topic's end moves: it is pinned once, and what comes later is not read. The
records at the last offsets may not exist (transactions, compaction), so a partition is over by position (spans.py).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol, Self

from consumer.errors import ConfigError
from consumer.kafka import OFFSET_END, KafkaError, KafkaException, Message, TopicPartition, make_consumer
from consumer.settings import Settings
from consumer.spans import Remaining, Span

BROKER_S: Final = 15.0
SILENCE_S: Final = 60.0  # a broker that gives nothing for so long, with records outstanding, is away
BATCH_RECORDS: Final = 500
NEVER_MS: Final = 2**53


class Progress(Protocol):
    """Told how far long work is; `mmcat.cli.progress` keeps it."""

    def begin(self, stage: str, total: int) -> None:
        """A new stage of `total` units."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """So many more are done."""


class PinnedTopic:
    """The output topic, read by assignment. A context manager; single-threaded.

    Raises:
        ConfigError: the client's settings are wrong.
    """

    def __init__(self, settings: Settings) -> None:
        self.name = settings.topics.output
        self._bootstrap = settings.kafka.bootstrap_servers
        extra = {"enable.partition.eof": True, "fetch.wait.max.ms": 50}
        # A group is asked for by the client and never joined: nothing is subscribed, nothing committed.
        self._consumer = make_consumer(settings.kafka, group_id=f"{settings.kafka.group_id}-look", extra=extra)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def spans(self, since: Mapping[int, int] | None = None) -> tuple[Span, ...]:
        """From `since` (or the first record) to the present end of every partition; empty ones are left in.

        Raises:
            ConfigError: no such topic, or a broker that does not know where its topics end.
            KafkaException: the broker is away.
        """
        found = self._consumer.list_topics(self.name, timeout=BROKER_S).topics[self.name]
        if found.error is not None:
            raise ConfigError(f"the broker at {self._bootstrap} has no topic {self.name} that we may see")
        places = [TopicPartition(self.name, one, NEVER_MS) for one in sorted(found.partitions)]
        if any(one.offset != OFFSET_END for one in self._consumer.offsets_for_times(places, timeout=BROKER_S)):
            raise ConfigError(
                "this broker does not tell where its topics end (the embedded one does not): this needs Apache Kafka"
            )
        spans = []
        for place in places:
            low, high = self._consumer.get_watermark_offsets(place, timeout=BROKER_S)
            start = max(low, (since or {}).get(place.partition, low))
            spans.append(Span(place.partition, start, max(start, high)))
        return tuple(spans)

    def batches(self, spans: Sequence[Span]) -> Iterator[list[Message]]:
        """The records of these spans, in order within a partition, in batches.

        Raises:
            KafkaException: the broker refuses, or is silent for `SILENCE_S`.
        """
        wanted = [span for span in spans if span.at_most]
        remaining = Remaining(wanted)
        self._consumer.assign([TopicPartition(self.name, one.partition, one.start) for one in wanted])
        heard = time.monotonic()
        while remaining.open:
            batch = []
            for message in self._consumer.consume(BATCH_RECORDS, 0.1):
                heard = time.monotonic()
                partition, offset = message.partition() or 0, message.offset() or 0
                if (error := message.error()) is None:
                    if remaining.record(partition, offset):
                        batch.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    remaining.end_of_partition(partition, offset)
                elif (
                    error.code() == KafkaError._AUTO_OFFSET_RESET
                ):  # the cleaner passed the start by: read what is left
                    self._skip_to_first(remaining, partition)
                elif not error.retriable():
                    raise KafkaException(error)
            if batch:
                yield batch
            elif time.monotonic() - heard > SILENCE_S:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no record for {SILENCE_S:.0f} s"))
        self._consumer.unassign()

    def _skip_to_first(self, remaining: Remaining, partition: int) -> None:
        place = TopicPartition(self.name, partition)
        low, _ = self._consumer.get_watermark_offsets(place, timeout=BROKER_S)
        if (start := remaining.gone_up_to(partition, low)) is not None:
            self._consumer.seek(TopicPartition(self.name, partition, start))
