"""Where the outcomes of a replay go when not into the live topics: into a shadow topic, or to a comparison.

A plain replay sends them to `delivery`, like the live service. After the pipeline.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from consumer.delivery import Delivery
from consumer.outcomes import Done, Outcomes
from consumer.records import Outgoing
from consumer.view_guard import Held, ViewGuard
from consumer.work import Work

Compare = Callable[[Outgoing, Held | None], None]
"""Told of a record that would be written and of what the view holds of its product; from several threads, in turn."""


class Sink(Outcomes[Work], Protocol):
    """Takes outcomes; `Delivery` is one."""

    def start(self) -> None:
        """Before the first."""

    def stop(self) -> None:
        """After the last."""


class Shadow:
    """Sends what belongs into the shadow topic, and leaves reviewers and dead letters in peace.

    Args:
        delivery: to the broker.
        topic: the shadow topic.
    """

    def __init__(self, delivery: Delivery[Work], topic: str) -> None:
        self._delivery, self._topic = delivery, topic
        self.start, self.stop = delivery.start, delivery.stop

    def send(self, works: Sequence[Work], on_done: Done[Work]) -> None:
        """Send the records of the topic, if there are any."""
        for work in works:
            work.records = [record for record in work.records if record.topic == self._topic]
        self._delivery.send(works, on_done)


class Comparing:
    """Sends nothing: has each record of the output topic compared with what the view holds.

    Args:
        topic: of the answers.
        guard: asks the view, and waits while it is away.
        abandoned: set when nobody waits any more.
        compare: told of the pair.
    """

    def __init__(self, topic: str, guard: ViewGuard, abandoned: threading.Event, compare: Compare) -> None:
        self._topic, self._guard, self._abandoned, self._compare = topic, guard, abandoned, compare
        self._lock = threading.Lock()

    def start(self) -> None:
        """Nothing to open."""

    def send(self, works: Sequence[Work], on_done: Done[Work]) -> None:
        """Compare; a dead letter or a copy for review has nothing to be compared with."""
        for record in (record for work in works for record in work.records):
            if record.topic == self._topic:
                held = self._guard.held([(record.key or b"").decode()], self._abandoned)
                if held is not None:
                    with self._lock:
                        self._compare(record, held[0])
        on_done(works, True)

    def stop(self) -> None:
        """Nothing to close."""
