"""How busy each stage is, and which of them holds the stream up. Pure.

    take      the poll thread: parse, budget, order           fetch     the connections that photos may use
    decode    the threads that unpack photos                  model     the engine thread, in the model
    publish   the engine thread again: results as records, to the producer

A stage's share is its time at work ÷ what its workers could have worked. Python's stages share one interpreter, so that
time includes waiting for it. Told by pipeline.py, read by service.py, shown by `mmcat top` and `mmcat bench`.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal

Stage = Literal["take", "fetch", "decode", "model", "publish"]

BUSY_SHARE: Final = (
    0.7  # above it a queue before the stage grows without bound in bursts (M/M/1: 2.3 times its service)
)
HELD_SHARE: Final = 0.9  # of the listings that may be held: at the limit polling pauses


class Stages:
    """Seconds of work by stage, since the last look. Thread-safe.

    Args:
        workers: how many threads or connections a stage has; 1 where it is not named.
    """

    def __init__(self, workers: Mapping[Stage, int], clock: Callable[[], float] = time.monotonic) -> None:
        self._workers, self._clock = workers, clock
        self._lock = threading.Lock()
        self._worked: dict[Stage, float] = dict.fromkeys(("take", "fetch", "decode", "model", "publish"), 0.0)
        self._looked_at = clock()

    def worked(self, stage: Stage, seconds: float) -> None:
        """One worker of the stage was at it for so long."""
        with self._lock:
            self._worked[stage] += seconds

    def shares(self) -> dict[Stage, float]:
        """Busy share of each stage since the last call, 0 … 1."""
        with self._lock:
            now = self._clock()
            passed = max(1e-9, now - self._looked_at)
            shares = {
                stage: min(1.0, seconds / passed / self._workers.get(stage, 1))
                for stage, seconds in self._worked.items()
            }
            self._worked = dict.fromkeys(self._worked, 0.0)
            self._looked_at = now
        return shares


def bottleneck(shares: Mapping[str, float], held: float, limit: float) -> str:
    """One line: what holds the stream up.

    Args:
        shares: busy share of each stage, not empty.
        held: listings between poll and acknowledgement.
        limit: how many there may be.
    """
    stage, share = max(shares.items(), key=lambda one: one[1])
    queue = f"{held:,.0f} of {limit:,.0f} listings held"
    if share >= BUSY_SHARE:
        return f"{stage} is the bottleneck: {share:.0%} busy, {queue}"
    if held >= HELD_SHARE * limit:
        return f"the broker's acknowledgements are the bottleneck: {queue}, busiest stage {stage} {share:.0%}"
    return f"no bottleneck: waiting for events, busiest stage {stage} {share:.0%}, {queue}"
