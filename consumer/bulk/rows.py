"""A row of the input table as the event that it would have been in the input topic. Pure; never raises for a row.

The row is written as an event's JSON and read by `events.parse`, so a table obeys the very rules of the stream: a bad
row gets the code that its dead letter would have. After job.py, which knows where rows lie; before prepare.py.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import PurePath
from typing import Any, Final

from pydantic_core import to_json

from consumer.events import MAX_VERSION, Deletion, Event, Refusal, parse
from consumer.order import OrderBy
from consumer.records import Incoming, Origin

TEXTS: Final = ("title", "brand", "maker", "model", "image_url", "registered_at")
READ: Final = ("product_id", *TEXTS, "image", "version", "timestamp")
"""Columns that mean something; the title may stand in another one. The rest is not read."""
ORDER_COLUMN: Final[Mapping[OrderBy, str]] = {"timestamp": "timestamp", "version": "version"}
"""What says how new a row is, by the setting `order_by`."""
BAD_ORDER: Final = "row.bad_order"
"""The code of a row whose timestamp or version is missing, or none: it would have no rank, or a wrong one."""
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Args:
        incoming: the record it stands for; the origin is the table, partition 0, offset the row's number.
        event: what it says; None for a bad row.
        order: for its rank; 0 in a table that has no such column.
        image: the photo itself, or the name of its file; "" where the row names none.
        error, detail: why it is bad.
    """

    incoming: Incoming
    product_id: str
    event: Event | None
    order: int
    image: bytes | str
    error: str = ""
    detail: str = ""


def read_row(
    cells: Mapping[str, Any], number: int, *, title: str, order_by: OrderBy | None, origin: str, max_bytes: int
) -> Row:
    """Read one row.

    Args:
        cells: by column; None where empty.
        number: from 0, over the whole table.
        title: the column of the title.
        order_by: what orders rows; None: the table has no column for it.
        origin: stands for the topic in `origin`.
        max_bytes: longest event, as in the stream.
    """
    image = cells.get("image") or ""
    image = image if isinstance(image, bytes) else str(image)
    product_id = _text(cells.get("product_id")) or ""
    value = to_json(_event(cells, product_id, cells.get(title), image))
    order = _order(cells, order_by)
    incoming = Incoming(Origin(origin, 0, number, order or 0), product_id.encode(), value, [])
    parsed = parse(incoming.key, value, max_bytes=max_bytes)
    if isinstance(parsed, Refusal):
        return Row(incoming, product_id, None, 0, "", parsed.code, parsed.detail)
    assert not isinstance(parsed, Deletion)  # noqa: S101 (only a null value is one)
    if order is None:
        detail = f"{ORDER_COLUMN[order_by or 'timestamp']} is empty, negative, no number, or more than a day ahead"
        return Row(incoming, product_id, None, 0, "", BAD_ORDER, detail)
    return Row(incoming, product_id, parsed, order, image)


def missing(columns: Collection[str], title: str) -> list[str]:
    """Columns that a table of listings must have and this one has not."""
    return [name for name in ("product_id", title) if name not in columns]


def _event(cells: Mapping[str, Any], product_id: str, title: Any, image: bytes | str) -> dict[str, Any]:
    texts = {name: _text(cells.get(name)) for name in TEXTS} | {"title": _text(title) or ""}
    model = texts.pop("model")
    # A listing may have a photo alone, beside the table: the event then names that, and what the model sees is hashed.
    texts["image_url"] = texts["image_url"] or (_beside(image) if image else None)
    found: dict[str, Any] = {"product_id": product_id, **texts, "version": cells.get("version")}
    if model:
        found["attributes"] = {"model": model}
    return {name: value for name, value in found.items() if value is not None}


def _beside(image: bytes | str) -> str:
    return "file:" + ("" if isinstance(image, bytes) else PurePath(image).name)


def _text(value: Any) -> str | None:
    """Of a cell of any type that can be written as text; times as RFC 3339, those without a zone as UTC."""
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return value if isinstance(value, str) else str(value)


def _order(cells: Mapping[str, Any], order_by: OrderBy | None) -> int | None:
    """None where it is no order: a timestamp in microseconds would outrank every event for ever."""
    if order_by is None:
        return 0
    value = cells.get(ORDER_COLUMN[order_by])
    if isinstance(value, datetime):
        value = int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000)
    if not isinstance(value, int) or isinstance(value, bool | date):
        return None
    most = MAX_VERSION if order_by == "version" else int(time.time() * 1000) + DAY_MS
    return value if 0 <= value <= most else None
