"""Finds a partition gone silent: records are there, nothing holds them up, and none comes.

Pure. A client can fall silent after a broker restart and say nothing (librdkafka#5153); only who asks somebody else for
the end of the partition can tell. The service asks with a client of its own; assignment.py says how far each partition
was read.
"""

from collections.abc import Mapping

from consumer.offsets import Partition


class Watchdog:
    """Compares where a partition is read with where it ends. Belongs to one thread.

    Args:
        after_s: how long a position may stand still before the end.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._behind: dict[Partition, tuple[int, float]] = {}  # position, and since when it was seen there

    def silent(
        self, positions: Mapping[Partition, int], ends: Mapping[Partition, int], now: float
    ) -> dict[Partition, int]:
        """Return the partitions gone silent, with how many offsets they are behind.

        Args:
            positions: the next offset of each partition that nothing holds up on purpose; -1: nothing was read yet.
            ends: of them, as the broker told; those it did not tell stay as they were.
            now: monotonic seconds.
        """
        self._behind = {one: known for one, known in self._behind.items() if positions.get(one) == known[0]}
        found = {}
        for partition, position in positions.items():
            behind = ends.get(partition, 0) - max(position, 0)
            if partition in ends and behind <= 0:
                self._behind.pop(partition, None)
            elif behind > 0:
                _, since = self._behind.setdefault(partition, (position, now))
                if now - since >= self._after_s:
                    found[partition] = behind
        return found


def sentence(silent: Mapping[Partition, int], after_s: float) -> str | None:
    """For /readyz; None while none is silent."""
    if not silent:
        return None
    named = ", ".join(f"{topic} {number} ({behind} behind)" for (topic, number), behind in sorted(silent.items()))
    return f"nothing has come for {after_s:g} s from {named}, though nothing holds it up: restart this process"
