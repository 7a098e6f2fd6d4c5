"""Reads the dead-letter topic: a range of it, or one letter; and the journals of what was sent again.

Disturbs nobody: it reads by assignment under a group of its own, `<group_id>-dead-letter`. Before letters.py, which
says what a record means; `mmcat dead-letter list|show` and letter_replay.py use it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from consumer.intake import incoming
from consumer.kafka import KafkaError, KafkaException, TopicPartition, make_admin, make_consumer, require_topics
from consumer.letter_journal import Journal
from consumer.letters import Letter, read_letter
from consumer.replay_range import find_spans
from consumer.settings import Settings
from consumer.spans import Bound, Remaining, Span

BROKER_S: Final = 10.0
CONSUME_S: Final = 0.1
CONSUME_RECORDS: Final = 200


class LetterReader:
    """A context manager; single-threaded.

    Raises:
        ConfigError: (on entry) there is no such topic.
        KafkaException: (everywhere) the broker is away, or does not let us in.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.topics.dead_letter
        self._admin = make_admin(settings.kafka)
        extra = {"enable.partition.eof": True, "fetch.wait.max.ms": 50}
        self._consumer = make_consumer(settings.kafka, group_id=f"{settings.kafka.group_id}-dead-letter", extra=extra)

    def __enter__(self) -> Self:
        self.require(self._topic)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def require(self, topic: str) -> None:
        """Ask for a topic.

        Raises:
            ConfigError: there is none of that name.
        """
        require_topics(self._admin, self._settings.kafka, [topic], BROKER_S)

    def spans(self, start: Bound, end: Bound) -> tuple[Span, ...]:
        """What the topic holds of a range now.

        Raises:
            ConfigError: the broker does not know where its topics end.
        """
        return find_spans(self._consumer, self._topic, start, end, BROKER_S)

    def letters(self, spans: Sequence[Span]) -> Iterator[Letter]:
        """Every letter of the spans, each partition in order."""
        remaining = Remaining(spans)
        self._consumer.assign([TopicPartition(self._topic, one.partition, one.start) for one in spans])
        deadline = time.monotonic() + BROKER_S
        while remaining.open:
            for message in self._consumer.consume(CONSUME_RECORDS, CONSUME_S):
                deadline = time.monotonic() + BROKER_S
                partition, offset, error = message.partition(), message.offset(), message.error()
                if partition is None or offset is None:
                    continue
                if error is None:
                    if remaining.record(partition, offset):
                        yield read_letter(incoming(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    remaining.end_of_partition(partition, offset)
                elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                    self._skip_gone(remaining, partition)
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        self._consumer.unassign()

    def letter(self, partition: int, offset: int) -> Letter | None:
        """One of them; None where nothing stands."""
        return next(self.letters([Span(partition, offset, offset + 1)]), None)

    def journals(self, spans: Sequence[Span]) -> dict[int, Journal]:
        """What was sent again of what is still there, by partition."""
        asked = [TopicPartition(self._topic, one.partition) for one in spans]
        told = self._consumer.committed(asked, timeout=BROKER_S) if asked else []
        found = {one.partition: Journal.parse(one.metadata or "") for one in told}
        return {partition: one.since(self._first_offset(partition)) for partition, one in found.items()}

    def keep(self, journals: Mapping[int, tuple[int, Journal]]) -> None:
        """Write journals down, each with the offset up to which its run came; blocks for the broker's word."""
        offsets = [
            TopicPartition(self._topic, partition, offset, journal.format())
            for partition, (offset, journal) in journals.items()
        ]
        if offsets:
            self._consumer.commit(offsets=offsets, asynchronous=False)

    def _first_offset(self, partition: int) -> int:
        low, _ = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=BROKER_S)
        return low

    def _skip_gone(self, remaining: Remaining, partition: int) -> None:
        """Retention took the beginning of a span meanwhile."""
        start = remaining.gone_up_to(partition, self._first_offset(partition))
        if start is not None:
            self._consumer.seek(TopicPartition(self._topic, partition, start))
