"""The only file that imports the Kafka client: makes clients with what the promises need, and re-exports its words.

Settings fixed here and why are in docs/decisions/0003-delivery.md; everything else passes through from `kafka.*`.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AclOperation, AdminClient, ClusterMetadata, ConfigResource, NewTopic, OffsetSpec

from consumer.errors import ConfigError
from consumer.settings import KafkaSettings

__all__ = [
    "FORBIDDEN",
    "OFFSET_BEGINNING",
    "OFFSET_END",
    "OFFSET_INVALID",
    "TIMESTAMP_LOG_APPEND_TIME",
    "TRANSACTION_TIMEOUT_S",
    "Admin",
    "AdminClient",
    "ConfigResource",
    "Consumer",
    "KafkaError",
    "KafkaException",
    "Message",
    "NewTopic",
    "Producer",
    "TopicCollection",
    "TopicPartition",
    "admin_properties",
    "end_offsets",
    "ends",
    "entry_refused",
    "fenced",
    "make_admin",
    "make_consumer",
    "make_producer",
    "make_transactional_producer",
    "polled",
    "refused",
    "topic_identity",
    "transactional_id",
    "unwritable",
]

log = structlog.get_logger("mmcat.kafka")

# What only one kind of client understands; librdkafka warns about the rest.
_CONSUMER_ONLY: Final = ("fetch.", "session.", "heartbeat.", "max.poll.", "queued.", "group.", "partition.assignment.",
                         "check.crcs", "max.partition.", "auto.commit.")  # fmt: skip
_PRODUCER_ONLY: Final = ("linger.", "batch.", "compression.", "queue.buffering.", "message.send.", "message.timeout.",
                         "delivery.", "request.timeout.", "retries", "retry.", "sticky.", "transaction.")  # fmt: skip

_FATAL_CODES: Final = frozenset(
    {
        KafkaError._FATAL,
        KafkaError._FENCED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)


_AWAY_CODES: Final = frozenset(
    {KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}
)

FORBIDDEN: Final = frozenset(
    {KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
)
"""To a producer of transactions."""

# How long the broker keeps a transaction open for a producer that is gone; readers of committed records wait so long.
TRANSACTION_TIMEOUT_S: Final = 15.0
_DELIVERY_TIMEOUT_MS: Final = 10_000  # of a record in a transaction: it must have failed before its transaction does


def make_consumer(
    settings: KafkaSettings,
    *,
    group_id: str,
    protocol: str = "classic",
    extra: Mapping[str, Any] | None = None,
    on_error: Callable[[KafkaError], None] | None = None,
) -> Consumer:
    """A consumer that never commits by itself, sees only committed records, and leaves resets to us.

    `auto.offset.reset=error`: a position that is gone is told to the caller as an error message, never skipped over.

    Args:
        protocol: `classic`, or `consumer` (KIP-848), where the broker decides what the assignor and the session are.

    Raises:
        ConfigError: librdkafka does not take a property.
    """
    wanted = {
        # Bounds what librdkafka holds beyond our own byte budget; 64 MiB, its default, is a lot.
        "queued.max.messages.kbytes": 24 * 1024,
        # Of one answer as it travels. Unpacked, which the client does at once, it may be a hundred times as much: with
        # its defaults of 1 and 50 MB, sixty events of 10 MB that travel as 100 kB took 430 MB, all of them; now 160 MB,
        # however many there are. One batch is answered always, however large.
        "fetch.message.max.bytes": 64 * 1024,
        "fetch.max.bytes": 256 * 1024,
        "message.max.bytes": 64 * 1024,  # the client raises the line above to this one
        **({"partition.assignment.strategy": "cooperative-sticky"} if protocol == "classic" else {}),
        **_passed(settings, _PRODUCER_ONLY),
        **({"group.instance.id": settings.instance_id} if settings.instance_id else {}),
        **(extra or {}),
        "bootstrap.servers": settings.bootstrap_servers,
        "group.id": group_id,
        "group.protocol": protocol,
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


def transactional_id(settings: KafkaSettings) -> str:
    """The name under which this instance's transactions fence those of its former lives.

    Raises:
        ConfigError: the instance has no name of its own. Only the service needs one, not the commands beside it.
    """
    if settings.instance_id is None:
        raise ConfigError(
            "delivery exactly_once needs kafka.instance_id, a name that this instance keeps over restarts and no "
            "other has (the pod's name in a StatefulSet): set MMCAT_KAFKA__INSTANCE_ID"
        )
    return f"{settings.group_id}-{settings.instance_id}"


def make_transactional_producer(
    settings: KafkaSettings,
    *,
    extra: Mapping[str, Any] | None = None,
    on_error: Callable[[KafkaError], None] | None = None,
) -> Producer:
    """A producer as above whose records become visible with the transaction that they are sent in.

    Raises:
        ConfigError: librdkafka does not take a property.
    """
    own = {
        "transactional.id": transactional_id(settings),
        "transaction.timeout.ms": int(TRANSACTION_TIMEOUT_S * 1000),
        "delivery.timeout.ms": _DELIVERY_TIMEOUT_MS,
        "delivery.report.only.error": True,  # the commit says that all the others were taken
        # A transaction that begins while the last one's markers are written is told to try again: soon.
        "retry.backoff.ms": 20,
    }
    return make_producer(settings, extra={**(extra or {}), **own}, on_error=on_error)


class Admin(AdminClient):
    """An admin client that says why a broker does not answer: it refuses us, or cannot be reached.

    librdkafka tells that beside the answer, when it is polled, once for each attempt to connect.
    """

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._heard: list[KafkaError] | None = None
        told: Callable[[KafkaError], None] = wanted["error_cb"]

        def noted(error: KafkaError) -> None:
            if self._heard is None:
                told(error)
            else:
                self._heard.append(error)

        wanted["error_cb"] = noted
        super().__init__(wanted)

    def list_topics(self, *args: Any, **kwargs: Any) -> ClusterMetadata:
        """As the client's own.

        Raises:
            KafkaException: no answer, with what was heard: that we are `refused`, or why no connection came about.
        """
        self._heard = []
        try:
            return super().list_topics(*args, **kwargs)
        except KafkaException:
            self.poll(0)
            if self._heard:
                raise KafkaException(next(filter(refused, self._heard), self._heard[0])) from None
            raise
        finally:
            self._heard = None


def make_admin(settings: KafkaSettings) -> Admin:
    """An admin client; keep it until its futures have answered (a collected one destroys them)."""
    admin: Admin = _made(Admin, admin_properties(settings), None)
    return admin


def require_topics(admin: AdminClient, settings: KafkaSettings, wanted: Iterable[str], timeout_s: float) -> None:
    """Ask the broker for topics; blocks for its answer.

    Raises:
        ConfigError: one is missing, or not for us.
        KafkaException: no answer.
    """
    there = admin.list_topics(timeout=timeout_s).topics
    if missing := [name for name in wanted if name not in there]:
        raise ConfigError(
            f"the broker at {settings.bootstrap_servers} has no topic {', '.join(missing)} that we may see: "
            "make it with `mmcat topics create`"
        )


def admin_properties(settings: KafkaSettings) -> dict[str, str]:
    """What an admin client of librdkafka is told, secrets too."""
    return {**_passed(settings, _CONSUMER_ONLY + _PRODUCER_ONLY), "bootstrap.servers": settings.bootstrap_servers}


def refused(error: KafkaError) -> bool:
    """Whether the broker is there and does not let us in: a wrong password, a certificate that is not trusted.

    A token that could not be fetched is none: its endpoint may be back in a moment, and the last token still be good.
    """
    if error.str().startswith("Failed to acquire SASL OAUTHBEARER token"):
        return False
    return error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED)


def entry_refused(error: KafkaError, settings: KafkaSettings) -> str:
    """The sentence for a broker that does not let us in."""
    return (
        f"the broker at {settings.bootstrap_servers} does not let us in: {error.str()}: "
        "check kafka.security.protocol, kafka.sasl.* and kafka.ssl.*"
    )


def not_done(error: KafkaError, settings: KafkaSettings) -> str:
    """The sentence for a command that the broker, or the lack of one, has ended."""
    if refused(error):
        return entry_refused(error, settings)
    where = settings.bootstrap_servers
    if error.code() in _AWAY_CODES:
        return f"the broker at {where} does not answer: {error.str()}: is it up, and is that its address?"
    return f"the broker at {where} does not do that: {error.str()}"


def ends(error: KafkaError) -> bool:
    """Whether a service that runs cannot keep its promises any longer: fenced, fatal, authorisation lost.

    TLS that fails is no such thing: so does the handshake with a broker that is just being stopped.
    """
    return error.fatal() or error.code() in _FATAL_CODES or (refused(error) and error.code() != KafkaError._SSL)


def fenced(error: KafkaError) -> bool:
    """Whether another member has joined the group under our instance id."""
    return error.code() == KafkaError.FENCED_INSTANCE_ID or "Static consumer fenced" in error.str()  # as _FATAL says it


def polled(consumer: Consumer, count: int, timeout_s: float) -> list[Message]:
    """At most `count` records and errors, waiting for the first; runs the callbacks of rebalances. Blocks.

    Raises:
        KafkaException: also where a callback failed, as those of a fenced client do. The client then raises a bare
            KafkaError, which no `except Exception` catches and no traceback can show.
    """
    try:
        return consumer.consume(count, timeout_s)
    except KafkaError as error:  # type: ignore[misc]  # no exception by its types, and yet it is raised
        failed = KafkaException(error)
    raise failed


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


def end_offsets(
    admin: AdminClient, partitions: Iterable[tuple[str, int]], timeout_s: float, *, committed: bool = False
) -> dict[tuple[str, int], int]:
    """The offset after the last record of each partition; without those that the broker does not tell.

    Blocks for some times `timeout_s` at most.

    Args:
        committed: for a reader of committed records: before the first open transaction.
    """
    asked = {TopicPartition(*one): OffsetSpec.latest() for one in partitions}  # type: ignore[no-untyped-call]
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    found: dict[tuple[str, int], int] = {}
    if not asked:
        return found
    with suppress(KafkaException):
        answers = admin.list_offsets(asked, isolation_level=level, request_timeout=timeout_s)
        for where, answer in answers.items():
            with suppress(KafkaException, TimeoutError):
                found[where.topic, where.partition] = int(answer.result(2 * timeout_s).offset)
    return found


def unwritable(admin: AdminClient, topics: Iterable[str], timeout_s: float) -> set[str]:
    """Those topics that the broker does not let us write; none where it does not say. Blocks for its answer."""
    found = set()
    asked = TopicCollection(list(topics))
    for name, answer in admin.describe_topics(
        asked, include_authorized_operations=True, request_timeout=timeout_s
    ).items():
        try:
            allowed = answer.result(2 * timeout_s).authorized_operations
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                found.add(name)
        except TimeoutError:
            continue
        else:
            if allowed and AclOperation.WRITE not in allowed:
                found.add(name)
    return found


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
