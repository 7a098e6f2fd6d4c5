"""Ending a command from outside as calmly as from inside: SIGTERM and SIGHUP run the same clean-up as Ctrl-C.

Without this, SIGTERM would skip every `finally` (and as process 1 of a container not even end the program).
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interruptible"]


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit with the code a shell gives them; only in the main thread."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
