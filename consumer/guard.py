"""Holds a partition back when most of what it brings becomes dead letters: then it is not the listings that are wrong.

Pure. A partition whose last `window` outcomes were dead letters by `share` and more, for `hold_s` and longer, is
paused: `probes_per_minute` of its records are let through, one at a time; the rest stays in the topic. When of a
minute's probes fewer than `share` are bad, or a person says so, it goes on, and is judged anew.
The poll thread asks before it starts a record, the pipeline tells what became of it; assignment.py makes the pauses.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from consumer.offsets import Partition
from consumer.settings import GuardSettings

log = structlog.get_logger("mmcat.guard")


@dataclass(slots=True)
class _Record:
    """What is known of one partition.

    Args:
        outcomes: True for a dead letter; of the probes alone while it is paused.
        bad: how many of them are.
        bad_since: monotonic seconds; None while too few are.
        probes: offsets let through while it is paused, whose outcome is not known yet.
    """

    outcomes: deque[bool]
    bad: int = 0
    bad_since: float | None = None
    paused: bool = False
    probes: set[int] = field(default_factory=set)

    def add(self, dead: bool, most: int) -> None:
        """The latest of at most so many outcomes."""
        self.outcomes.append(dead)
        self.bad += dead
        if len(self.outcomes) > most:
            self.bad -= self.outcomes.popleft()

    def begin(self, *, paused: bool) -> None:
        """Judge it anew."""
        self.outcomes.clear()
        self.probes.clear()
        self.bad, self.bad_since, self.paused = 0, None, paused


class Guard:
    """All partitions of the input topic; thread-safe.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, settings: GuardSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._records: dict[Partition, _Record] = {}

    def told(self, partition: Partition, outcomes: Iterable[tuple[int, bool]]) -> None:
        """Records of the partition have their outcomes, by offset: True for a dead letter, False for what is better."""
        with self._lock:
            record = self._records.setdefault(partition, _Record(deque()))
            for offset, dead in outcomes:
                if not record.paused:
                    record.add(dead, self._settings.window)
                elif offset in record.probes:  # what was in flight when it was paused says nothing of now
                    self._probed(partition, record, offset, dead=dead)
            if not record.paused:
                self._judge(partition, record)

    def admit(self, partition: Partition, offset: int) -> float:
        """A record is about to be started. Returns for how many seconds nothing more may be after it, 0.0: at once."""
        with self._lock:
            record = self._records.get(partition)
            if record is not None and not record.paused:
                self._judge(partition, record)
            if record is None or not record.paused:
                return 0.0
            record.probes.add(offset)
            return 60.0 / self._settings.probes_per_minute

    def resume(self, partitions: Iterable[int] | None = None) -> list[int]:
        """Let paused partitions go on, all or those of these numbers; returns which were."""
        wanted = None if partitions is None else set(partitions)
        with self._lock:
            found = sorted(
                partition
                for partition, record in self._records.items()
                if record.paused and (wanted is None or partition[1] in wanted)
            )
            for partition in found:
                self._records[partition].begin(paused=False)
        log.info("guard_resumed", partitions=[number for _, number in found], by="hand")
        return [number for _, number in found]

    def forget(self, partition: Partition) -> None:
        """It is not ours any more."""
        with self._lock:
            self._records.pop(partition, None)

    @property
    def paused(self) -> list[int]:
        """The partitions held back."""
        with self._lock:
            return sorted(number for (_, number), record in self._records.items() if record.paused)

    @property
    def sentence(self) -> str | None:
        """For /readyz; None while nothing is held back."""
        if not (paused := self.paused):
            return None
        share, window = self._settings.share, self._settings.window
        return (
            f"partitions {', '.join(map(str, paused))}: {share:.0%} and more of the last {window} events became dead "
            f"letters; {self._settings.probes_per_minute} a minute are tried: see `mmcat dead-letter list`, mend the "
            "cause, or let them go on with `mmcat resume`"
        )

    def _probed(self, partition: Partition, record: _Record, offset: int, *, dead: bool) -> None:
        record.probes.discard(offset)
        record.add(dead, self._settings.probes_per_minute)
        if len(record.outcomes) == self._settings.probes_per_minute and not self._is_bad(record):
            record.begin(paused=False)
            log.info("guard_resumed", partition=partition[1], by="probes")

    def _is_bad(self, record: _Record) -> bool:
        return record.bad >= self._settings.share * len(record.outcomes)

    def _judge(self, partition: Partition, record: _Record) -> None:
        if len(record.outcomes) < self._settings.window or not self._is_bad(record):
            record.bad_since = None
            return
        now = self._clock()
        record.bad_since = now if record.bad_since is None else record.bad_since
        if now - record.bad_since >= self._settings.hold_s:
            log.error("guard_paused", partition=partition[1], dead_letters=record.bad, of=len(record.outcomes))
            record.begin(paused=True)
