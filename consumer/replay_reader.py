"""Reads spans of a topic to their ends, however often they have to be begun again: the hands of a replay on Kafka.

Single-threaded; blocks for `CONSUME_S` at most, but for a round trip where records were deleted meanwhile. After
`replay_range` and `replay_plan`, which name the spans; before `replay_sieve` and the pipeline.
"""

from collections.abc import Sequence
from typing import Final

import structlog

from consumer.errors import FatalError
from consumer.intake import incoming
from consumer.kafka import Consumer, KafkaError, Message, TopicPartition
from consumer.records import Incoming
from consumer.spans import Remaining, Span

log = structlog.get_logger("mmcat.replay")

CONSUME_S: Final = 0.05
BROKER_S: Final = 15.0
REFUSALS: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class RangeReader:
    """Takes the consumer's assignment over, as long as it is used.

    Args:
        consumer: from `replay_range.open_consumer`, which is told of the end of each partition.
        topic: to read.
        spans: what of it, one for a partition at most.
    """

    def __init__(self, consumer: Consumer, topic: str, spans: Sequence[Span]) -> None:
        self._consumer, self._topic = consumer, topic
        self._ends = {span.partition: span.end for span in spans}
        self._remaining = Remaining(spans)
        consumer.assign([TopicPartition(topic, span.partition, span.start) for span in spans])

    @property
    def open(self) -> bool:
        """Whether more may come."""
        return bool(self._remaining.open)

    def read(self, at_most: int) -> list[Incoming]:
        """The next records of the range, in the order of their partitions; none where none came in time.

        Raises:
            FatalError: the broker refuses to let the topic be read.
            KafkaException: the broker is away, and where to go on is unknown.
        """
        polled = self._consumer.consume(at_most, CONSUME_S)
        return [record for message in polled if (record := self._taken(message)) is not None]

    def again(self, partition: int, start: int) -> None:
        """Read a partition again from here on."""
        self._remaining.again(Span(partition, start, self._ends[partition]))
        self._consumer.seek(TopicPartition(self._topic, partition, start))

    def _taken(self, message: Message) -> Incoming | None:
        """What a polled message means: a record of the range, the end of a partition, or an error."""
        partition, offset, error = message.partition(), message.offset(), message.error()
        if error is not None:
            self._told(error, partition, offset)
            return None
        if partition is None or offset is None or not self._remaining.record(partition, offset):
            return None
        return incoming(message)

    def _told(self, error: KafkaError, partition: int | None, offset: int | None) -> None:
        if error.code() == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
            self._remaining.end_of_partition(partition, offset)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET and partition is not None:
            where = TopicPartition(self._topic, partition)
            low, _ = self._consumer.get_watermark_offsets(where, timeout=BROKER_S)
            log.warning("replay_records_gone", partition=partition, up_to=low)
            if (start := self._remaining.gone_up_to(partition, low)) is not None:
                self._consumer.seek(TopicPartition(self._topic, partition, start))
        elif error.fatal() or error.code() in REFUSALS:
            raise FatalError(f"the broker refuses to let {self._topic} be read: {error.str()}")
