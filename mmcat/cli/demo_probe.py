"""What the demo's broker cannot do, found by asking it and not by its name: the summary says so, and hides no gap.

The probes share a topic that exists for this alone. Compaction cannot be seen within seconds on any broker: that the
embedded one has none is known (`UNSEEN`), not probed.
"""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consumer.settings import KafkaSettings

__all__ = ["UNSEEN", "missing"]

UNSEEN = ("compaction", "retention", "storage on disk")

RECORDS = 3
ANSWER_S = 5.0
LONG_AGO_MS = 1_000_000_000_000


def missing(settings: "KafkaSettings") -> list[str]:
    """Probe the broker; blocks for 2–4 s. Returns what it lacks, in words for a person."""
    from consumer.kafka import NewTopic, make_admin, make_producer

    admin = make_admin(settings)
    topic = f"mmcat-probe-{secrets.token_hex(4)}"
    config = {"message.timestamp.type": "LogAppendTime"}
    admin.create_topics([NewTopic(topic, 1, 1, config=config)], operation_timeout=ANSWER_S)[topic].result(ANSWER_S)
    try:
        producer = make_producer(settings)
        for number in range(RECORDS):
            producer.produce(topic, b"v", f"k{number}".encode(), timestamp=LONG_AGO_MS)
        producer.flush(ANSWER_S)
        probes: dict[str, Callable[[], bool]] = {
            "end offsets (so no lag)": lambda: _knows_its_end(settings, topic),
            "offsets by time (so no replay)": lambda: _knows_times(settings, topic),
            "append times": lambda: _stamps(settings, topic),
            "transactions that can be aborted": lambda: _aborts(settings, topic),
        }
        return [name for name, works in probes.items() if not _tried(works)]
    finally:
        admin.delete_topics([topic], operation_timeout=ANSWER_S)[topic].exception(ANSWER_S)


def _tried(works: Callable[[], bool]) -> bool:
    from consumer.kafka import KafkaException

    try:
        return works()
    except KafkaException:  # an answer that the client cannot read, or none in time, is no answer
        return False


def _reader(settings: "KafkaSettings") -> Any:
    from consumer.kafka import make_consumer

    return make_consumer(settings, group_id=f"mmcat-probe-{secrets.token_hex(4)}")


def _knows_its_end(settings: "KafkaSettings", topic: str) -> bool:
    from consumer.kafka import TopicPartition

    reader = _reader(settings)
    try:
        ends = reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=ANSWER_S)
        return ends is not None and ends[1] == RECORDS
    finally:
        reader.close()


def _knows_times(settings: "KafkaSettings", topic: str) -> bool:
    from consumer.kafka import OFFSET_END, TopicPartition

    reader = _reader(settings)
    try:
        [found] = reader.offsets_for_times([TopicPartition(topic, 0, 2**53)], timeout=ANSWER_S)
        return bool(found.offset == OFFSET_END)
    finally:
        reader.close()


def _stamps(settings: "KafkaSettings", topic: str) -> bool:
    return bool(_first(settings, topic) > LONG_AGO_MS)


def _first(settings: "KafkaSettings", topic: str) -> int:
    """The time of the first record, 0 where none comes."""
    from consumer.kafka import TopicPartition

    reader = _reader(settings)
    try:
        reader.assign([TopicPartition(topic, 0, 0)])
        [message] = reader.consume(1, ANSWER_S) or [None]
        return 0 if message is None or message.error() is not None else int(message.timestamp()[1])
    finally:
        reader.close()


def _aborts(settings: "KafkaSettings", topic: str) -> bool:
    """Whether a reader of committed records is spared an aborted one."""
    from consumer.kafka import TopicPartition, make_producer

    extra = {
        "transactional.id": f"mmcat-probe-{secrets.token_hex(4)}",
        "transaction.timeout.ms": 10_000,
        "delivery.timeout.ms": 10_000,
    }
    producer = make_producer(settings, extra=extra)
    producer.init_transactions(ANSWER_S)
    producer.begin_transaction()
    producer.produce(topic, b"aborted", b"aborted")
    producer.flush(ANSWER_S)
    producer.abort_transaction(ANSWER_S)
    producer.begin_transaction()
    producer.produce(topic, b"committed", b"committed")
    producer.commit_transaction(ANSWER_S)
    reader = _reader(settings)
    try:
        reader.assign([TopicPartition(topic, 0, RECORDS)])
        while messages := reader.consume(1, ANSWER_S):
            if (value := messages[0].value()) in (b"aborted", b"committed") and messages[0].error() is None:
                return bool(value == b"committed")
        return False
    finally:
        reader.close()
