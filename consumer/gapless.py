"""What a transaction may hold: outcomes with nothing unfinished below them in their partition. Pure.

Outcomes are put in whatever order the work ends. They wait here, records and all, until every earlier polled record of
their partition has its outcome too; then they go, in the order of the partition, with the offset that they end at.
Between the pipeline and transactions.py, which takes them.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Generic

from consumer.delivery import Done, W
from consumer.offsets import Lease, Partition


@dataclass(slots=True, eq=False)
class Outcome(Generic[W]):
    """What became of one polled record, and who is told when that is committed or will never be."""

    work: W
    on_done: Done[W]

    def __lt__(self, other: "Outcome[W]") -> bool:
        """For the heap of one lease."""
        return self.work.offset < other.work.offset


@dataclass(slots=True)
class Contents(Generic[W]):
    """What one transaction holds.

    Args:
        ends: by lease the offset to commit; every outcome of the lease is below it, and no unfinished record is.
        alone: it is for one partition that is on probation, and takes nothing of others.
    """

    outcomes: list[Outcome[W]] = field(default_factory=list)
    ends: dict[Lease, int] = field(default_factory=dict)
    alone: Lease | None = None

    @property
    def offsets(self) -> dict[Partition, int]:
        """To be committed with it."""
        return {lease.partition: offset for lease, offset in self.ends.items()}

    @property
    def broken(self) -> bool:
        """Whether a lease ended since: its records must not become visible, nor its offsets move."""
        return any(lease.ended for lease in self.ends)


class Gapless(Generic[W]):
    """The outcomes that wait; thread-safe.

    A partition of which a record was refused is on probation: what it has goes alone, so that it does not fail what
    others have, until a transaction of it succeeds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Lease, list[Outcome[W]]] = {}
        self._probation: set[Partition] = set()

    def put(self, outcomes: Iterable[Outcome[W]]) -> None:
        """Work on these records has ended. From here on their leases count them as finished."""
        ended: defaultdict[Lease, list[int]] = defaultdict(list)
        with self._lock:
            for outcome in outcomes:
                heappush(self._waiting.setdefault(outcome.work.lease, []), outcome)
                ended[outcome.work.lease].append(outcome.work.offset)
            # After they are in the heap: below what a lease then calls committable, all is either waiting or was taken.
            for lease, offsets in ended.items():
                lease.finish(*offsets)

    def take(self, into: Contents[W]) -> tuple[list[Outcome[W]], list[Outcome[W]]]:
        """Move what may go now into a transaction. Returns that, and what is dropped because its lease ended."""
        taken: list[Outcome[W]] = []
        dropped: list[Outcome[W]] = []
        with self._lock:
            for lease in self._in_turn():
                waiting = self._waiting[lease]
                edge = lease.committable()
                if edge is None:
                    dropped += self._waiting.pop(lease)
                elif waiting[0].work.offset < edge and self._may_join(lease, into):
                    while waiting and waiting[0].work.offset < edge:
                        taken.append(heappop(waiting))
                    into.ends[lease] = edge
                    if not waiting:
                        del self._waiting[lease]
        into.outcomes += taken
        return taken, dropped

    def on_probation(self, partition: Partition) -> None:
        """A record of it was refused."""
        with self._lock:
            self._probation.add(partition)

    def passed(self, partitions: Iterable[Partition]) -> None:
        """A transaction of these succeeded."""
        with self._lock:
            self._probation.difference_update(partitions)

    def _in_turn(self) -> list[Lease]:
        """Those on probation first: they go into empty transactions only."""
        return sorted(self._waiting, key=lambda lease: lease.partition not in self._probation)

    def _may_join(self, lease: Lease, into: Contents[W]) -> bool:
        if into.alone is not None:
            return into.alone is lease
        if lease.partition not in self._probation:
            return True
        if into.ends:
            return False
        into.alone = lease
        return True
