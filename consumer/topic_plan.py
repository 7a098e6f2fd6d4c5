"""The topics the service needs, as they should be (design section 3). Pure: asks no broker.

`topics` makes what is planned here, compares what a broker has with it, and is what others import.
"""

from dataclasses import dataclass, field

from consumer.retries import Delays
from consumer.settings import Settings

DAY_MS = 86_400_000
INPUT_LIMIT_BYTES = 1_048_588
"""Kafka's own default of max.message.bytes."""
HEADROOM_BYTES = 64 * 1_024
"""What the headers of a dead letter or a retry may add to the original record."""
INPUT_RETENTION_MS = 7 * DAY_MS
COMPACTION_LAG_MS = DAY_MS
"""A reader of the output that is less than a day behind sees every result, not only the last of each product."""
FOREVER_MS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """One topic as it should be. `exactly` and `at_least` are its configuration, and how `check` compares it."""

    name: str
    partitions: int | None
    replication: int
    exactly: dict[str, str] = field(default_factory=dict)
    at_least: dict[str, int] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, str]:
        """What to create it with."""
        return self.exactly | {name: str(value) for name, value in self.at_least.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """All topics, how long a retry is under way at most, and how long the view remembers a deletion."""

    input: Wanted
    output: Wanted
    review: Wanted
    dead_letter: Wanted
    retries: tuple[Wanted, ...]
    order_by: str
    retry_chain_ms: int
    marker_life_ms: int
    dev: bool

    @property
    def topics(self) -> tuple[Wanted, ...]:
        """In the order of the data."""
        return (self.input, self.output, self.review, self.dead_letter, *self.retries)


def deletion_memory_ms(input_retention_ms: int, retry_chain_ms: int) -> int:
    """How long a deletion must be remembered: until nothing about the product can still be read from the input or a
    retry topic, and a day more. Infinite retention (-1) needs infinite memory."""
    return FOREVER_MS if input_retention_ms < 0 else input_retention_ms + retry_chain_ms + DAY_MS


def plan(
    settings: Settings,
    *,
    partitions: int | None = None,
    replication: int = 3,
    dev: bool = False,
    input_limit_bytes: int = INPUT_LIMIT_BYTES,
    input_retention_ms: int = INPUT_RETENTION_MS,
) -> Plan:
    """Return the topics the service wants.

    Args:
        settings: names of the topics, what orders events, the life of a deletion marker.
        partitions: of each topic; None takes the broker's default when creating and compares nothing when checking.
        replication: copies of each partition.
        dev: one copy and no second replica to wait for: for a single broker.
        input_limit_bytes: the largest record that may be registered.
        input_retention_ms: how long the input topic keeps a record.
    """
    copies = 1 if dev else replication
    durable = {"min.insync.replicas": 1 if dev else min(2, replication)}
    kept = {"cleanup.policy": "delete"}
    holds_copies = durable | {"max.message.bytes": input_limit_bytes + HEADROOM_BYTES}
    names = settings.topics
    retry_chain_ms = 1_000 * sum(settings.retry.delays_s.values())

    def wanted(name: str, exactly: dict[str, str], at_least: dict[str, int]) -> Wanted:
        return Wanted(name, partitions, copies, exactly, at_least)

    arrival = {"message.timestamp.type": "LogAppendTime", "retention.ms": str(input_retention_ms)}
    compacted = durable | {
        "min.compaction.lag.ms": COMPACTION_LAG_MS,
        "delete.retention.ms": deletion_memory_ms(input_retention_ms, retry_chain_ms),
    }
    return Plan(
        input=wanted(names.input, kept | arrival, durable | {"max.message.bytes": input_limit_bytes}),
        output=wanted(names.output, {"cleanup.policy": "compact"}, compacted),
        review=wanted(names.review, kept, durable),
        dead_letter=wanted(names.dead_letter, kept, holds_copies),
        retries=tuple(wanted(topic, kept, holds_copies) for topic in Delays.of(settings).topics),
        order_by=str(settings.order_by),
        retry_chain_ms=retry_chain_ms,
        marker_life_ms=int(settings.view.marker_life_s * 1_000),
        dev=dev,
    )
