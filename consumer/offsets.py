"""What may be committed: the lowest offset with no unfinished polled record below it. Pure.

A partition is held under a lease, from its assignment (or from a seek back) until it is revoked, lost or sought back.
Work carries its lease; what comes back under a lease that ended is dropped, and counts for nothing.
Used by the service (which commits) and by the pipeline (which finishes).
"""

import threading
from collections import deque
from collections.abc import Iterable

Partition = tuple[str, int]


class Lease:
    """One holding of one partition. Started offsets rise; they may have gaps (compaction, transaction markers)."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self._lock = threading.Lock()
        self._order: deque[int] = deque()
        self._open: set[int] = set()
        self._next: int | None = None
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether what is still in flight under it is to be dropped."""
        return self._ended

    @property
    def unfinished(self) -> int:
        """Records started and not finished."""
        return len(self._open)

    def start(self, *offsets: int) -> None:
        """Records were polled.

        Raises:
            ValueError: not above every offset started before: records of a partition come in order.
        """
        with self._lock:
            for offset in offsets:
                if self._next is not None and offset < self._next:
                    raise ValueError(f"offset {offset} of {self.partition} after {self._next - 1}")
                self._order.append(offset)
                self._open.add(offset)
                self._next = offset + 1

    def finish(self, *offsets: int) -> None:
        """Everything that these records were to bring about is acknowledged."""
        with self._lock:
            self._open.difference_update(offsets)
            while self._order and self._order[0] not in self._open:
                self._order.popleft()

    def committable(self) -> int | None:
        """The offset to commit: that of the first record to read again; None before any record or after its end."""
        with self._lock:
            return None if self._ended else self._low()

    def end(self) -> int | None:
        """End it and return what may still be committed: in one step, so that nothing finishes in between."""
        with self._lock:
            last = None if self._ended else self._low()
            self._ended = True
            return last

    def _low(self) -> int | None:
        return self._order[0] if self._order else self._next


class Offsets:
    """The leases of the partitions held now, and what of them was committed last. Belongs to the poll thread."""

    def __init__(self) -> None:
        self._leases: dict[Partition, Lease] = {}
        self._committed: dict[Partition, int] = {}

    @property
    def leases(self) -> list[Lease]:
        """Those held now."""
        return list(self._leases.values())

    def begin(self, partition: Partition) -> Lease:
        """Hold a partition from here on; an older lease of it ends."""
        if (old := self._leases.get(partition)) is not None:
            old.end()
        self._committed.pop(partition, None)
        lease = self._leases[partition] = Lease(partition)
        return lease

    def lease(self, partition: Partition) -> Lease | None:
        """The lease of a partition, None where it is not held."""
        return self._leases.get(partition)

    def end(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Give partitions up and return what is to be committed for them now or never."""
        last: dict[Partition, int] = {}
        for partition in partitions:
            lease = self._leases.pop(partition, None)
            offset = None if lease is None else lease.end()
            if offset is not None and self._committed.get(partition) != offset:
                last[partition] = offset
            self._committed.pop(partition, None)
        return last

    def changed(self) -> dict[Partition, int]:
        """What has become committable since it was last asked for."""
        moved: dict[Partition, int] = {}
        for partition, lease in self._leases.items():
            offset = lease.committable()
            if offset is not None and self._committed.get(partition) != offset:
                moved[partition] = offset
        self._committed.update(moved)
        return moved

    def forget(self, partitions: Iterable[Partition]) -> None:
        """A commit of these failed: `changed` names them again."""
        for partition in partitions:
            self._committed.pop(partition, None)
