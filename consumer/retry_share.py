"""How many retries may be taken now, so that late photos never hold up live events. Pure.

While live events wait, two bounds hold at once. Of the listings taken, the share that are retries stays below
`retry.share`: each live one earns a part of a retry, and what was not used is kept up to the second bound. And of the
fetches that may run at once, retries hold no more than that share: slow hosts, which late photos are likely to be on,
cannot take the others' connections. While nothing live waits they may hold half of them, so that the next live event
finds room.

Used by retry_intake.py, in the poll thread.
"""

from typing import Final

IDLE_SHARE: Final = 0.5


class RetryShare:
    """Counts live events and retries as they are given to the pipeline.

    Args:
        share: of the listings taken that may be retries while live events wait; in (0, 1].
        at_once: fetches, or listings if those are fewer, that the pipeline holds at once.
    """

    def __init__(self, share: float, at_once: int) -> None:
        self._earned = share / (1 - share) if share < 1 else float(at_once)
        self._most_busy = max(1, int(share * at_once))
        self._most_idle = max(1, int(max(share, IDLE_SHARE) * at_once))
        self._credit = float(self._most_busy)

    def took_live(self, listings: int) -> None:
        """So many live events were given to the pipeline."""
        self._credit = min(self._credit + listings * self._earned, float(self._most_busy))

    def took_retries(self, listings: int) -> None:
        """So many retries were; what goes beyond the share while nothing live waits is not held against them."""
        self._credit = max(0.0, self._credit - listings)

    def room(self, in_flight: int, *, live_waits: bool) -> int:
        """How many retries may be given to the pipeline now.

        Args:
            in_flight: retries that are in the pipeline already.
            live_waits: whether the input topic holds events that were not polled yet.
        """
        if not live_waits:
            return max(0, self._most_idle - in_flight)
        return max(0, min(int(self._credit), self._most_busy - in_flight))
