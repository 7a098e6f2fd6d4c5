"""From a polled record of a delay topic to the pipeline: not before it is due, and not more than its share.

A delay topic is in the order of its due times, so the first record that is not due rests its partition until it is:
paused, sought back to that record, polled again when the time has come. What is due waits here, one poll's worth at
most, until the share lets it through; meanwhile the delay topics are paused. A record is started under its lease only
when it is let through: what waits here belongs to nobody yet and is read again.

Belongs to the poll thread. After assignment.py, before pipeline.py; retry_share.py says how many.
"""

import time
from collections import deque
from collections.abc import Callable

from consumer.assignment import Assignment
from consumer.metrics import Metrics
from consumer.offsets import Lease, Partition
from consumer.records import Incoming
from consumer.retries import Delays, read_retry
from consumer.retry_share import RetryShare


class RetryIntake:
    """Holds retries back.

    Args:
        assignment: of the poll thread that owns this object too.
        wall: seconds since 1970, which `mmcat-due` is compared with.
    """

    def __init__(
        self,
        delays: Delays,
        assignment: Assignment,
        share: RetryShare,
        metrics: Metrics,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._delays, self._assignment, self._share, self._metrics = delays, assignment, share, metrics
        self._wall = wall
        self._due: deque[tuple[Incoming, Lease]] = deque()
        self._rested: dict[Partition, tuple[Lease, int]] = {}
        self._seen: dict[
            Lease, deque[tuple[int, int]]
        ] = {}  # offsets not finished yet, as far as polled, and their due

    def live(self, events: int) -> None:
        """So many live events were given to the pipeline."""
        self._share.took_live(events)

    def polled(self, record: Incoming) -> None:
        """Take a record of a delay topic, or rest its partition if it is too early."""
        place = record.origin
        partition = (place.topic, place.partition)
        lease = self._assignment.lease(partition)
        if lease is None or self._assignment.rests(partition):
            return  # not ours any more; or it comes again, after the one that its partition rests for
        retry = read_retry(record)
        self._note(lease, place.offset, retry.due_ms)
        wait_s = min(retry.due_ms / 1000 - self._wall(), self._delays[place.topic].seconds)
        # Once it has rested it is due, whatever the clocks say: a far due time of a wrong clock holds nobody for ever.
        if wait_s > 0 and self._rested.get(partition) != (lease, place.offset):
            self._rested[partition] = (lease, place.offset)
            self._assignment.rest(partition, place.offset, wait_s)
        else:
            self._due.append((retry, lease))

    def let_through(self, room: int) -> list[tuple[Incoming, Lease]]:
        """Those that may go to the pipeline now, started under their leases; pauses the delay topics while some wait.

        Args:
            room: how many more listings the pipeline takes.
        """
        through: list[tuple[Incoming, Lease]] = []
        if self._due:
            in_flight, live_waits = self._assignment.retries_in_flight, self._assignment.live_lag > 0
            room = min(room, self._share.room(in_flight, live_waits=live_waits))
        while self._due and len(through) < room:
            retry, lease = self._due.popleft()
            if not lease.ended:
                lease.start(retry.place.offset)
                through.append((retry, lease))
        self._share.took_retries(len(through))
        self._assignment.pause_retries(bool(self._due))
        return through

    def show_overdue(self) -> None:
        """Set `mmcat_retry_overdue_seconds` from what was polled; what was not is due later still."""
        self._seen = {lease: seen for lease, seen in self._seen.items() if not lease.ended}
        for lease, seen in self._seen.items():
            first = lease.committable()
            while seen and first is not None and seen[0][0] < first:
                seen.popleft()
        first_due = min((seen[0][1] for seen in self._seen.values() if seen), default=None)
        late_s = 0.0 if first_due is None else self._wall() - first_due / 1000
        self._metrics.retry_overdue.set(max(0.0, late_s))

    def _note(self, lease: Lease, offset: int, due_ms: int) -> None:
        seen = self._seen.setdefault(lease, deque())
        if not seen or offset > seen[-1][0]:
            seen.append((offset, due_ms))
