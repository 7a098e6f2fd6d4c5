"""Makes the topic's last word the right one: where a record ranked below what the view holds stands last, the winner is
published again behind it.

`Outranked` (pure) remembers which products that is about, until the winner was seen later in the topic or published.
A writer that reads from the beginning meets old records whose repair it has not read yet: so nothing is repaired before
what was in the partition when the old record was read has been read too. `Repairer` publishes. Both belong to
view_writer.py, which moves a position past such a record only when the broker has acknowledged the winner.

A repair has the rank of what it repeats, so that no writer repairs a repair; ranks only rise from one to the next, so
that writers whose views differ end as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from consumer.kafka import KafkaError, Message, Producer, make_producer
from consumer.settings import Settings
from consumer.view import RANK_HEADER, REPAIR_HEADER, Applied, Ranked, View

log = structlog.get_logger("mmcat.view")

# More than a live topic ever has at once; a reader that finds more publishes without waiting for what comes later:
# some winners are then repeated needlessly, and memory stays bounded.
LIMIT: Final = 10_000
PUBLISH_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Stale:
    """A product whose last word in the topic is the wrong one, as far as was read.

    Args:
        offset: of the first such record; no position may pass it.
        end: what the partition held when it was read; the winner may stand below.
    """

    product_id: str
    partition: int
    offset: int
    end: int


class Outranked:
    """Of each partition read, the products with a stale last word. Pure, single-threaded."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._stale: dict[int, dict[str, Stale]] = {}  # oldest first: offsets rise while a partition is read

    def __len__(self) -> int:
        return sum(map(len, self._stale.values()))

    def took(self, record: Ranked, applied: Applied, end: int) -> None:
        """A record was read and applied; `end` is what its partition holds by now, as far as is known."""
        if applied is Applied.STALE:
            stale = Stale(record.product_id, record.partition, record.offset, end)
            self._stale.setdefault(record.partition, {}).setdefault(record.product_id, stale)
        else:  # it outranks all before it, or what does stands behind it
            self.settle(record.product_id, record.partition)

    def settle(self, product_id: str, partition: int) -> None:
        """The winner stands behind all that was read of the product."""
        self._stale.get(partition, {}).pop(product_id, None)

    def settled(self, partition: int, position: int) -> int:
        """How far the position of a partition may move that was read up to `position`."""
        first = next(iter(self._stale.get(partition, {}).values()), None)
        return position if first is None else min(first.offset, position)

    def due(self, read: Mapping[int, int], ends: Mapping[int, int]) -> list[Stale]:
        """Those whose winner was not found in what the partition held.

        Args:
            read: partition to the first offset not read.
            ends: partition to where the broker said that nothing more is there.
        """
        everything = len(self) >= self._limit
        return [
            one
            for partition, stale in self._stale.items()
            for one in stale.values()
            if everything or read[partition] >= one.end or ends.get(partition, -1) >= read[partition]
        ]

    def clear(self) -> None:
        """Forget all: it is read again."""
        self._stale.clear()


class Repairer:
    """Publishes winners again, with a producer of its own that is made when it is needed first."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._topic = settings, settings.topics.output
        self._producer: Producer | None = None

    def publish(self, view: View, stale: Sequence[Stale]) -> int:
        """Publish what the view holds of each, behind the stale record; blocks for `PUBLISH_S` at most.

        Returns:
            How many were published: none for what the view does not hold any more.

        Raises:
            ViewAwayError: the view does not answer.
            TimeoutError: the broker did not acknowledge all of them; do not move past any.
            KafkaException: it refuses.
        """
        missing: list[str] = []
        published = 0

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                missing.append(error.str())

        held = view.held([one.product_id for one in stale])
        producer = self._producer or make_producer(self._settings.kafka, extra=self._bounds())
        self._producer = None  # discarded where anything goes wrong: what it still holds must not come late
        for one, winner in zip(stale, held, strict=True):
            if winner is None:
                continue  # a deletion whose marker expired meanwhile: nothing outranks the record any more
            rank = (RANK_HEADER, winner.rank.format().encode())
            headers = [rank, *winner.headers, (REPAIR_HEADER, b"%d" % one.offset)]
            # Into the partition of the record that it outranks, where its key belongs: compaction compares there.
            producer.produce(
                self._topic, winner.result, one.product_id, one.partition, on_delivery=delivered, headers=[*headers]
            )
            producer.poll(0)
            published += 1
        unsent = producer.flush(PUBLISH_S)
        if unsent or missing:
            producer.purge()
            why = missing[0] if missing else "no answer"
            raise TimeoutError(f"the broker did not take {unsent + len(missing)} repairs of {self._topic}: {why}")
        self._producer = producer
        log.info("view_repaired", topic=self._topic, products=published)
        return published

    def _bounds(self) -> dict[str, int]:
        # As large as the pipeline's own records may be; and nothing is sent after we gave up on it.
        return {
            "message.max.bytes": self._settings.limits.dead_letter_bytes,
            "delivery.timeout.ms": int(PUBLISH_S * 1000),
        }
