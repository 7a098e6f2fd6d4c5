"""Which order a deletion takes that says no version where the version decides: the one that is held of its product.

The view lags behind the topic, and what this process wrote before, or another one to which the partition belonged, may
not be in it yet. So it is asked where the output topic ends now, and what is held once the view has been written up to
there. What was handed to the producer and is not acknowledged, the pipeline knows itself (ordering.py).

In a thread of its own, beside the pipeline: events of other products wait for nothing of this. See
docs/decisions/0004-view.md.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from queue import Empty, SimpleQueue
from typing import Final

import structlog

from consumer.errors import ViewError
from consumer.kafka import AdminClient, KafkaException, end_offsets, make_admin, topic_identity
from consumer.offsets import Partition
from consumer.records import Origin
from consumer.settings import Settings
from consumer.view import FROM_BEGINNING, Held, View, ViewAwayError

log = structlog.get_logger("mmcat.held_order")

LOOK_S: Final = 0.05  # between two looks how far the view is written
AGAIN_S: Final = 0.5  # before a view or a broker that is away is asked again
BROKER_S: Final = 5.0
LEAVE_S: Final = 1.0  # a thread that hangs on a broker that is away dies with the process


class Unknown(Enum):
    """Why there is no order."""

    LATER = "what is held comes from a later event: the deletion is outranked"
    AWAY = "the view did not say in time which order the product has"
    ABANDONED = "nobody waits any more"


Then = Callable[[int | Unknown], None]


@dataclass(slots=True, eq=False)
class _Asked:
    """A deletion that waits; `ends` is where each partition of the output topic ended when it was asked."""

    product_id: str
    origin: Origin
    deadline: float
    then: Then
    ends: Mapping[Partition, int] | None = None


class HeldOrder:
    """Asks the view, once it is far enough. Constructed, `start`ed, `stop`ped once.

    Args:
        settings: `kafka`, `topics.output` and `view` are used.
        on_death: gets what ended the thread, if anything does.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        on_death: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view, self._topic = View.from_settings(settings.view), settings.topics.output
        self._kafka = settings.kafka
        self._on_death, self._clock = on_death, clock
        self._connected = False
        self._queue: SimpleQueue[_Asked | None] = SimpleQueue()
        self._waiting: list[_Asked] = []
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="held-order", daemon=True)

    def start(self) -> None:
        """Start the thread; view and broker are asked with the first deletion."""
        self._thread.start()

    def ask(self, product_id: str, origin: Origin, within_s: float, then: Then) -> None:
        """Have `then` called in the thread of this object, with the order or why there is none. Does not block.

        Args:
            origin: of the deletion. Every earlier event of the product is acknowledged, or the caller knows of it.
            within_s: how long to wait for the view at most; it is asked once in any case. `inf`: without end.
        """
        self._queue.put(_Asked(product_id, origin, self._clock() + within_s, then))

    @property
    def waiting(self) -> bool:
        """Whether deletions wait without end, because the view is away or far behind."""
        return any(one.deadline == inf for one in self._waiting)

    def abandon(self) -> None:
        """Wait no longer: whoever asked, or asks from here on, is told so."""
        self._abandoned.set()

    def stop(self) -> None:
        """End the thread; those who still wait for an answer get none."""
        self.abandon()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(LEAVE_S)

    def _run(self) -> None:
        pause_s = 0.0
        try:
            admin = make_admin(self._kafka)
            while self._gather(pause_s):
                pause_s = self._turn(admin)
        except BaseException as error:  # deletions would be held for ever: tell, whatever it was
            self._on_death(error)
        finally:
            self._view.close()

    def _gather(self, pause_s: float) -> bool:
        """Take what was asked meanwhile, after a pause where some wait already; returns False at the end."""
        try:
            asked = self._queue.get(timeout=pause_s if self._waiting else None)
            while asked is not None:
                self._waiting.append(asked)
                asked = self._queue.get_nowait()
        except Empty:
            return True
        return False

    def _turn(self, admin: AdminClient) -> float:
        """Tell those whose time has come; returns how long to leave view and broker alone."""
        pause_s = LOOK_S
        if not self._abandoned.is_set():
            try:
                self._tell(self._look(admin))
            except (ViewAwayError, ViewError, KafkaException, TimeoutError) as error:
                log.warning("waits_for_the_view", error=str(error)[:200])
                self._connected, pause_s = False, AGAIN_S
        now = self._clock()
        late = Unknown.ABANDONED if self._abandoned.is_set() else Unknown.AWAY
        self._tell({one: late for one in self._waiting if late is Unknown.ABANDONED or one.deadline <= now})
        return pause_s

    def _tell(self, answers: "Mapping[_Asked, int | Unknown]") -> None:
        self._waiting = [one for one in self._waiting if one not in answers]
        for asked, answer in answers.items():
            asked.then(answer)

    def _look(self, admin: AdminClient) -> "dict[_Asked, int | Unknown]":
        """The answers there are by now.

        Raises:
            ViewAwayError, ViewError, KafkaException, TimeoutError: view or broker do not say.
        """
        if not self._connected:
            self._view.connect()
            self._connected = True
        topic_id, partitions = topic_identity(admin, self._topic, BROKER_S)
        if any(one.ends is None for one in self._waiting):
            # With what open transactions hold: some of it may be committed, behind another's that is open.
            ends = end_offsets(admin, [(self._topic, one) for one in range(partitions)], BROKER_S)
            if len(ends) < partitions:
                raise TimeoutError(f"the broker does not say where {self._topic} ends")
            for one in self._waiting:
                one.ends = one.ends or ends
        written = self._view.positions(self._topic)
        if written is None or (written.topic_id, written.partitions) != (topic_id, partitions):
            raise ViewAwayError("the view is not written from the topic as it is now")
        far = [one for one in self._waiting if _reached(written.next_offsets, one.ends or {})]
        held = self._view.held([one.product_id for one in far])
        return {asked: order_held(one, asked.origin) for asked, one in zip(far, held, strict=True)}


def order_held(held: Held | None, deletion: Origin) -> int | Unknown:
    """The order of a deletion, given what the view holds. Pure; 0 where nothing is known: there is nothing to delete.

    What comes from a later record of the same partition is newer: then the deletion is worked again, after a crash, by
    a replay or by hand. A record of another partition tells nothing of before and after.
    """
    if held is None:
        return 0
    place = dict(held.headers)
    same = all(place.get(name) == value for name, value in deletion.headers()[:2])
    offset = place.get("mmcat-origin-offset", b"")
    return Unknown.LATER if same and offset.isdigit() and int(offset) > deletion.offset else held.rank.order


def _reached(written: Mapping[int, int], ends: Mapping[Partition, int]) -> bool:
    """Whether the view holds all that was in the topic at these ends."""
    return all(written.get(number, FROM_BEGINNING) >= end for (_, number), end in ends.items())
