"""Asks the view before something is published out of the input's order: what it ranks higher stays, or what saw more.

The replay asks twice: for all records of a poll, whether they are worth any work (`replay_sieve`), and for each answer
whether it may be published. After the sieve and the pipeline's engine, before the broker.
"""

import json
import threading
from collections.abc import Sequence

import structlog

from consumer.rank import FULL, Rank
from consumer.records import Outgoing
from consumer.view import View, ViewAwayError
from mmcat.listing import ImageStatus

Held = tuple[Rank, bytes | None]
"""What the view holds of a product: the rank, and the result unless it was deleted."""

log = structlog.get_logger("mmcat.replay")

RETRY_S = 0.5
"""How soon a view that is away is asked again: one process asks, so there is no herd to hold back."""


class ViewGuard:
    """Says of a record whether what the view holds stays; waits while the view is away. Thread-safe.

    Args:
        view: whose connection belongs to this object from here on.
        abandoned: set when nobody wants the answer any more: then every record counts as outranked.
        keep_seen: an answer that saw the photo stays when the record is about the same listing and did not.
    """

    def __init__(self, view: View, abandoned: threading.Event, *, keep_seen: bool = True) -> None:
        self._view, self._abandoned, self._keep_seen = view, abandoned, keep_seen
        self._lock = threading.Lock()
        self._connected = False
        self.unanswered = 0
        """Records called outranked only because the replay ended while the view was away."""
        self.seen_kept = 0
        """Records held back because what is held saw the photo."""
        self.waiting = False
        """Whether somebody waits for the view right now."""

    def __call__(self, record: Outgoing) -> bool:
        """Whether what the view holds of this product stays: it ranks above the record, or saw more of the listing.

        Raises:
            ViewError: the view is no place to trust (it evicts).
        """
        ours = Rank.parse(dict(record.headers)["mmcat-rank"].decode())
        answer = self.held([(record.key or b"").decode()], self._abandoned)
        if answer is None:
            with self._lock:
                self.unanswered += 1
            return True
        (held,) = answer
        if held is None or held[0] > ours:
            return held is not None
        if self._keep_seen and saw_more(held[1], ours, record.value):
            with self._lock:
                self.seen_kept += 1
            return True
        return False

    def held(self, product_ids: Sequence[str], until: threading.Event) -> list[Held | None] | None:
        """What the view holds of each; waits while it is away, and gives None when `until` is set meanwhile.

        Raises:
            ViewError: the view is no place to trust (it evicts).
        """
        while not until.is_set():
            try:
                with self._lock:
                    if not self._connected:
                        self._view.connect()
                        self._connected = True
                    found = self._view.mget(product_ids)
            except ViewAwayError as error:
                self._connected, self.waiting = False, True
                log.warning("replay_waits_for_the_view", error=str(error)[:200])
                until.wait(RETRY_S)
            else:
                self.waiting = False
                return found
        return None

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._view.close()


def saw_more(held: bytes | None, ours: Rank, value: bytes | None) -> bool:
    """Whether a held answer saw the photo of a listing that the answer `value`, ranked `ours`, is blind to.

    The same listing is one with the same input, or from the same event: an update is another one, and newer wins.
    """
    if held is None or value is None or ours.completeness == FULL:
        return False
    theirs, mine = json.loads(held), json.loads(value)
    same = any(theirs.get(name) == mine[name] for name in ("input_hash", "origin"))
    return same and theirs.get("image") == ImageStatus.USED
