"""A dead letter as text: what a stranger wrote must not move the cursor, ring the bell or pose as something else.

For `dead_letter`, which prints it.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.letters import Letter

HEADINGS = ("where", "dead since", "code", "product", "bytes", "origin", "", "detail")
DETAIL_WIDTH = 60


def safe(text: str) -> str:
    """The text with every character that is not plainly visible written as an escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def json_line(value: object) -> str:
    """As JSON on one line, Korean as Korean; what is not plainly visible as its escape, which JSON reads back."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def counts(numbers: Counter[str]) -> str:
    """`12 model.failed, 3 event.schema`, the most first."""
    return ", ".join(f"{number} {safe(name) or 'without a code'}" for name, number in numbers.most_common())


def facts(letter: "Letter", *, sent_again: bool | None = None) -> dict[str, object]:
    """What is known of it, for JSON; without its value."""
    origin = letter.origin
    known: dict[str, object] = {
        "where": f"{letter.partition}:{letter.offset}",
        "at": _rfc3339(letter.timestamp_ms),
        "code": letter.code,
        "detail": letter.detail,
        "product": letter.product,
        "bytes": len(letter.value or b""),
        "origin": None
        if origin is None
        else {
            "topic": origin.topic,
            "partition": origin.partition,
            "offset": origin.offset,
            "timestamp": origin.timestamp_ms,
        },
        "truncated": letter.truncated,
        "refused": letter.refused,
    }
    return known if sent_again is None else known | {"sent_again": sent_again}


def row(letter: "Letter", *, sent_again: bool) -> tuple[str, ...]:
    """A row of the table under `HEADINGS`."""
    origin, detail = letter.origin, safe(letter.detail)
    marks = ["sent again"] * sent_again + ["truncated"] * letter.truncated
    return (
        f"{letter.partition}:{letter.offset}",
        _rfc3339(letter.timestamp_ms),
        safe(letter.code),
        safe(letter.product),
        str(len(letter.value or b"")),
        "" if origin is None else f"{safe(origin.topic)} {origin.partition}:{origin.offset}",
        ", ".join(marks),
        detail if len(detail) <= DETAIL_WIDTH else detail[: DETAIL_WIDTH - 1] + "…",
    )


def lines(letter: "Letter") -> Iterator[str]:
    """Headers, key and value for a person."""
    for name, value in letter.headers:
        yield f"{safe(name)}: {_for_eyes(value)}"
    yield f"key: {_for_eyes(letter.key)}"
    yield f"value: {_for_eyes(letter.value)}"


def _for_eyes(raw: bytes | None) -> str:
    return "none" if raw is None else safe(raw.decode("utf-8", "backslashreplace"))


def shown_value(letter: "Letter") -> dict[str, object]:
    """Headers, key and value for JSON: bytes that are no text as base64."""
    return {
        "headers": [[name, _text_or_base64(value)] for name, value in letter.headers],
        "key": _text_or_base64(letter.key),
        "value": _text_or_base64(letter.value),
    }


def _text_or_base64(raw: bytes | None) -> object:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def _rfc3339(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms / 1_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
