"""Which dead letters of a partition were sent again already, so that nothing is sent twice. Pure.

A run is told by what it chose and how far it came: a few bytes, however many letters it sent. The journal of a
partition is the metadata of a commit under a group of its own: no file, no topic. letter_replay.py keeps it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from consumer.letters import Choice, Letter

MAX_BYTES: Final = 4_000  # what a broker takes as metadata of a commit is 4,096 (offset.metadata.max.bytes)


@dataclass(frozen=True, slots=True)
class Run:
    """All letters of a choice between two offsets, the second not included."""

    choice: Choice
    start: int
    end: int


class Journal:
    """The runs over one partition; never changed."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._runs = tuple(runs)

    @classmethod
    def parse(cls, text: str) -> "Journal":
        """Read what `format` wrote; what is not that holds nothing."""
        try:
            rows = json.loads(text or "[]")
            return cls(Run(Choice(frozenset(codes), frozenset(ids)), int(a), int(b)) for codes, ids, a, b in rows)
        except (ValueError, TypeError, RecursionError):
            return cls()

    def format(self) -> str:
        """As text of at most `MAX_BYTES`; where that is too little the shortest runs are forgotten."""
        runs = sorted(self._runs, key=lambda run: run.end - run.start, reverse=True)
        while len(text := json.dumps([_row(run) for run in runs], separators=(",", ":"))) > MAX_BYTES:
            runs.pop()
        return text

    def has(self, letter: Letter) -> bool:
        """Whether it was sent again by any run."""
        if letter.refused is not None:
            return False
        return any(run.start <= letter.offset < run.end and run.choice.takes(letter) for run in self._runs)

    def add(self, choice: Choice, start: int, end: int) -> "Journal":
        """A journal that also has a run over all letters of a choice from `start` up to, not including, `end`."""
        joined = [run for run in self._runs if run.choice == choice and run.start <= end and start <= run.end]
        first = min([start, *(run.start for run in joined)])
        last = max([end, *(run.end for run in joined)])
        return Journal([*(run for run in self._runs if run not in joined), Run(choice, first, last)])

    def since(self, offset: int) -> "Journal":
        """A journal without the runs that are all below `offset`: those letters are gone from the topic."""
        return Journal(run for run in self._runs if run.end > offset)


def _row(run: Run) -> list[object]:
    return [sorted(run.choice.codes), sorted(run.choice.products), run.start, run.end]
