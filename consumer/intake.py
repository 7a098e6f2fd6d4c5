"""A Kafka message as the record that the pipeline takes. Used by the service and by replay."""

from consumer.kafka import Message
from consumer.records import Incoming, Origin


def incoming(message: Message) -> Incoming:
    """Copy what is needed out of a polled message that is not an error."""
    headers = [(str(name), _bytes(value) or b"") for name, value in _pairs(message)]
    _, timestamp_ms = message.timestamp()
    origin = Origin(message.topic() or "", message.partition() or 0, message.offset() or 0, timestamp_ms)
    return Incoming(origin, _bytes(message.key()), _bytes(message.value()), headers)


def _pairs(message: Message) -> list[tuple[str, str | bytes | None]]:
    """Polled headers are always a list; the client's types also name the dictionary that `produce` takes."""
    headers = message.headers()
    return list(headers.items()) if isinstance(headers, dict) else list(headers or ())


def _bytes(raw: str | bytes | None) -> bytes | None:
    return raw.encode() if isinstance(raw, str) else raw
