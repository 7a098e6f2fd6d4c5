"""Marked points of the service: where a trial can kill it, and the places from which evidence is written.

Nothing of this is in the service. The chaos entry wraps its methods before it runs: `observe` writes evidence.py's
lines, `arm` kills the process the N-th time that a point is passed with events in flight.
"""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from consumer.assignment import Assignment
from consumer.commits import OffsetCommits
from consumer.fetch.client import PhotoFetcher
from consumer.offsets import Lease, Offsets
from consumer.pipeline import Pipeline
from consumer.publishing import Publisher
from consumer.records import Incoming
from consumer.replay import Replay
from consumer.transactional import TransactionalClient
from consumer.view import View
from consumer.work import Work
from mmcat.listing import ImageStatus
from tests.chaos.evidence import LEASE_HEADER, RETRY, Diary

Method = Callable[..., Any]


def wrap(owner: type, name: str, make: Callable[[Method], Method]) -> None:
    """Replace a method by what `make` makes of it."""
    setattr(owner, name, make(getattr(owner, name)))


def before(owner: type, name: str, act: Callable[..., None]) -> None:
    """Call `act` with the arguments of a method before it runs."""

    def make(method: Method) -> Method:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            act(*args, **kwargs)
            return method(*args, **kwargs)

        return wrapped

    wrap(owner, name, make)


def after(owner: type, name: str, act: Callable[..., None]) -> None:
    """Call `act` with the arguments of a method after it ran."""

    def make(method: Method) -> Method:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            act(*args, **kwargs)
            return answer

        return wrapped

    wrap(owner, name, make)


# evidence ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Observer:
    """Writes down what the oracle needs to know, and holds the pipeline to ask what is in flight."""

    def __init__(self, diary: Diary) -> None:
        self.diary = diary
        self._pipeline: Pipeline | None = None
        self._names: dict[int, str] = {}  # by identity: a lease lives as long as the process here
        self._leases: list[Lease] = []
        self._how = threading.local()

    @property
    def in_flight(self) -> int:
        """Events between poll and acknowledgement."""
        return self._pipeline.budget.items if self._pipeline else 0

    def observe(self) -> None:
        """Wrap what tells."""
        after(Pipeline, "__init__", self._made)
        wrap(Offsets, "begin", self._begin)
        before(Pipeline, "submit", self._submitted)
        before(Publisher, "send", self._sent)
        after(Lease, "end", self._ended)
        for owner, name, how in (
            (Assignment, "_revoked", "revoked"),
            (Assignment, "_lost", "lost"),
            (Assignment, "seek_back", "sought_back"),
            (Replay, "_end", "revoked"),
        ):
            wrap(owner, name, self._ending(how))
        before(Assignment, "moved", self._committed)

    def _made(self, pipeline: Pipeline, *_: Any, **__: Any) -> None:
        self._pipeline = pipeline

    def _begin(self, method: Method) -> Method:
        def begin(offsets: Offsets, partition: tuple[str, int]) -> Lease:
            lease: Lease = method(offsets, partition)
            name = f"{self.diary.role}-{os.getpid()}-{len(self._leases)}"
            self._leases.append(lease)
            self._names[id(lease)] = name
            late = self._pipeline is not None and partition[0] in self._pipeline._delays
            role = RETRY if late else self.diary.role
            self.diary.write("begun", lease=name, role=role, topic=partition[0], partition=partition[1])
            return lease

        return begin

    def _submitted(self, _: Pipeline, records: Sequence[tuple[Incoming, Lease]]) -> None:
        ranges: dict[str, list[int]] = {}
        for incoming, lease in records:
            if (name := self._names.get(id(lease))) is not None:
                ranges.setdefault(name, []).append(incoming.place.offset)
        for name, offsets in ranges.items():
            self.diary.write("polled", lease=name, first=min(offsets), last=max(offsets))

    def _sent(self, _: Publisher, works: Sequence[Work]) -> None:
        for work in works:
            if (name := self._names.get(id(work.lease))) is not None:
                for record in work.records:
                    record.headers.append((LEASE_HEADER, name.encode()))

    def _ending(self, how: str) -> Callable[[Method], Method]:
        def make(method: Method) -> Method:
            def ending(*args: Any, **kwargs: Any) -> Any:
                self._how.word = how
                try:
                    return method(*args, **kwargs)
                finally:
                    self._how.word = None

            return ending

        return make

    def _ended(self, lease: Lease) -> None:
        how = getattr(self._how, "word", None)
        if how is not None and (name := self._names.get(id(lease))) is not None:
            self.diary.write("ended", lease=name, how=how)

    def _committed(self, _: Assignment, partition: tuple[str, int], offset: int) -> None:
        self.diary.write("committed", topic=partition[0], partition=partition[1], offset=offset)


# strikes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Striker:
    """Kills the process the N-th time that its point is passed with events in flight."""

    def __init__(self, observer: Observer, point: str, passes: int) -> None:
        self._observer, self._point, self._left = observer, point, passes
        self._passes = passes
        self._lock = threading.Lock()

    def arm(self) -> None:
        """Wrap the point.

        Raises:
            KeyError: there is no such point.
        """
        POINTS[self._point](self)

    def passed(self, in_flight: int | None = None) -> None:
        """The point is passed, now."""
        held = self._observer.in_flight if in_flight is None else in_flight
        if not held:
            return
        with self._lock:  # whoever comes second waits for the end
            self._left -= 1
            if self._left > 0:
                return
            self._observer.diary.write("strike", point=self._point, passes=self._passes, in_flight=held)
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()


def _after_poll(striker: Striker) -> None:
    before(Pipeline, "submit", lambda _, records: striker.passed(len(records)))


def _mid_fetch(striker: Striker) -> None:
    """The photo host has answered, its body was not read yet."""
    before(PhotoFetcher, "_read", lambda *_: striker.passed())


def _after_decode(striker: Striker) -> None:
    def act(_: Pipeline, works: Sequence[Work]) -> None:
        if any(work.prepared.image is ImageStatus.USED and work.prepared.listing_id for work in works):
            striker.passed()

    before(Pipeline, "_ordered", act)


def _after_inference(striker: Striker) -> None:
    before(Pipeline, "_answered", lambda *_: striker.passed())


def _before_delivery_report(striker: Striker) -> None:
    """The broker has acknowledged, exactly once the whole transaction; the pipeline does not know it yet."""

    def act(_: Publisher, __: Sequence[Work], ok: bool) -> None:
        if ok:
            striker.passed()

    before(Publisher, "done", act)


def _before_view_write(striker: Striker) -> None:
    before(View, "apply", lambda _, records: striker.passed(len(records)))


def _after_view_write(striker: Striker) -> None:
    """The values are there, the positions were not moved yet."""
    after(View, "apply", lambda _, records: striker.passed(len(records)))


def _before_commit(striker: Striker) -> None:
    """Exactly once the transaction has its offsets already, and is not ended yet."""

    def act(_: OffsetCommits, offsets: dict[Any, int], *__: Any) -> None:
        if offsets:
            striker.passed()

    before(OffsetCommits, "_commit", act)

    def ending(_: TransactionalClient, call: Method, __: float) -> None:
        if getattr(call, "__name__", "") == "commit_transaction":
            striker.passed()

    before(TransactionalClient, "_until", ending)


def _before_sending_offsets(striker: Striker) -> None:
    before(TransactionalClient, "commit", lambda *_: striker.passed())


def _after_ending_transaction(striker: Striker) -> None:
    """All of it is committed; the service has told nobody yet."""
    after(TransactionalClient, "commit", lambda *_: striker.passed())


def _in_revoke(striker: Striker) -> None:
    before(Assignment, "_revoked", lambda *_: striker.passed())


def _during_dead_letter(striker: Striker) -> None:
    """Handed to the producer, not acknowledged yet."""
    after(Publisher, "dead", lambda *_: striker.passed())


POINTS: Final[dict[str, Callable[[Striker], None]]] = {
    "after_poll": _after_poll,
    "mid_fetch": _mid_fetch,
    "after_decode": _after_decode,
    "after_inference": _after_inference,
    "before_delivery_report": _before_delivery_report,
    "before_view_write": _before_view_write,
    "after_view_write": _after_view_write,
    "before_commit": _before_commit,
    "before_sending_offsets": _before_sending_offsets,
    "after_ending_transaction": _after_ending_transaction,
    "in_revoke": _in_revoke,
    "during_dead_letter": _during_dead_letter,
}

MODES: Final = ("at_least_once", "exactly_once")


def modes_of(point: str) -> tuple[str, ...]:
    """The modes in which the service passes a point."""
    return MODES[1:] if point in ("before_sending_offsets", "after_ending_transaction") else MODES
