"""What orders the events of a product: the time of the origin record, or the version (setting `order_by`). Pure.

One source per input topic, never mixed. Before rank.py, whose first part it is; after events.py.
"""

from typing import Final, Literal

from consumer.events import MAX_VERSION, Deletion, Event
from consumer.records import Incoming

OrderBy = Literal["timestamp", "version"]
VERSION: Final = "version"  # the header of a deletion
VERSION_DIGITS: Final = len(str(MAX_VERSION))


def takes_held_order(incoming: Incoming, parsed: Event | Deletion, order_by: OrderBy) -> bool:
    """Whether this is a deletion that says no version where the version decides: held_order.py finds its order."""
    if order_by == "timestamp" or isinstance(parsed, Event):
        return False
    return all(name != VERSION for name, _ in incoming.headers)


def order_of(incoming: Incoming, parsed: Event | Deletion, order_by: OrderBy) -> int | None:
    """Milliseconds since 1970 or the version; None where the version decides and the event has none."""
    if order_by == "timestamp":
        return max(0, incoming.origin.timestamp_ms)
    if isinstance(parsed, Event):
        return parsed.version
    for name, value in incoming.headers:
        # The length first: Python refuses to read an integer of thousands of digits.
        if name == VERSION and value.isdigit() and len(value) <= VERSION_DIGITS and int(value) <= MAX_VERSION:
            return int(value)
    return None
