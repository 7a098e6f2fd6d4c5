"""Asks the view before something is published out of the input's order: what it ranks higher stays, or what saw more.

`ViewGuard` asks and waits while the view is away. The replay asks it twice: for all records of a poll, whether they are
worth any work (`replay_sieve`), and for each answer whether it may be published. `LateGuard` asks in a thread of its
own, for the live service's retries: they wait for the view, live events do not.
"""

import json
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Final

import structlog

from consumer.errors import ViewError
from consumer.rank import AUTHORITY_MODEL, FULL, Rank
from consumer.records import Outgoing
from consumer.view import View, ViewAwayError
from mmcat.listing import ImageStatus

log = structlog.get_logger("mmcat.view_guard")

RETRY_S: Final = 0.5
"""How soon a view that is away is asked again: one thread of a process asks, so there is no herd to hold back."""

Held = tuple[Rank, bytes | None]
"""What the view holds of a product: the rank, and the result unless it was deleted."""
Then = Callable[[bool | None], None]
"""Gets whether a record is outranked; None when nobody wants to know any more."""


class ViewGuard:
    """Says of a record whether what the view holds stays; waits while the view is away. Thread-safe.

    Args:
        view: whose connection belongs to this object from here on.
        abandoned: set when nobody wants the answer any more: then every record counts as outranked.
        late: the records are late photos, which replace an answer of the same order only if it is of the same origin
            and did not see more.
        keep_seen: an answer that saw the photo stays when the record is about the same listing and did not.
    """

    def __init__(self, view: View, abandoned: threading.Event, *, late: bool = False, keep_seen: bool = True) -> None:
        self._view, self._abandoned, self._late, self._keep_seen = view, abandoned, late, keep_seen
        self._lock = threading.Lock()
        self._connected = False
        self.unanswered = 0
        """Records called outranked only because whoever asked ended while the view was away."""
        self.seen_kept = 0
        """Records held back because what is held saw the photo."""
        self.waiting = False
        """Whether somebody waits for the view right now."""

    def __call__(self, record: Outgoing) -> bool:
        """Whether what the view holds of this product stays: it ranks above the record, or saw more of the listing.

        Raises:
            ViewError: the view is no place to trust (it evicts).
        """
        answer = self.held([(record.key or b"").decode()], self._abandoned)
        if answer is None:
            with self._lock:
                self.unanswered += 1
            return True
        (held,) = answer
        if held is None or self._outranks(*held, record):
            return held is not None
        if self._keep_seen and saw_more(held[1], _rank_of(record), record.value):
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
                log.warning("waits_for_the_view", error=str(error)[:200])
                until.wait(RETRY_S)
            else:
                self.waiting = False
                return found
        return None

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._view.close()

    def _outranks(self, held: Rank, result: bytes | None, record: Outgoing) -> bool:
        headers = dict(record.headers)
        ours = _rank_of(record)
        if held > ours:
            return True
        if not self._late or ours.authority != AUTHORITY_MODEL or held[:2] != ours[:2]:
            return False
        # The same order twice: two events of one millisecond, or of one version. Neither is the other's late photo.
        return held.completeness > ours.completeness or _origin_of(result) != _origin_in(headers)


class LateGuard:
    """A `ViewGuard` for retries, in a thread of its own. Constructed, `start`ed, `stop`ped once.

    Args:
        view: whose connection belongs to this object from here on.
        on_death: gets what ended the thread, if anything does.
    """

    def __init__(self, view: View, on_death: Callable[[BaseException], None]) -> None:
        self._abandoned = threading.Event()
        self._guard = ViewGuard(view, self._abandoned, late=True, keep_seen=False)
        self._on_death = on_death
        self._asked: SimpleQueue[tuple[Outgoing, Then] | None] = SimpleQueue()
        self._refused = False
        self._thread = threading.Thread(target=self._run, name="late-guard", daemon=True)

    def start(self) -> None:
        """Start the thread; the view is asked with the first record."""
        self._thread.start()

    def ask(self, record: Outgoing, then: Then) -> None:
        """Have `then` called, in the thread of this object, with whether the view outranks `record`. Does not block.

        Args:
            record: with the headers `mmcat-rank` and `mmcat-origin-*`; it is bounded by the caller how many wait.
        """
        self._asked.put((record, then))

    @property
    def waiting(self) -> bool:
        """Whether records wait because the view is away, or is no place to trust."""
        return self._guard.waiting or self._refused

    def abandon(self) -> None:
        """Wait for the view no longer: whoever asked, or asks from here on, is told None."""
        self._abandoned.set()

    def stop(self) -> None:
        """End the thread; those who still wait for an answer get none."""
        self.abandon()
        self._asked.put(None)
        if self._thread.is_alive():
            self._thread.join(RETRY_S * 4)

    def _run(self) -> None:
        try:
            while (asked := self._asked.get()) is not None:
                record, then = asked
                then(self._answer(record))
        except BaseException as error:  # without answers retries would be held for ever: tell, whatever it was
            self._on_death(error)
        finally:
            self._guard.close()

    def _answer(self, record: Outgoing) -> bool | None:
        while not self._abandoned.is_set():
            try:
                outranked = self._guard(record)
            except ViewError as error:
                self._refused = True
                log.warning("waits_for_the_view", error=str(error)[:200])
                self._abandoned.wait(RETRY_S)
            else:
                self._refused = False
                return None if self._abandoned.is_set() else outranked
        return None


def _origin_in(headers: dict[str, bytes]) -> tuple[str, int, int]:
    topic = headers["mmcat-origin-topic"].decode()
    return topic, int(headers["mmcat-origin-partition"]), int(headers["mmcat-origin-offset"])


def _origin_of(result: bytes | None) -> tuple[str, int, int] | None:
    """Which event a result in the view is about; None where it does not say."""
    try:
        origin = json.loads(result or b"null")["origin"]
        return str(origin["topic"]), int(origin["partition"]), int(origin["offset"])
    except (ValueError, TypeError, KeyError):
        return None


def _rank_of(record: Outgoing) -> Rank:
    return Rank.parse(dict(record.headers)["mmcat-rank"].decode())


def saw_more(held: bytes | None, ours: Rank, value: bytes | None) -> bool:
    """Whether a held answer saw the photo of a listing that the answer `value`, ranked `ours`, is blind to.

    The same listing is one with the same input, or from the same event: an update is another one, and newer wins.
    """
    if held is None or value is None or ours.completeness == FULL:
        return False
    theirs, mine = json.loads(held), json.loads(value)
    same = any(theirs.get(name) == mine[name] for name in ("input_hash", "origin"))
    return same and theirs.get("image") == ImageStatus.USED
