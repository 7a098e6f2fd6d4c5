"""A Kafka message as the record that the pipeline takes. Used by the service and by replay."""

import structlog

from consumer.kafka import Message
from consumer.records import Incoming, Origin

log = structlog.get_logger("mmcat.intake")


def incoming(message: Message) -> Incoming:
    """Copy what is needed out of a polled message that is not an error."""
    pairs = header_pairs(message)
    headers = [(name, value or b"") for name, value in pairs] if pairs else []
    _, timestamp_ms = message.timestamp()
    origin = Origin(message.topic() or "", message.partition() or 0, message.offset() or 0, timestamp_ms)
    return Incoming(origin, _bytes(message.key()), _bytes(message.value()), headers)


def header_pairs(message: Message) -> list[tuple[str, bytes | None]]:
    """A polled record's headers; none where the client cannot show them."""
    try:
        headers = message.headers()
    except (SystemError, UnicodeDecodeError):
        # A name that is not UTF-8: the client cannot show any of them. The event itself is none the worse.
        log.warning("headers_unreadable", partition=message.partition(), offset=message.offset())
        return []
    if not headers:
        return []
    # Polled headers are always a list; the client's types also name the dictionary that `produce` takes.
    return [(str(name), _bytes(value)) for name, value in (headers.items() if isinstance(headers, dict) else headers)]


def _bytes(raw: str | bytes | None) -> bytes | None:
    return raw.encode() if isinstance(raw, str) else raw
