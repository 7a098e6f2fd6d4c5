"""How long work tells of itself: a small protocol that the program draws with rich and tests ignore.

Known to every step that takes seconds; draws nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Called from one thread. A stage begins, advances to its total, and ends when the next begins."""

    def begin(self, stage: str, total: int) -> None:
        """A new stage of `total` units, in words for a person."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done; `note` (a loss, an accuracy) stands beside the bar."""

    def say(self, line: str) -> None:
        """One line that should stay on the screen."""


class Quiet:
    """The progress that shows nothing."""

    def begin(self, stage: str, total: int) -> None:
        return None

    def advance(self, count: int = 1, note: str = "") -> None:
        return None

    def say(self, line: str) -> None:
        return None


def chunks(items: Sequence[T], size: int, progress: Progress, stage: str) -> Iterator[Sequence[T]]:
    """Slices of `items`, telling `progress` after each that it is done."""
    progress.begin(stage, len(items))
    for start in range(0, len(items), size):
        chunk = items[start : start + size]
        yield chunk
        progress.advance(len(chunk))
