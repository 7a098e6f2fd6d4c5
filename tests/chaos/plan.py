"""Which trial comes next, given what was run already: one of every row and mode first, then the second of each.

Before `lanes`, which asks it. Knows of no process and no file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.chaos.records import TrialRecord

TRIES: Final = 2
"""A row may miss its point this many times as often as it is to strike."""


class Task(NamedTuple):
    """One trial to run; `number` counts the trials of its row in its mode, from 0."""

    row: str
    mode: str
    number: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many trials of a row in a mode are to count, on how many brokers."""

    row: str
    mode: str
    trials: int
    brokers: int


@dataclass(slots=True)
class _Share:
    """What is there of one row in one mode.

    Args:
        counted: trials that count: the fault struck, and nobody objected.
        begun: those that counted at the start, and all that were handed out since.
        tries: how many may still be handed out.
        number: of the next trial.
        running: handed out and not back.
    """

    wanted: Wanted
    counted: int
    begun: int
    tries: int
    number: int
    running: int = 0

    @property
    def open(self) -> bool:
        """Whether one more is to be handed out."""
        return self.tries > 0 and self.counted + self.running < self.wanted.trials


class Plan:
    """Hands out what is missing; a trial that does not count is made up for later.

    Args:
        wanted: in the order in which trials of equal turn are to be run.
        done: trials that were run already, of these rows and of others.
    """

    def __init__(self, wanted: Iterable[Wanted], done: Sequence[TrialRecord]) -> None:
        self._shares: dict[tuple[str, str], _Share] = {}
        self._again: list[Task] = []
        for one in wanted:
            mine = [record for record in done if (record.row, record.mode) == (one.row, one.mode)]
            counted = sum(record.counts for record in mine)
            number = max((record.number + 1 for record in mine), default=0)
            tries = TRIES * max(0, one.trials - counted)
            self._shares[one.row, one.mode] = _Share(one, counted, counted, tries, number)

    @property
    def total(self) -> int:
        """Trials that are to count in the end."""
        return sum(share.wanted.trials for share in self._shares.values())

    @property
    def missing(self) -> int:
        """Trials that are still to count, those that are being run among them."""
        return sum(max(0, share.wanted.trials - share.counted) for share in self._shares.values())

    def brokers(self, task: Task) -> int:
        """How many brokers a task needs."""
        return self._shares[task.row, task.mode].wanted.brokers

    def next(self, brokers: int = 0) -> Task | None:
        """Hand out a trial of what was begun least often, on so many brokers if it can be; None: nothing to do now."""
        if self._again:
            return self._again.pop()
        shares = [share for share in self._shares.values() if share.open]
        if not shares:
            return None
        share = min(shares, key=lambda one: (one.begun, one.wanted.brokers != brokers))
        task = Task(share.wanted.row, share.wanted.mode, share.number)
        share.begun += 1
        share.number += 1
        share.tries -= 1
        share.running += 1
        return task

    def lost(self, task: Task) -> None:
        """Take back what was handed out and not run: it comes next."""
        self._again.append(task)

    def finished(self, record: TrialRecord) -> None:
        """Note what became of a trial that was handed out."""
        share = self._shares[record.row, record.mode]
        share.running -= 1
        share.counted += record.counts
