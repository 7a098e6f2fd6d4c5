"""What tests do with a broker from outside: make topics, send, read to the end. No part of the product is used here.

Reading to the end goes by position, not by count: control records and compacted gaps have no record to count.
"""

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic

DEADLINE_S = 30.0
"""How long a test waits for a broker before it says what was missing; never reached in a good run."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record as the broker keeps it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The topics of one test; the attributes are those of the setting `topics`."""

    input: str
    output: str
    review: str
    dead_letter: str
    retry_prefix: str

    def env(self) -> dict[str, str]:
        """The environment that gives these names to a program of ours; without delay topics, which few tests need."""
        fields = ("input", "output", "review", "dead_letter", "retry_prefix")
        return {"MMCAT_RETRY__DELAYS": "[]"} | {
            f"MMCAT_TOPICS__{field.upper()}": getattr(self, field) for field in fields
        }


def random_topics() -> TopicNames:
    """Return names that no other test uses."""
    tag = uuid.uuid4().hex[:10]
    return TopicNames(
        *(f"test.{tag}.{kind}" for kind in ("registered", "categorized", "review", "dead-letter", "retry"))
    )


def create_topics(bootstrap: str, names: Iterable[str], partitions: int, config: dict[str, str] | None = None) -> None:
    """Make topics with one replica; blocks until the broker has them."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    made = admin.create_topics([NewTopic(name, partitions, 1, config=config or {}) for name in names])
    for future in made.values():
        future.result(DEADLINE_S)


def accept(bootstrap: str, topic: str, max_bytes: int) -> None:
    """Let a topic take records of this size."""
    entry = ConfigEntry("max.message.bytes", str(max_bytes), incremental_operation=AlterConfigOpType.SET)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([wanted]).values():
        future.result(DEADLINE_S)


def send(bootstrap: str, topic: str, records: Iterable[tuple[bytes | None, bytes | None, dict[str, bytes]]]) -> int:
    """Produce (key, value, headers) in order and wait for every acknowledgement; returns how many.

    Records of one key are sent a millisecond apart at least: by time, those of one millisecond have no order.
    """
    properties = {"enable.idempotence": True, "partitioner": "murmur2_random", "message.max.bytes": 8_000_000}
    producer = Producer({"bootstrap.servers": bootstrap, **properties})
    errors: list[KafkaError] = []
    together: set[bytes] = set()
    count = 0

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            errors.append(error)

    for key, value, headers in records:
        if key in together:
            producer.flush(DEADLINE_S)
            time.sleep(0.002)
            together.clear()
        producer.produce(topic, value, key, headers=list(headers.items()), on_delivery=delivered)
        producer.poll(0)
        together |= {key} if key is not None else set()
        count += 1
    unsent = producer.flush(DEADLINE_S)
    assert not errors, errors
    assert unsent == 0, f"{unsent} records were not sent"
    return count


@contextmanager
def reader(bootstrap: str, **properties: str | int | bool) -> Iterator[Consumer]:
    """A consumer without a group's life: it commits nothing unless the test does."""
    base: dict[str, str | int | float | bool] = {
        "bootstrap.servers": bootstrap,
        "group.id": f"test-{uuid.uuid4().hex[:10]}",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 20,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    }
    with closing(Consumer(base | properties)) as consumer:
        yield consumer


def read_topic(bootstrap: str, topic: str) -> list[Record]:
    """Return every record of the topic up to its present end, partition by partition in order of offset."""
    with reader(bootstrap) as consumer:
        partitions = sorted(consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        unfinished, records = set(partitions), []
        deadline = time.monotonic() + DEADLINE_S
        while unfinished:
            assert time.monotonic() < deadline, f"no end of {topic} in partitions {unfinished}"
            for message in consumer.consume(500, 0.05):
                error = message.error()
                if error is None:
                    records.append(to_record(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition())
                elif not error.retriable():
                    raise KafkaException(error)
        return sorted(records, key=lambda record: (record.partition, record.offset))


def to_record(message: Message) -> Record:
    """Copy a client's message into a plain record."""
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    pairs = message.headers() or []
    assert isinstance(pairs, list)
    headers = {name: value if isinstance(value, bytes) else str(value).encode() for name, value in pairs}
    return Record(partition, offset, message.key(), message.value(), headers, message.timestamp()[1])


def committed(bootstrap: str, group: str, topic: str) -> dict[int, int]:
    """Return the group's committed offset of each partition of the topic (-1001 where there is none)."""
    with reader(bootstrap, **{"group.id": group}) as consumer:
        partitions = consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions
        found = consumer.committed([TopicPartition(topic, partition) for partition in partitions], timeout=DEADLINE_S)
        return {one.partition: one.offset for one in found}


def end_offsets(bootstrap: str, topic: str, *, isolation: str = "read_committed") -> dict[int, int]:
    """Return where each partition ends: of committed records, before the first open transaction."""
    with reader(bootstrap, **{"isolation.level": isolation}) as consumer:
        partitions = consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions
        ends = {}
        for partition in partitions:
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=DEADLINE_S)
            ends[partition] = high
        return ends


def warm_groups(bootstrap: str) -> None:
    """Join a group once: on a fresh broker the first join takes 3 s, which no test should be charged for."""
    topic = f"test.{uuid.uuid4().hex[:10]}.warm"
    create_topics(bootstrap, [topic], 1)
    joined: list[TopicPartition] = []
    with reader(bootstrap) as consumer:
        consumer.subscribe([topic], on_assign=lambda _consumer, given: joined.extend(given))
        deadline = time.monotonic() + DEADLINE_S
        while not joined:
            assert time.monotonic() < deadline, "no group could be joined"
            consumer.poll(0.05)
