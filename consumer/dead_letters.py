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
        max_bytes: a longer value is cut, marked `mmcat-truncated: 1` and told by its SHA-256.
    """
    value = incoming.value
    headers = [
        ("mmcat-error", code.encode()),
        ("mmcat-error-detail", detail.encode("utf-8", "replace")[:DETAIL_BYTES].decode("utf-8", "ignore").encode()),
        ("mmcat-failed-at", datetime.now(UTC).isoformat(timespec="milliseconds").encode()),
        ("mmcat-version", version.encode()),
        *incoming.origin.headers(),
        *carried(incoming.headers),
    ]
    if value is not None and len(value) > max_bytes:
        headers += [
            ("mmcat-truncated", b"1"),
            ("mmcat-sha256", hashlib.sha256(value).hexdigest().encode()),
            ("mmcat-size", b"%d" % len(value)),
        ]
        value = value[:KEPT_BYTES]
    return Outgoing(topic, incoming.key, value, headers)
