"""Keeps a replay to a rate, so that photo hosts, engine and readers of the topic stay with the live service."""

import time
from collections.abc import Callable


class Pace:
    """Lets through so many records a second, evenly: what was not used in the last second is gone.

    Args:
        per_s: the rate; None lets everything through.
        clock: monotonic seconds.
    """

    def __init__(self, per_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._allowance = 0.0
        self._counted_at = clock()

    def allowed(self, most: int) -> int:
        """How many records may be taken now, `most` at most."""
        if self._per_s is None:
            return most
        now = self._clock()
        self._allowance = min(self._allowance + (now - self._counted_at) * self._per_s, max(1.0, self._per_s))
        self._counted_at = now
        return min(most, int(self._allowance))

    def spend(self, records: int) -> None:
        """So many were taken."""
        self._allowance -= records
