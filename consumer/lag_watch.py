"""Asks the broker where partitions end, and lets watchdog.py say which have gone silent: for /readyz and the metrics.

With a client of its own, since the one that reads may be the one that hears nothing. Belongs to the service's watch
thread; assignment.py says how far each partition was read.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

import structlog

from consumer.health import Health
from consumer.kafka import AdminClient, IsolationLevel, KafkaException, OffsetSpec, TopicPartition
from consumer.metrics import Metrics
from consumer.offsets import Partition
from consumer.watchdog import Watchdog, sentence

log = structlog.get_logger("mmcat.watch")

BROKER_S: Final = 5.0
LOOKS: Final = 6  # in the time that makes a partition silent: one request a broker each


class LagWatch:
    """Looks now and then.

    Args:
        after_s: how long a position may stand still before the end.
    """

    def __init__(self, admin: AdminClient, metrics: Metrics, health: Health, after_s: float) -> None:
        self._admin, self._metrics, self._health, self._after_s = admin, metrics, health, after_s
        self._watchdog = Watchdog(after_s)
        self._next_look = 0.0

    def look(self, positions: Mapping[Partition, int]) -> None:
        """Look, if it is time; blocks for the broker's answer, some seconds at most.

        Args:
            positions: of the partitions that nothing holds up on purpose.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + self._after_s / LOOKS
        silent = self._watchdog.silent(positions, self._ends(positions), time.monotonic())
        if silent:
            named = {f"{topic} {number}": behind for (topic, number), behind in silent.items()}
            log.error("consumer_silent", partitions=named)
        self._metrics.silent.set(len(silent))
        self._health.set("silent", sentence(silent, self._after_s))

    def _ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """For a reader of committed records; without those that the broker does not tell."""
        asked = {TopicPartition(*one): OffsetSpec.latest() for one in partitions}  # type: ignore[no-untyped-call]
        found: dict[Partition, int] = {}
        if not asked:
            return found
        with suppress(KafkaException):
            answers = self._admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=BROKER_S
            )
            for where, answer in answers.items():
                with suppress(KafkaException, TimeoutError):
                    found[where.topic, where.partition] = int(answer.result(BROKER_S).offset)
        return found
