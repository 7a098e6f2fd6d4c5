"""Looks at a service's /metrics while it is measured: what its stages did, and how much was held."""

import time
from contextlib import suppress
from typing import Final

from mmcat.cli.benchmarks.scrape import STAGES, Snapshot

EVERY_S: Final = 0.25


class Watch:
    """Keeps the most that was seen; call it as often as you like."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._next = 0.0
        self.busy = dict.fromkeys(STAGES, 0.0)
        self.held = (0.0, 0.0)
        self.lag, self.paused = 0.0, False
        self._last: Snapshot | None = None

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        with suppress(OSError):  # not up yet, or just gone: the measurement itself says so if that is wrong
            self._last = Snapshot.read(self._url)
            self.busy = {stage: max(share, self.busy[stage]) for stage, share in self._last.busy.items()}
            self.held = max(self.held, self._last.held)
            self.lag, self.paused = max(self.lag, self._last.lag), self.paused or self._last.paused

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds per finished listing that each stage worked, since the service began."""
        if self._last is None:
            return {}
        done = max(1.0, self._last.sum("mmcat_listings_total"))
        return {stage: self._last.sum("mmcat_stage_seconds_sum", stage=stage) / done for stage in STAGES}

    @property
    def line(self) -> str:
        """What held the stream up, by the most that was seen."""
        from consumer.stages import bottleneck

        return bottleneck(self.busy, *self.held, self.lag, paused=self.paused)
