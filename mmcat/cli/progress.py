"""Progress of long work on stderr: bars where a person watches, a line at a time where nobody does.

Implements the protocol that training asks for; used by `train`, `demo`, `replay` and `dead-letter`.
"""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mmcat.cli.texts import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Stage", "StderrProgress"]

LINE_S = 10.0
"""Off a terminal a stage speaks when it begins and every ten seconds: a log should stay short."""


class StderrProgress:
    """A context manager; stages follow one another. Called from one thread."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._total = 0
        self._done = 0
        self._spoke_s = 0.0

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bars = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, stage: str, total: int) -> None:
        """A new stage of `total` units; the one before is done."""
        self._stage, self._total, self._done = stage, total, 0
        self._spoke_s = time.monotonic()
        if self._bars is None:
            say(f"{stage} ({total})")
        else:
            self._task = self._bars.add_task(stage, total=total, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done."""
        self._done += count
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=count, note=note)
        elif self._bars is None and time.monotonic() - self._spoke_s > LINE_S:
            self._spoke_s = time.monotonic()
            say(f"  {self._done}/{self._total} {note}".rstrip())

    def say(self, line: str) -> None:
        """One line that stays."""
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False)
        else:
            say(line)


class Stage:
    """A stage told by how many of its units are done and how many there are; it begins when it is first told."""

    def __init__(self, progress: StderrProgress, name: str) -> None:
        self._progress, self._name, self._done = progress, name, -1

    def __call__(self, done: int, total: int) -> None:
        if self._done < 0:
            self._progress.begin(self._name, total)
            self._done = 0
        self._progress.advance(done - self._done)
        self._done = done
