"""Late photos: which delay an event takes next, its record for that delay's topic, and how such a record is read.

Pure. A retry is the original record, byte for byte, with headers that say what it is a copy of and when it is due:
order and identity come from those, never from the copy. Written by the pipeline beside an answer without the photo,
and by whoever sends a dead letter again; read by retry_intake.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from consumer.rank import LIMIT
from consumer.records import Incoming, Origin, Outgoing, carried
from consumer.settings import Settings

ATTEMPT: Final = "mmcat-attempt"  # of this event, counted from 0: 1 in the first retry
DUE: Final = "mmcat-due"  # ms since 1970
REPLAYED: Final = "mmcat-replayed"  # "1": a dead letter sent again, so no attempt has answered the event yet
MAX_ATTEMPT: Final = 9_999
MAX_TOPIC: Final = 249
MAX_PARTITION: Final = 2**31
MAX_OFFSET: Final = 2**63


@dataclass(frozen=True, slots=True)
class Delay:
    """A topic, and how long it holds a record back."""

    topic: str
    seconds: int


class Delays:
    """The delay topics in their order; empty where late photos are not waited for."""

    def __init__(self, delays: Sequence[Delay]) -> None:
        self._delays = {one.topic: one for one in delays}

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the operator set them."""
        prefix = settings.topics.retry_prefix
        return cls([Delay(f"{prefix}.{name}", seconds) for name, seconds in settings.retry.delays_s.items()])

    @property
    def topics(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._delays)

    def __contains__(self, topic: str) -> bool:
        return topic in self._delays

    def __getitem__(self, topic: str) -> Delay:
        return self._delays[topic]

    def after(self, topic: str, at_least_s: float = 0.0) -> Delay | None:
        """The delay that comes after `topic` (the input topic: the first), or None after the last.

        Args:
            at_least_s: shorter ones are passed over; if all are shorter, it is the last.
        """
        all_of_them = list(self._delays.values())
        later = all_of_them[self.topics.index(topic) + 1 :] if topic in self else all_of_them
        return next((one for one in later if one.seconds >= at_least_s), later[-1] if later else None)


def retry_record(incoming: Incoming, delay: Delay, now_ms: int) -> Outgoing:
    """The record that brings the event back after `delay`.

    Args:
        now_ms: since 1970.
    """
    headers = [
        (ATTEMPT, b"%d" % (incoming.attempt + 1)),
        (DUE, b"%d" % (now_ms + 1000 * delay.seconds)),
        *incoming.origin.headers(),
        *carried(incoming.headers),
    ]
    return Outgoing(delay.topic, incoming.key, incoming.value, headers)


def read_retry(polled: Incoming) -> Incoming:
    """A record of a delay topic as the event it is a copy of; with a `fault` where its headers do not say which."""
    headers = dict(polled.headers)
    try:
        attempt = _number(headers, ATTEMPT, 1, MAX_ATTEMPT + 1)
        due_ms = _number(headers, DUE, 0, LIMIT)
        origin = _origin(headers)
    except ValueError as error:
        return polled._replace(fault=str(error))
    replayed = headers.get(REPLAYED) == b"1"
    return polled._replace(origin=origin, copy=polled.origin, attempt=attempt, due_ms=due_ms, answered=not replayed)


def _origin(headers: Mapping[str, bytes]) -> Origin:
    topic = headers.get("mmcat-origin-topic", b"")
    if not 0 < len(topic) <= MAX_TOPIC or not topic.isascii():
        raise ValueError("mmcat-origin-topic is missing, or is no name of a topic")
    return Origin(
        topic.decode(),
        _number(headers, "mmcat-origin-partition", 0, MAX_PARTITION),
        _number(headers, "mmcat-origin-offset", 0, MAX_OFFSET),
        _number(headers, "mmcat-origin-timestamp", -1, LIMIT),  # -1: the input record had none
    )


def _number(headers: Mapping[str, bytes], name: str, low: int, high: int) -> int:
    """An integer in low … high - 1, as text.

    Raises:
        ValueError: it is missing, or something else; the message says which.
    """
    text = headers.get(name)
    if text is None:
        raise ValueError(f"{name} is missing")
    # The length first: Python refuses to read an integer of thousands of digits.
    if len(text) <= len(str(high)) and text.removeprefix(b"-").isdigit() and low <= int(text) < high:
        return int(text)
    raise ValueError(f"{name} is not an integer in {low} … {high - 1}")
