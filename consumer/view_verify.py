"""`mmcat cache verify`: compares the view with the topic up to where the topic ends now, and changes nothing.

The topic is read partition by partition, so that memory holds the products of one partition at a time (some 300 bytes
each), and 70 bytes more for each product of all, to find what the view holds and the topic does not. What was written
behind the pinned end meanwhile is known by its offset (`at` in the view) and left out.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from consumer.errors import ConfigError
from consumer.kafka import Message
from consumer.metrics import Metrics
from consumer.rank import Rank
from consumer.settings import Settings
from consumer.spans import Span
from consumer.view import Held, View
from consumer.view_keys import product_key
from consumer.view_reading import PinnedTopic, Progress
from consumer.view_topic import ViewTopic, read_record

CHUNK: Final = 500
ASK_AGAIN_S: Final = 0.2

KINDS: Final = {
    "missing": "the topic has it and the view does not",
    "older": "the view holds a lower rank than the topic",
    "higher": "the view holds a higher rank than the topic",
    "other": "the same rank, and another result",
    "unrepaired": "the last record of the topic is not the highest-ranked: compaction would keep it",
    "extra": "the view has a result and the topic knows nothing of the product",
}
"""How a product can differ."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One product that differs; ranks as text, "" where there is none."""

    product_id: str
    kind: str
    topic_rank: str
    view_rank: str


@dataclass(slots=True)
class Verified:
    """What was found.

    Args:
        generation: first part of the view's keys.
        ends: partition to the end that was compared up to.
        products: of the topic.
        counts: differences by kind.
        differences: the first of them.
        behind: partitions whose view was not at the end in time, by how many offsets.
    """

    generation: str
    ends: dict[int, int]
    products: int = 0
    unreadable: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    behind: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the view should hold of a product: the highest-ranked record, the last among equals.

    Args:
        digest: of the result; None for a deletion.
        last: whether it is the last record of the product.
    """

    rank: Rank
    offset: int
    digest: bytes | None
    written_ms: int
    last: bool


def difference(expected: Expected, held: Held | None, place: tuple[int, int], marker_since_ms: int) -> str | None:
    """How what is held differs from what is expected; None if it does not.

    Args:
        place: (partition, its pinned end): what the view took from behind it is newer than what is compared.
        marker_since_ms: deletions written before may have been forgotten.
    """
    partition, end = place
    if held is not None and held.at is not None and held.at[0] == partition and held.at[1] >= end:
        return None
    if held is None:
        forgotten = expected.digest is None and expected.written_ms < marker_since_ms
        return None if forgotten else "missing"
    if held.rank != expected.rank:
        return "older" if held.rank < expected.rank else "higher"
    if (None if held.result is None else _digest(held.result)) != expected.digest:
        return "other"
    return None if expected.last else "unrepaired"


class Verify:
    """One comparison: constructed, then `run` once.

    Args:
        limit: how many differing products are named; all are counted.
        wait_s: how long the view may take to reach the pinned end.
    """

    def __init__(self, settings: Settings, progress: Progress, *, limit: int, wait_s: float) -> None:
        self._settings, self._progress, self._limit = settings, progress, limit
        self._name = settings.topics.output
        self._view = View.from_settings(settings.view)
        self._seen: set[int] = set()
        self._wait_until = time.monotonic() + wait_s

    def run(self) -> Verified:
        """Compare; blocks until done.

        Raises:
            ViewError: the view was written from another topic, or cannot be used.
            ViewAwayError: it does not answer, or was rebuilt meanwhile.
            ConfigError: the topic cannot be read to its end, or the view was never written from it.
            KafkaException: the broker is away.
        """
        self._view.connect()
        try:
            with PinnedTopic(self._settings) as topic:
                kept = self._view.positions(self._name)
                if kept is None:
                    raise ConfigError(f"the view {self._view.generation} was never written from {self._name}")
                broker = ViewTopic(self._settings.kafka, self._name, Metrics())
                broker.refuse_other(kept, *broker.identity())
                spans = topic.spans()
                found = Verified(self._view.generation, {span.partition: span.end for span in spans})
                self._progress.begin("reading the topic", sum(span.at_most for span in spans))
                for span in spans:
                    self._compare(self._winners(topic, span, found), span, found)
            self._look_for_extra(found)
        finally:
            self._view.close()
        return found

    def _winners(self, topic: PinnedTopic, span: Span, found: Verified) -> dict[str, Expected]:
        winners: dict[str, Expected] = {}
        for batch in topic.batches([span]):
            for message in batch:
                self._take(message, winners, found)
            self._progress.advance(len(batch))
        return winners

    def _take(self, message: Message, winners: dict[str, Expected], found: Verified) -> None:
        record = read_record(message)
        if record is None:
            found.unreadable += 1
            return
        held = winners.get(record.product_id)
        if held is not None and record.rank < held.rank:
            held = Expected(held.rank, held.offset, held.digest, held.written_ms, last=False)
            winners[record.product_id] = held
            return
        digest = None if record.result is None else _digest(record.result)
        written_ms = message.timestamp()[1]
        winners[record.product_id] = Expected(record.rank, record.offset, digest, written_ms, last=True)

    def _compare(self, winners: dict[str, Expected], span: Span, found: Verified) -> None:
        found.products += len(winners)
        self._seen.update(map(_short, winners))
        needed = max((one.offset + 1 for one in winners.values()), default=0)
        if (missing := self._wait_for(span.partition, needed)) > 0:
            found.behind[span.partition] = missing
        since_ms = int((time.time() - self._settings.view.marker_life_s) * 1000)
        for products in _chunks(winners, CHUNK):
            for product_id, held in zip(products, self._view.held(products), strict=True):
                expected = winners[product_id]
                kind = difference(expected, held, (span.partition, span.end), since_ms)
                if kind is not None:
                    self._note(found, Difference(product_id, kind, expected.rank.format(), _rank(held)))

    def _wait_for(self, partition: int, needed: int) -> int:
        """Wait until the view is there; returns by how much it is not."""
        while True:
            kept = self._view.positions(self._name)
            missing = needed - (kept.next_offsets.get(partition, 0) if kept else 0)
            if missing <= 0 or time.monotonic() >= self._wait_until:
                return missing
            time.sleep(ASK_AGAIN_S)  # another process writes the view: its positions can only be asked for

    def _look_for_extra(self, found: Verified) -> None:
        """Whatever has a result and is not in the topic."""
        head = product_key(self._view.generation, "")[:-1]
        (total,) = self._view.ask([("DBSIZE",)])
        self._progress.begin("looking for what the topic does not have", total)
        for keys in self._view.scan(head):
            product_ids = {key.decode(errors="replace").removeprefix(head)[:-1] for key in keys}
            unknown = [one for one in product_ids if _short(one) not in self._seen]
            for product_id, held in zip(unknown, self._view.held(unknown), strict=True):
                newer = held and held.at and held.at[1] >= found.ends.get(held.at[0], 0)
                if held is not None and held.result is not None and not newer:
                    self._note(found, Difference(product_id, "extra", "", _rank(held)))
            self._progress.advance(len(keys))

    def _note(self, found: Verified, one: Difference) -> None:
        found.counts[one.kind] = found.counts.get(one.kind, 0) + 1
        if len(found.differences) < self._limit:
            found.differences.append(one)


def _rank(held: Held | None) -> str:
    return "" if held is None else held.rank.format()


def _digest(result: bytes) -> bytes:
    return hashlib.blake2b(result, digest_size=16).digest()


def _short(product_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(product_id.encode(), digest_size=8).digest(), "big")


def _chunks(items: dict[str, Expected], size: int) -> Iterator[Sequence[str]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
