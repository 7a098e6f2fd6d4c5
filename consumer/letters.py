"""A dead letter as it is read back: why it is one, where it came from, which are asked for, and how it is sent again.

Pure. After letter_reader.py, which reads them; the other side of dead_letters.py, which writes them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from consumer.records import Headers, Incoming, Origin, Outgoing, carried
from consumer.retries import ATTEMPT, DUE, REPLAYED


class Refused(StrEnum):
    """Why a dead letter cannot be sent again; the value is the sentence."""

    TRUNCATED = "only its first 64 KiB were kept: register the listing again"
    NO_ORIGIN = "it does not say which record it comes from: it is none of ours"


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of the dead-letter topic; key and value are those of the record that could not be categorized.

    Args:
        timestamp_ms: of the dead letter, since 1970.
        code: why, as in `events.Code`; "" where it does not say.
        origin: the record it was made of; None where it does not say.
    """

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    code: str
    detail: str
    origin: Origin | None
    truncated: bool

    @property
    def product(self) -> str:
        """The product it is about, as well as that can be told: its key, or what its value says; else ""."""
        if self.key is not None:
            return self.key.decode("utf-8", "replace")
        try:
            value = json.loads(self.value or b"null")
        except (ValueError, RecursionError):
            return ""
        named = value.get("product_id") if isinstance(value, dict) else None
        return named if isinstance(named, str) else ""

    @property
    def refused(self) -> Refused | None:
        """Why it cannot be sent again, None if it can."""
        if self.truncated:
            return Refused.TRUNCATED
        return Refused.NO_ORIGIN if self.origin is None else None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters: of any of these codes, about any of these products; an empty set asks for nothing."""

    codes: frozenset[str] = frozenset()
    products: frozenset[str] = frozenset()

    def takes(self, letter: Letter) -> bool:
        """Whether it is one of them."""
        if self.codes and letter.code not in self.codes:
            return False
        return not self.products or letter.product in self.products


def read_letter(incoming: Incoming) -> Letter:
    """Read a record of the dead-letter topic; never raises."""
    origin, headers = incoming.origin, dict(incoming.headers)
    return Letter(
        origin.partition,
        origin.offset,
        origin.timestamp_ms,
        incoming.key,
        incoming.value,
        incoming.headers,
        _text(headers.get("mmcat-error")),
        _text(headers.get("mmcat-error-detail")),
        _origin(headers),
        headers.get("mmcat-truncated") == b"1",
    )


def sent_again(letter: Letter, topic: str, now_ms: int) -> Outgoing:
    """The record for a delay topic: the original bytes, due at once, with the origin that gives it order and identity.

    Args:
        letter: that is not `refused`.
        topic: the first delay topic.
        now_ms: since 1970.
    """
    origin = letter.origin.headers() if letter.origin is not None else []
    headers = [
        (ATTEMPT, b"1"),
        (DUE, b"%d" % now_ms),
        *origin,
        (REPLAYED, b"1"),
        *carried(letter.headers),
    ]
    return Outgoing(topic, letter.key, letter.value, headers)


def _origin(headers: Mapping[str, bytes]) -> Origin | None:
    named = [headers.get(f"mmcat-origin-{part}") for part in ("topic", "partition", "offset", "timestamp")]
    topic, *numbers = (_text(one) for one in named)
    if not topic or not all(one.isascii() and one.isdigit() and len(one) < 20 for one in numbers):
        return None
    return Origin(topic, *map(int, numbers))


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")
