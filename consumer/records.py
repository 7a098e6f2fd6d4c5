"""The nouns of the stream: a record that came in, where it came from, a record to be sent. Pure data.

Named tuples: some of each are made for every event, and a frozen dataclass of nine fields costs three times as much.
Used by events.py, results.py, dead_letters.py and the pipeline; the Kafka client's own types stay in kafka.py.
"""

from typing import Final, NamedTuple

Headers = list[tuple[str, bytes]]

# Of the headers a record came with, these go on with what becomes of it (W3C trace context, CloudEvents).
CARRIED: Final = ("traceparent", "tracestate", "ce_")
CARRIED_BYTES: Final = 16 * 1024


class Origin(NamedTuple):
    """The record in the input topic from which something comes; `timestamp_ms` since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int

    def headers(self) -> Headers:
        """`mmcat-origin-*`, as text."""
        return [
            ("mmcat-origin-topic", self.topic.encode()),
            ("mmcat-origin-partition", b"%d" % self.partition),
            ("mmcat-origin-offset", b"%d" % self.offset),
            ("mmcat-origin-timestamp", b"%d" % self.timestamp_ms),
        ]


class Incoming(NamedTuple):
    """A record as it was polled. A retry is taken for the event that it is a copy of (retries.py).

    Args:
        origin: the event's place in the input topic: from here come order and identity.
        copy: where it was polled, if that is not the origin.
        attempt: which attempt at the event this is; 0 is the first.
        due_ms: since 1970, before which it is not to be tried.
        answered: whether an earlier attempt has published an answer without the photo.
        fault: why a record of a retry topic cannot be taken for a retry; "" where nothing is wrong.
    """

    origin: Origin
    key: bytes | None
    value: bytes | None
    headers: Headers
    copy: Origin | None = None
    attempt: int = 0
    due_ms: int = 0
    answered: bool = False
    fault: str = ""

    @property
    def place(self) -> Origin:
        """Where it was polled: what its lease finishes."""
        return self.copy or self.origin

    @property
    def size_bytes(self) -> int:
        """What holding it costs, about."""
        return len(self.key or b"") + len(self.value or b"") + 256


class Outgoing(NamedTuple):
    """A record to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def size_bytes(self) -> int:
        """What holding it costs, about."""
        return len(self.key or b"") + len(self.value or b"") + 256


def carried(headers: Headers) -> Headers:
    """The incoming headers that travel on; too many of them are left behind whole, from the end."""
    kept: Headers = []
    room = CARRIED_BYTES
    for name, value in headers:
        if name.lower().startswith(CARRIED):
            room -= len(name) + len(value)
            if room < 0:
                break
            kept.append((name, value))
    return kept
