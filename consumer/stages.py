"""How busy each stage is, and which of them holds the stream up. Pure.

    take      the poll thread: parse, budget, order           fetch     the connections that photos may use
    decode    the threads that unpack photos                  model     the engine thread, in the model
    publish   the engine thread again: results as records, to the producer

A stage's share is its time at work ÷ what its workers could have worked. Python's stages share one interpreter, so that
time includes waiting for it. Told by pipeline.py, read by service.py, which puts both into the metrics;
shown by `mmcat top` and `mmcat bench`.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

Stage = Literal["take", "fetch", "decode", "model", "publish"]

BUSY_SHARE: Final = (
    0.7  # above it a queue before the stage grows without bound in bursts (M/M/1: 2.3 times its service)
)
HELD_SHARE: Final = 0.9  # of the listings that may be held: at the limit polling pauses
BACKLOG_SHARE: Final = 0.1  # of the same: what a poll loop that keeps up leaves in the topic between two looks is less
NAMES: Final = (
    "none", "take", "fetch", "decode", "model", "publish", "interpreter", "acknowledgements", "memory", "polling",
)  # fmt: skip
"""What may hold the stream up."""
INTERPRETER: Final = ("take", "publish")  # threads that do nothing but run Python: together they have one core


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

    def shares(self) -> dict[str, float]:
        """Busy share of each stage since the last call, 0 … 1."""
        with self._lock:
            now = self._clock()
            passed = max(1e-9, now - self._looked_at)
            shares: dict[str, float] = {
                stage: min(1.0, seconds / passed / self._workers.get(stage, 1))
                for stage, seconds in self._worked.items()
            }
            self._worked = dict.fromkeys(self._worked, 0.0)
            self._looked_at = now
        return shares


class Bottleneck(NamedTuple):
    """What holds the stream up: its name, of `NAMES`, and one line that says why."""

    name: str
    line: str


def bottleneck(shares: Mapping[str, float], held: float, limit: float, lag: float, *, paused: bool) -> Bottleneck:
    """Find what holds the stream up.

    Args:
        shares: busy share of each stage, not empty.
        held: listings between poll and acknowledgement.
        limit: how many there may be.
        lag: live events in the topic that were not polled yet.
        paused: whether polling pauses because too much is held, by count or by bytes.
    """
    stage, share = max(shares.items(), key=lambda one: one[1])
    queue = f"{held:,.0f} of {limit:,.0f} listings held"
    python = sum(shares.get(one, 0.0) for one in INTERPRETER)
    if share >= BUSY_SHARE:
        return Bottleneck(stage, f"{stage} is the bottleneck: {share:.0%} busy, {queue}")
    if python >= HELD_SHARE:
        line = f"the interpreter is the bottleneck: {' and '.join(INTERPRETER)} share it, {python:.0%} busy, {queue}"
        return Bottleneck("interpreter", line)
    beside = f"busiest stage {stage} {share:.0%}"
    if held >= HELD_SHARE * limit:
        return Bottleneck("acknowledgements", f"the broker's acknowledgements are the bottleneck: {queue}, {beside}")
    if paused:
        return Bottleneck("memory", f"memory is the bottleneck: limits.in_flight_bytes are held, {queue}, {beside}")
    if lag > BACKLOG_SHARE * limit:
        return Bottleneck(
            "polling",
            f"polling is the bottleneck: {lag:,.0f} events wait in the topic and no stage is busy: a slow broker, a "
            f"rebalance or partitions held back (/readyz); {beside}, {queue}",
        )
    return Bottleneck("none", f"no bottleneck: waiting for events, {beside}, {queue}")
