"""All that one trial leaves behind, as data: what trial.py reads back and watch.py sees, for oracle.py to judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.evidence import Evidence
from tests.support.broker import Record
from tests.support.outcomes import Stream

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the view holds of a product; `life_ms` is None where the key never expires."""

    rank: bytes | None
    result: bytes | None
    life_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the group had committed, and where the output topics ended, asked in this order.

    Args:
        at: seconds since 1970.
        committed: by partition of the input topic; absent where nothing is.
        ends: of the output and dead-letter topics.
        lag: records of the input topic that were not committed.
    """

    at: float
    committed: Mapping[int, int]
    ends: Mapping[Place, int]
    lag: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process held at one moment."""

    pid: int
    at: float
    rss_bytes: int
    threads: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Case:
    """All that one trial left behind.

    Args:
        retries: what the delay topics hold, by topic.
        compacted: the output topic after the cleaner went over it; None where it did not.
        left_calls: calls of the client that did not come back, as the services logged them.
        exactly_once: what the service was set to promise.
        mended: whether the topic is at rest, so that its last records are the highest ranked.
        marker_life_ms: how long a deletion is to be remembered.
    """

    stream: Stream
    output_topic: str
    dead_letter_topic: str
    evidence: Evidence
    view: Mapping[bytes, Held]
    snapshots: Sequence[Snapshot] = ()
    usage: Sequence[Usage] = ()
    retries: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    compacted: Sequence[Record] | None = None
    left_calls: int = 0
    exactly_once: bool = False
    mended: bool = True
    marker_life_ms: int = 777_600_000
