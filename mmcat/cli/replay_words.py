"""What `mmcat replay --from` and `--to` understand: a word as one side of a range. Before `replay`."""

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mmcat.cli.texts import CommandError

if TYPE_CHECKING:
    from consumer.spans import Bound

__all__ = ["read_bound"]

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_bound(word: str, now: datetime) -> "Bound":
    """Read one side of a range; nothing is as far as it goes.

    Raises:
        CommandError: not a time, not an offset.
    """
    from consumer.spans import Bound

    if not word:
        return Bound()
    if word.isdigit():
        return Bound(offset=int(word))
    if re.fullmatch(r"\d+:\d+(,\d+:\d+)*", word):
        pairs = [pair.split(":") for pair in word.split(",")]
        return Bound(offsets={int(partition): int(offset) for partition, offset in pairs})
    if ago := re.fullmatch(r"(\d{1,6})([smhd])", word):
        return Bound(time_ms=_ms(now - timedelta(**{UNITS[ago[2]]: int(ago[1])})))
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        said = "a time (2026-05-01T00:00:00Z), how long ago (15m), an offset (1200) or offsets (0:1200,3:990)"
        raise CommandError(f"{word!r} is not {said}") from None
    if moment.tzinfo is None:
        raise CommandError(f"{word!r} does not say its time zone: {word}Z is UTC")
    return Bound(time_ms=_ms(moment))


def _ms(moment: datetime) -> int:
    return max(0, int(moment.timestamp() * 1000))
