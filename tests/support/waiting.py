"""Waiting for something to become true, with a deadline and a sentence for when it does not."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str, within_s: float = 30.0, every_s: float = 0.05) -> Found:
    """Return the first truthy answer of `look`, asked again and again; fails with `what` at the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what} (last answer: {found!r})"
        time.sleep(every_s)
