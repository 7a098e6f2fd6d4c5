"""The demo's two ends of the stream: events into the input topic, outcomes out of the output and dead-letter topics.

One loop does both. It keeps at most `window` listings unanswered, so that the figures mean what a shop would see under
full load: the rate is what the consumer manages, and the latency is not the length of a queue that we filled ourselves.
Before this: `demo_servers`, where the consumer is ready. After this: `demo_summary`.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmcat.cli.texts import CommandError

if TYPE_CHECKING:
    from consumer.settings import Settings

__all__ = ["Event", "Item", "Outcomes", "Pace", "plan", "stream"]

Read = tuple[str, bytes | None, bytes | None]  # topic, key, value

SILENCE_S = 90.0
"""No outcome for so long ends the demo: the first batch on a loaded machine took 20 s."""


@dataclass(frozen=True, slots=True)
class Item:
    """One listing that the demo sends.

    Args:
        photo: name under which the photo host has its photo, None without one.
        truth: ids of the true path.
    """

    product_id: str
    title: str
    photo: str | None
    truth: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One record for the input topic; `item` is None for a deletion and for a bad event."""

    key: bytes | None
    value: bytes | None
    item: Item | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast events are sent.

    Args:
        window: most events without an outcome.
        rate: events per second, 0 for as fast as outcomes come back.
    """

    window: int
    rate: float


@dataclass(slots=True)
class Outcomes:
    """What came back, by product id, and when.

    Args:
        results: result record of each product, as read from the output topic.
        sent_s, seen_s: monotonic times of sending an event and of reading its first result.
    """

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    tombstones: set[str] = field(default_factory=set)
    dead_letters: list[bytes] = field(default_factory=list)
    sent_s: dict[str, float] = field(default_factory=dict)
    seen_s: dict[str, float] = field(default_factory=dict)
    events: int = 0
    duplicates: int = 0

    @property
    def count(self) -> int:
        """Outcomes so far: one for each event."""
        return len(self.results) + len(self.tombstones) + len(self.dead_letters)

    @property
    def latencies_ms(self) -> list[float]:
        """From handing the event to the client until its result was read from the output topic, ascending.

        A reader sees a result after the broker acknowledged it: an upper bound of registered → acknowledged.
        """
        return sorted(1000 * (seen - self.sent_s[key]) for key, seen in self.seen_s.items())

    @property
    def seconds(self) -> float:
        """From the first event sent to the last result read."""
        return max(self.seen_s.values()) - min(self.sent_s.values()) if self.seen_s else 0.0


def plan(items: Sequence[Item], photo_base: str) -> list[Event]:
    """The events of a demo: every item but the last, the last registered and deleted, two bad events in between."""
    *stay, deleted = [_registered(item, photo_base) for item in items]
    middle = len(stay) // 2
    bad = [Event(b"broken-1", b'{"product_id": "broken-1", "title": '), Event(b"broken-2", b'{"title": 7}')]
    return [*stay[:middle], bad[0], deleted, *stay[middle:], bad[1], Event(deleted.key, None)]


def _registered(item: Item, photo_base: str) -> Event:
    value: dict[str, Any] = {"product_id": item.product_id, "title": item.title}
    if item.photo is not None:
        value["image_url"] = f"{photo_base}/{item.photo}"
    return Event(item.product_id.encode(), json.dumps(value, ensure_ascii=False).encode(), item)


def stream(
    settings: "Settings",
    events: Sequence[Event],
    pace: Pace,
    *,
    alive: Callable[[], None],
    on_result: Callable[[Item, dict[str, Any]], None],
) -> Outcomes:
    """Send events and read what becomes of them; blocks until each has its outcome.

    Args:
        settings: broker and topic names.
        alive: raises when the consumer is gone; called at least once a second.
        on_result: called with each result in the order of the output topic.

    Raises:
        CommandError: no outcome for `SILENCE_S`.
    """
    from consumer.kafka import make_producer

    outcomes = Outcomes()
    items = {item.product_id: item for event in events if (item := event.item) is not None}
    producer = make_producer(settings.kafka)
    due = _due(events, pace.rate)
    pending = next(due, None)
    moved_s = time.monotonic()
    with _reader(settings) as read:
        while outcomes.count < len(events):
            while (
                pending is not None
                and outcomes.events - outcomes.count < pace.window
                and pending[0] <= time.monotonic()
            ):
                _send(producer, settings.topics.input, pending[1], outcomes)
                pending = next(due, None)
            producer.poll(0)
            before = outcomes.count
            for topic, key, value in read():
                _take(outcomes, items, topic == settings.topics.dead_letter, key, value, on_result)
            if outcomes.count > before or outcomes.events == outcomes.count:
                moved_s = time.monotonic()
            alive()
            if time.monotonic() - moved_s > SILENCE_S:
                raise CommandError(f"{outcomes.events - outcomes.count} events had no outcome for {SILENCE_S:.0f} s")
    producer.flush(10)
    return outcomes


def _due(events: Sequence[Event], rate: float) -> Iterator[tuple[float, Event]]:
    """Each event with the monotonic time from which it may be sent."""
    start = time.monotonic()
    return ((start + (place / rate if rate else 0.0), event) for place, event in enumerate(events))


def _send(producer: Any, topic: str, event: Event, outcomes: Outcomes) -> None:
    if event.item is not None:
        outcomes.sent_s[event.item.product_id] = time.monotonic()
    producer.produce(topic, key=event.key, value=event.value)
    outcomes.events += 1


def _take(
    outcomes: Outcomes,
    items: dict[str, Item],
    dead: bool,
    key: bytes | None,
    value: bytes | None,
    on_result: Callable[[Item, dict[str, Any]], None],
) -> None:
    if dead:
        outcomes.dead_letters.append(value or b"")
        return
    product_id = (key or b"").decode()
    if value is None:
        outcomes.tombstones.add(product_id)
    elif product_id in outcomes.results:
        outcomes.duplicates += 1
    elif product_id in items:
        outcomes.results[product_id] = json.loads(value)
        outcomes.seen_s[product_id] = time.monotonic()
        on_result(items[product_id], outcomes.results[product_id])


@contextmanager
def _reader(settings: "Settings") -> Iterator[Callable[[], list[Read]]]:
    """Gives what is new in both topics at each call; assigned by hand, since joining a group takes 3 s."""
    from consumer.kafka import TopicPartition, make_consumer

    topics = (settings.topics.output, settings.topics.dead_letter)
    consumer = make_consumer(settings.kafka, group_id=f"mmcat-demo-{secrets.token_hex(4)}")

    def read() -> list[Read]:
        batch = consumer.consume(200, 0.02)
        return [(str(message.topic()), message.key(), message.value()) for message in batch if message.error() is None]

    with closing(consumer):
        described = consumer.list_topics(timeout=10).topics
        consumer.assign([TopicPartition(name, part, 0) for name in topics for part in described[name].partitions])
        yield read
