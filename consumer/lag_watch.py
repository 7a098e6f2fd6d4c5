"""Asks the broker where partitions end, and lets watchdog.py say which have gone silent: for /readyz and the metrics.

With a client of its own, since the one that reads may be the one that hears nothing. Belongs to the service's watch
thread; assignment.py says how far each partition was read.
"""

import time
from collections.abc import Mapping
from typing import Final

import structlog

from consumer.health import Health
from consumer.kafka import AdminClient, end_offsets
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
        ends = end_offsets(self._admin, positions, BROKER_S, committed=True)
        silent = self._watchdog.silent(positions, ends, time.monotonic())
        if silent:
            named = {f"{topic} {number}": behind for (topic, number), behind in silent.items()}
            log.error("consumer_silent", partitions=named)
        self._metrics.silent.set(len(silent))
        self._health.set("silent", sentence(silent, self._after_s))
