"""What keeps a replay from disturbing the live service: it asks the view before it publishes, and keeps to a rate."""

import threading
import time
from collections.abc import Callable

import structlog

from consumer.rank import Rank
from consumer.records import Outgoing
from consumer.view import View, ViewAwayError

log = structlog.get_logger("mmcat.replay")

RETRY_S = 0.5
"""How soon a view that is away is asked again: one process asks, so there is no herd to hold back."""


class ViewGuard:
    """Says of a record whether the view holds something newer; waits while the view is away. Thread-safe.

    Args:
        view: whose connection belongs to this object from here on.
        abandoned: set when nobody wants the answer any more: then every record counts as outranked.
    """

    def __init__(self, view: View, abandoned: threading.Event) -> None:
        self._view, self._abandoned = view, abandoned
        self._lock = threading.Lock()
        self._connected = False
        self.unanswered = 0
        """Records called outranked only because the replay ended while the view was away."""
        self.waiting = False
        """Whether a record waits for the view right now."""

    def __call__(self, record: Outgoing) -> bool:
        """Whether the view ranks what it holds of this product above the record.

        Raises:
            ViewError: the view is no place to trust (it evicts).
        """
        ours = Rank.parse(dict(record.headers)["mmcat-rank"].decode())
        product_id = (record.key or b"").decode()
        with self._lock:
            while not self._abandoned.is_set():
                try:
                    if not self._connected:
                        self._view.connect()
                        self._connected = True
                    held = self._view.get(product_id)
                except ViewAwayError as error:
                    self._connected, self.waiting = False, True
                    log.warning("replay_waits_for_the_view", error=str(error)[:200])
                    self._abandoned.wait(RETRY_S)
                else:
                    self.waiting = False
                    return held is not None and held[0] > ours
            self.unanswered += 1
            return True

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._view.close()


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
