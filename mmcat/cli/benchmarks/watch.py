"""Looks at a service's /metrics while it is measured: what its stages did, and how much was held."""

import time
from collections.abc import Iterable
from contextlib import suppress
from statistics import mean
from typing import Final

from mmcat.cli.benchmarks.scrape import STAGES, Snapshot

EVERY_S: Final = 0.25
MOSTLY: Final = 0.5


class Watch:
    """Keeps what was seen while listings were worked; call it as often as you like."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._next = 0.0
        self._looks: list[Snapshot] = []

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        with suppress(OSError):  # not up yet, or just gone: the measurement itself says so if that is wrong
            look = Snapshot.read(self._url)
            if look.sum("mmcat_listings_total"):  # before, all that was there is a burst of fetches
                self._looks.append(look)

    @property
    def busy(self) -> dict[str, float]:
        """Busy share of each stage, on average."""
        return {stage: _mean(look.busy[stage] for look in self._looks) for stage in STAGES}

    @property
    def held(self) -> tuple[float, float]:
        """The most listings that were held, and how many may be."""
        return max((look.held for look in self._looks), default=(0.0, 0.0))

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds per finished listing that each stage worked, since the service began."""
        if not self._looks:
            return {}
        last = self._looks[-1]
        done = last.sum("mmcat_listings_total")
        return {stage: last.sum("mmcat_stage_seconds_sum", stage=stage) / done for stage in STAGES}

    @property
    def line(self) -> str:
        """What held the stream up, on average."""
        from consumer.stages import bottleneck

        held = _mean(look.held[0] for look in self._looks)
        lag, paused = _mean(look.lag for look in self._looks), _mean(look.paused for look in self._looks)
        return bottleneck(self.busy, held, self.held[1], lag, paused=paused > MOSTLY).line


def _mean(values: Iterable[float]) -> float:
    return mean([*values] or [0.0])
