"""A record that cannot be categorized, for the dead-letter topic: byte for byte, with why and where from as headers.

Pure. What is too large even so keeps its coordinates, its SHA-256 and the first 64 KiB.
"""

import hashlib
from datetime import UTC, datetime
from typing import Final

from consumer.records import Incoming, Outgoing, carried

DETAIL_BYTES: Final = 1024
KEPT_BYTES: Final = 64 * 1024


def dead_letter(incoming: Incoming, code: str, detail: str, *, topic: str, version: str, max_bytes: int) -> Outgoing:
    """The dead letter of one record.

    Args:
        code: a stable code of `events.Code`.
        detail: one sentence; cut to 1 KiB of whole characters.
        version: of this program.
        max_bytes: if key and value are longer, what of them is beyond 64 KiB is cut, marked `mmcat-truncated: 1`;
            the value is told by its SHA-256.
    """
    key, value = incoming.key, incoming.value
    headers = [
        ("mmcat-error", code.encode()),
        ("mmcat-error-detail", detail.encode("utf-8", "replace")[:DETAIL_BYTES].decode("utf-8", "ignore").encode()),
        ("mmcat-failed-at", datetime.now(UTC).isoformat(timespec="milliseconds").encode()),
        ("mmcat-version", version.encode()),
        *incoming.origin.headers(),
        *carried(incoming.headers),
    ]
    if len(key or b"") + len(value or b"") > max_bytes:
        headers.append(("mmcat-truncated", b"1"))
        if value is not None:
            headers.append(("mmcat-sha256", hashlib.sha256(value).hexdigest().encode()))
            headers.append(("mmcat-size", b"%d" % len(value)))
        key, value = key and key[:KEPT_BYTES], value and value[:KEPT_BYTES]
    return Outgoing(topic, key, value, headers)
