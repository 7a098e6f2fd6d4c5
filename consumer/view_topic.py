"""Which topic the view is written from: its id, its partitions, what its records say, and how far behind the reader is.

A topic deleted and made again has the same name, other records and offsets that mean nothing to an old view; one with
more partitions holds the records of a product in two places. Both stop the writer. Before view_writer.py, which asks
whenever it takes up reading.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from consumer.errors import ViewError
from consumer.intake import header_pairs
from consumer.kafka import Consumer, KafkaException, Message, TopicPartition, make_admin, topic_identity
from consumer.metrics import Metrics
from consumer.rank import Rank
from consumer.settings import KafkaSettings
from consumer.view import RANK_HEADER, Positions, Ranked

BROKER_S: Final = 5.0


class ViewTopic:
    """The output topic, as the broker has it now. Constructed once per writer, used by its thread alone."""

    def __init__(self, settings: KafkaSettings, name: str, metrics: Metrics) -> None:
        self._admin = make_admin(settings)
        self._name = name
        self._metrics = metrics

    def identity(self) -> tuple[str, int]:
        """Id of the topic and number of its partitions. Blocks for twice `BROKER_S` at most.

        Raises:
            KafkaException: the broker is away, or has no such topic.
            TimeoutError: no answer.
        """
        return topic_identity(self._admin, self._name, BROKER_S)

    def refuse_other(self, kept: Positions, topic_id: str, partitions: int) -> None:
        """Stop at a view that was written from another topic.

        Raises:
            ViewError: with what changed and what to do.
        """
        if kept.topic_id != topic_id:
            what = "it was deleted and made again"
        elif kept.partitions != partitions:
            what = f"it had {kept.partitions} partitions and has {partitions} now"
        else:
            return
        raise ViewError(
            f"the view was written from another topic {self._name}: {what}, so its ranks and positions may not fit; "
            "fill it anew with `mmcat cache rebuild` and start the writer again"
        )

    def commit(self, consumer: Consumer, next_offsets: Mapping[int, int]) -> None:
        """Tell Kafka how far the view is, for those who watch lag there; nothing is ever read from it."""
        offsets = [TopicPartition(self._name, one, offset) for one, offset in next_offsets.items() if offset >= 0]
        if offsets:
            with suppress(KafkaException):  # the group is being rebalanced, or the broker is away: next time
                consumer.commit(offsets=offsets, asynchronous=True)

    def show_lag(self, consumer: Consumer, next_offsets: Mapping[int, int]) -> None:
        """Set `mmcat_consumer_lag{role="view"}` of the partitions held, from what the last fetches told."""
        for partition, offset in next_offsets.items():
            low, high = consumer.get_watermark_offsets(TopicPartition(self._name, partition), cached=True)
            lag = high - max(offset, low, 0)
            if lag >= 0:  # below zero: the broker told none yet, or tells wrong ones
                self._metrics.lag.labels(self._name, str(partition), "view").set(lag)

    def forget_lag(self, partition: int) -> None:
        """Somebody else shows it from now on."""
        with suppress(KeyError):
            self._metrics.lag.remove(self._name, str(partition), "view")


def read_record(message: Message) -> Ranked | None:
    """What a record of the output topic says of a product; None if it cannot be applied."""
    key, headers = message.key(), header_pairs(message)
    rank = dict(headers).get(RANK_HEADER)
    if not isinstance(key, bytes) or not isinstance(rank, bytes):
        return None
    place = (message.partition() or 0, message.offset() or 0)
    try:
        return Ranked(key.decode(), Rank.parse(rank.decode("ascii")), message.value(), *place, headers)
    except ValueError:  # UnicodeDecodeError is one
        return None
