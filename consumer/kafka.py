"""The only file that imports the Kafka client: makes clients with what the promises need, and re-exports its words.

Settings fixed here and why are in docs/decisions/0003-delivery.md; everything else passes through from `kafka.*`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from consumer.errors import ConfigError
from consumer.settings import KafkaSettings

__all__ = [
    "OFFSET_BEGINNING",
    "OFFSET_END",
    "OFFSET_INVALID",
    "TIMESTAMP_LOG_APPEND_TIME",
    "AdminClient",
    "ConfigResource",
    "Consumer",
    "KafkaError",
    "KafkaException",
    "Message",
    "NewTopic",
    "OffsetSpec",
    "Producer",
    "TopicCollection",
    "TopicPartition",
    "make_admin",
    "make_consumer",
    "make_producer",
    "topic_identity",
]

log = structlog.get_logger("mmcat.kafka")

# What only one kind of client understands; librdkafka warns about the rest.
_CONSUMER_ONLY: Final = ("fetch.", "session.", "heartbeat.", "max.poll.", "queued.", "group.", "partition.assignment.",
                         "check.crcs", "max.partition.", "auto.commit.")  # fmt: skip
_PRODUCER_ONLY: Final = ("linger.", "batch.", "compression.", "queue.buffering.", "message.send.", "message.timeout.",
                         "delivery.", "request.timeout.", "retries", "retry.", "sticky.", "transaction.")  # fmt: skip


def make_consumer(
    settings: KafkaSettings,
    *,
    group_id: str,
    extra: Mapping[str, Any] | None = None,
    on_error: Callable[[KafkaError], None] | None = None,
) -> Consumer:
    """A consumer that never commits by itself, sees only committed records, and leaves resets to us.

    `auto.offset.reset=error`: a position that is gone is told to the caller as an error message, never skipped over.

    Raises:
        ConfigError: librdkafka does not take a property.
    """
    wanted = {
        # Bounds what librdkafka holds beyond our own byte budget; 64 MiB, its default, is a lot.
        "queued.max.messages.kbytes": 24 * 1024,
        "partition.assignment.strategy": "cooperative-sticky",
        **_passed(settings, _PRODUCER_ONLY),
        **({"group.instance.id": settings.instance_id} if settings.instance_id else {}),
        **(extra or {}),
        "bootstrap.servers": settings.bootstrap_servers,
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
    }
    consumer: Consumer = _made(Consumer, wanted, on_error)
    return consumer


def make_producer(
    settings: KafkaSettings,
    *,
    extra: Mapping[str, Any] | None = None,
    on_error: Callable[[KafkaError], None] | None = None,
) -> Producer:
    """An idempotent producer, acks=all, with the partitioner that Java clients use, so that keys meet their partitions.

    Raises:
        ConfigError: librdkafka does not take a property.
    """
    wanted = {
        "linger.ms": 5,
        "compression.type": "lz4",
        # A broker away for longer is told to us: the partition's work is dropped and read again.
        "delivery.timeout.ms": 120_000,
        **_passed(settings, _CONSUMER_ONLY),
        **(extra or {}),
        "bootstrap.servers": settings.bootstrap_servers,
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
    }
    producer: Producer = _made(Producer, wanted, on_error)
    return producer


def make_admin(settings: KafkaSettings) -> AdminClient:
    """An admin client; keep it until its futures have answered (a collected one destroys them)."""
    wanted = {**_passed(settings, _CONSUMER_ONLY + _PRODUCER_ONLY), "bootstrap.servers": settings.bootstrap_servers}
    admin: AdminClient = _made(AdminClient, wanted, None)
    return admin


def topic_identity(admin: AdminClient, name: str, timeout_s: float) -> tuple[str, int]:
    """Id of a topic and number of its partitions: one that was deleted and made again has another id.

    Blocks for twice `timeout_s` at most.

    Raises:
        KafkaException: the broker is away, or has no such topic.
        TimeoutError: no answer.
    """
    (answer,) = admin.describe_topics(TopicCollection([name]), request_timeout=timeout_s).values()
    found = answer.result(2 * timeout_s)
    return str(found.topic_id), len(found.partitions)


def _passed(settings: KafkaSettings, not_for: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in settings.properties().items() if not name.startswith(not_for)}


def _made(client: Callable[..., Any], wanted: dict[str, Any], on_error: Callable[[KafkaError], None] | None) -> Any:
    # librdkafka's own log lines are off (level 0): what matters reaches us as an error, and our log stays JSON.
    def told(error: KafkaError) -> None:
        log.warning("kafka_client_error", code=error.name(), detail=error.str(), fatal=error.fatal())
        if on_error is not None:
            on_error(error)

    try:
        return client({**wanted, "error_cb": told, "log_level": 0})
    except KafkaException as error:
        reason = error.args[0]
        raise ConfigError(f"Kafka client: {reason.str() if isinstance(reason, KafkaError) else reason}") from None
