"""Exactly once: outcomes and offsets become visible together, in one transaction after another, or not at all.

A thread opens a transaction when something can go (gapless.py), sends it, and commits it with the offsets that it ends
at. After an abort its leases have ended: their work is dropped and their partitions are read again from what the group
committed. After an error that leaves a doubt the producer is discarded, and its successor settles what became of it.

Stands where delivery.py and commits.py stand at least once: takes from the pipeline, and commits for assignment.py.
See docs/decisions/0010-exactly-once.md.
"""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from math import inf
from queue import Empty, SimpleQueue
from typing import Final, Generic, Protocol

import structlog

from consumer.budget import Budget
from consumer.commits import Ends
from consumer.delivery import Done, W
from consumer.errors import FatalError
from consumer.gapless import Contents, Gapless, Outcome
from consumer.health import Health
from consumer.kafka import FORBIDDEN, TRANSACTION_TIMEOUT_S, KafkaError, KafkaException
from consumer.offsets import Lease, Partition
from consumer.transactional import AbortableError, FencedError, ForbiddenError, TransactionalClient, TransactionError

log = structlog.get_logger("mmcat.transactions")

LONGEST_S: Final = 1.0  # a transaction is open for so long at most: readers of committed records wait for it
GATHER_S: Final = 0.01  # between two looks for more while one is open
IDLE_S: Final = 0.1
RENEW_S: Final = 5.0
RENEW_AGAIN_S: Final = 1.0
ABORT_S: Final = 5.0


class Group(Protocol):
    """What is needed of the consumer's membership."""

    metadata: object
    """As of the last poll: with an older generation than the group's the broker refuses a commit."""

    def replaced(self) -> bool | None:
        """Ask the broker whether another process is a member by our instance id; None where it does not say."""
        ...

    def moved(self, partition: Partition, offset: int) -> None:
        """So far is committed; in the poll thread."""


class Transactions(Generic[W]):
    """Sends and commits, exactly once.

    Args:
        client: of a producer whose name is this instance's alone.
        name: that name, for whoever reads why it ended.
        interval_s: how long a transaction stays open; `LONGEST_S` at most.
        unwritable: asks the broker which of these topics it does not let us write any more.
        patient: a topic whose refusal only holds up the partitions that have something for it.
        shadow_s: how long the group keeps a member that is gone, at most.
        on_death: gets what ended the thread.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        client: TransactionalClient,
        name: str,
        interval_s: float,
        health: Health,
        *,
        unwritable: Callable[[Collection[str]], set[str]],
        patient: str,
        shadow_s: float,
        on_death: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._name, self._health = client, name, health
        self._interval_s = min(interval_s, LONGEST_S)
        self._unwritable, self._patient = unwritable, patient
        self._shadow_s, self._on_death, self._clock = shadow_s, on_death, clock
        self._waiting: Gapless[W] = Gapless()
        self._turn = threading.Lock()  # held in every step; what is open belongs to whoever holds it
        self._contents: Contents[W] = Contents()
        self._begun_at = 0.0
        self._displaced = False  # perhaps: it is asked before another producer is made
        self._sure_at = inf  # from when on it is sure that another process is in our place
        self._committed: SimpleQueue[dict[Partition, int]] = SimpleQueue()
        self._put = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="transactions", daemon=True)

    # for the pipeline ─────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, group: Group, budget: Budget) -> None:
        """Start the thread.

        Args:
            group: whose offsets are committed.
            budget: when it is full, what there is goes at once.
        """
        self._group, self._budget = group, budget
        self._health.set("transactions", "no transactions can be opened yet")
        self._thread.start()

    def send(self, works: Sequence[W], on_done: Done[W]) -> None:
        """Take outcomes; each goes when every earlier polled record of its lease has its own. Does not block.

        `on_done` runs once for each, in any thread, several at a time: True when they are committed, False when they
        never will be.
        """
        self._waiting.put(Outcome(work, on_done) for work in works)
        self._put.set()

    def stop(self) -> None:
        """End the thread; what is open is aborted, so that no reader waits for its time-out."""
        self._stopping.set()
        self._put.set()
        self._thread.join(LONGEST_S)
        if self._client.usable and self._turn.acquire(timeout=LONGEST_S):
            try:
                if self._contents.ends:
                    self._give_back(AbortableError("the service ends"))
            finally:
                self._turn.release()

    # for the assignment, in the poll thread ───────────────────────────────────────────────────────────────────────

    def commit(self, wait_s: float) -> None:
        """Tell what was committed since; with `wait_s` first commit all that may go, waiting so long at most."""
        if wait_s > 0:
            self.give_up(dict, wait_s)
        while True:
            try:
                committed = self._committed.get_nowait()
            except Empty:
                return
            for partition, offset in committed.items():
                self._group.moved(partition, offset)

    def give_up(self, end: Ends, wait_s: float) -> None:
        """Commit all that may go, then end leases: nothing of theirs is committed after.

        Without the time for it they end at once, and the transaction that holds some of theirs is aborted.
        """
        deadline = self._clock() + wait_s
        if wait_s > 0 and self._turn.acquire(timeout=wait_s):
            try:
                self._commit_all(deadline)
                end()
            finally:
                self._turn.release()
        else:
            end()

    def read_again_from(self, lease: Lease) -> int | None:
        """End a lease; None: only the broker knows where the group committed."""
        lease.end()
        return None

    # thread ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                if self._client.usable or self._renewed():
                    with self._turn:
                        self._step()
                    self._rest()
        except BaseException as error:  # nothing would ever be committed: tell, whatever it was
            self._on_death(error)

    def _rest(self) -> None:
        if self._contents.ends:
            self._stopping.wait(GATHER_S)
        elif self._put.wait(IDLE_S):
            self._put.clear()

    def _renewed(self) -> bool:
        """Make a producer; whether that succeeded."""
        if self._displaced and not self._placed_again():
            return False
        try:
            self._client.renew(RENEW_S)
        except KafkaException as caught:
            error: KafkaError = caught.args[0]
            if error.code() in FORBIDDEN:
                raise FatalError(
                    f"the broker does not let us use transactional.id {self._name}: {error.str()}"
                ) from None
            log.warning("no_transactions_yet", detail=error.str()[:200])
            self._health.set("transactions", "the broker does not open transactions")
            self._stopping.wait(RENEW_AGAIN_S)
            return False
        self._health.set("transactions", None)
        log.info("transactions_open", transactional_id=self._name)
        return True

    def _placed_again(self) -> bool:
        """Whether nobody else is in our place in the group: by a new producer we would fence the other.

        That may be our own shadow, see `Assignment.replaced`; then we go on when it is gone.

        Raises:
            FatalError: it is still there when a shadow's session would have ended.
        """
        if not self._group.replaced():
            self._displaced, self._sure_at = False, inf
            return True
        self._sure_at = min(self._sure_at, self._clock() + self._shadow_s)
        if self._clock() >= self._sure_at:
            raise self._taken_over()
        self._health.set("transactions", "a member with our kafka.instance_id is in the group")
        self._stopping.wait(RENEW_AGAIN_S)
        return False

    def _taken_over(self) -> FatalError:
        return FatalError(
            f"another process has taken over transactional.id {self._name}: "
            "stop one of the two, or give each instance a kafka.instance_id of its own"
        )

    # one step, with the turn ──────────────────────────────────────────────────────────────────────────────────────

    def _step(self) -> None:
        if self._more() and self._due():
            self._close(self._begun_at + TRANSACTION_TIMEOUT_S)

    def _due(self) -> bool:
        old = self._clock() - self._begun_at >= self._interval_s
        return old or self._contents.alone is not None or self._budget.full

    def _commit_all(self, deadline: float) -> None:
        """In the poll thread: whatever goes wrong for good must be told here as in our own thread."""
        try:
            while self._client.usable and self._clock() < deadline and self._more():
                self._close(deadline)
        except FatalError as error:
            self._on_death(error)

    def _more(self) -> bool:
        """Take what may go, and send it; returns whether a transaction is open."""
        began = bool(self._contents.ends)
        taken, dropped = self._waiting.take(self._contents)
        _tell(dropped, ok=False)
        try:
            if taken and not began:
                self._begun_at = self._clock()
                self._client.begin()
            for outcome in taken:
                for record in outcome.work.records:
                    self._client.produce(record, lambda lease=outcome.work.lease: self._refused(lease))  # type: ignore[misc]
            self._client.poll()
        except TransactionError as error:
            self._give_back(error)
        return bool(self._contents.ends)

    def _refused(self, lease: Lease) -> None:
        log.error("record_refused", topic=lease.partition[0], partition=lease.partition[1])
        self._waiting.on_probation(lease.partition)

    def _close(self, deadline: float) -> None:
        contents = self._contents
        try:
            if contents.broken:
                raise AbortableError("a partition of it is ours no longer")
            self._client.commit(contents.offsets, self._group.metadata, deadline)
        except TransactionError as error:
            self._give_back(error)
            return
        self._contents = Contents()
        self._waiting.passed(contents.offsets)
        self._committed.put(contents.offsets)
        _tell(contents.outcomes, ok=True)

    def _give_back(self, error: TransactionError) -> None:
        """It did not succeed: end its leases, so that their partitions are read again from what is committed."""
        contents, self._contents = self._contents, Contents()
        log.warning("transaction_failed", kind=type(error).__name__, detail=str(error)[:300])
        try:
            if isinstance(error, AbortableError):
                self._client.abort(self._clock() + ABORT_S)
            else:
                self._discard(error)
        except TransactionError as worse:
            log.warning("abort_failed", kind=type(worse).__name__, detail=str(worse)[:300])
            self._discard(worse)
        finally:
            _tell(contents.outcomes, ok=False)
            for lease in contents.ends:
                lease.end()
        if isinstance(error, AbortableError):
            self._look_for_lost_rights(contents)

    def _look_for_lost_rights(self, contents: Contents[W]) -> None:
        """The client says that a topic may not be written, not which: so the broker is asked, whatever the error was.

        Raises:
            FatalError: a topic without which nothing goes on.
        """
        topics = {record.topic for outcome in contents.outcomes for record in outcome.work.records}
        lost = self._unwritable(topics) if topics else set()
        if needed := sorted(lost - {self._patient}):
            raise FatalError(f"the broker does not let us write {', '.join(needed)} any more: authorisation lost")
        for outcome in contents.outcomes:
            if any(record.topic in lost for record in outcome.work.records):
                self._refused(outcome.work.lease)

    def _discard(self, error: TransactionError) -> None:
        """The producer is of no use any more.

        Fenced with a transaction that was open past its time-out, it was most likely the broker that closed it (it was
        away); if another is in our place in the group, `_placed_again` sees it. Fenced before, we are the one that must
        go.

        Raises:
            FatalError: another process has our name, or we have lost the right to it or to the group.
        """
        self._client.discard()
        if isinstance(error, ForbiddenError):
            raise FatalError(f"the broker does not let us commit transactions any more: {error}")
        if isinstance(error, FencedError):
            if self._clock() - self._begun_at < TRANSACTION_TIMEOUT_S:
                raise self._taken_over()
            self._displaced = True


def _tell(outcomes: Sequence[Outcome[W]], *, ok: bool) -> None:
    for on_done, together in groupby(outcomes, key=lambda outcome: outcome.on_done):
        on_done([outcome.work for outcome in together], ok)
