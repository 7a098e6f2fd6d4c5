"""`mmcat cache rebuild`: fills another generation of the view's keys from the topic, and switches readers and writers.

Keys of the first generation begin with `<prefix>`, of the others with `<prefix>:gen<N>`; the key `<prefix>:current`
names the one in use. Each generation has its positions, so the live writer, which looks at the pointer whenever it
moves them, goes on from where the rebuild left off and loses nothing; what it still wrote to the old keys is in the
topic behind the new positions. The old keys stay for a while, for readers that know them, and are then removed slowly.
"""

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from consumer.errors import ViewError
from consumer.metrics import Metrics
from consumer.repair import Outranked
from consumer.settings import Settings
from consumer.view import Positions, View, ViewAwayError
from consumer.view_keys import current_key, generation_of
from consumer.view_reading import PinnedTopic, Progress
from consumer.view_topic import ViewTopic, read_record

log = structlog.get_logger("mmcat.view")

LOCK_MS: Final = 120_000  # how long another rebuild must wait after one that was killed
SHORT_PASS_S: Final = 1.0  # what came while reading took no longer to read: the writer has as little to catch up with
PASSES: Final = 5


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    Args:
        generation: first part of the keys in use now.
        records: that were read.
        unreadable: of them, that say nothing of a product.
        removed: keys of other generations.
    """

    generation: str
    records: int
    unreadable: int
    removed: int
    seconds: float


class Rebuild:
    """One rebuild: constructed, then `run` once.

    Args:
        grace_s: how long the old keys stay after the switch: readers may know the pointer of that long ago.
        remove_per_s: old keys removed a second, about.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(self, settings: Settings, progress: Progress, *, grace_s: float, remove_per_s: float) -> None:
        self._settings, self._progress = settings, progress
        self._grace_s, self._remove_per_s = grace_s, remove_per_s
        self._prefix, self._topic = settings.view.prefix, settings.topics.output
        self._view = View.from_settings(settings.view)
        self._token = uuid.uuid4().hex
        self._records = self._unreadable = 0
        self._outranked = Outranked()

    def run(self) -> Rebuilt:
        """Fill, switch, remove; blocks until done.

        Raises:
            ViewError: another rebuild is at work, or the view cannot be used.
            ViewAwayError: the view went away, or is full. Before the switch nothing has changed for anybody.
            ConfigError: the topic cannot be read to its end.
            KafkaException: the broker is away.
        """
        began = time.monotonic()
        self._view.connect()
        lock = f"{self._prefix}:rebuilding"
        (taken,) = self._view.ask([("SET", lock, self._token, "NX", "PX", LOCK_MS)])
        if taken is None:
            raise ViewError(f"another rebuild of this view is at work, or was killed less than {LOCK_MS // 1000} s ago")
        try:
            generation = self._fill_and_switch()
            self._wait()
            removed = self._remove(lambda found: found != generation)
        finally:
            with suppress(ViewAwayError, ViewError):
                self._hold_lock()  # it may be another rebuild's by now
                self._view.ask([("DEL", lock)])
            self._view.close()
        return Rebuilt(generation, self._records, self._unreadable, removed, time.monotonic() - began)

    def _fill_and_switch(self) -> str:
        topic_id, partitions = ViewTopic(self._settings.kafka, self._topic, Metrics()).identity()
        (number,) = self._view.ask([("INCR", f"{self._prefix}:generations")])
        new = View.from_settings(self._settings.view, generation=f"{self._prefix}:gen{number}")
        try:
            new.connect()
            ends = self._fill(new)
            settled = {partition: self._outranked.settled(partition, end) for partition, end in ends.items()}
            new.begin_positions(self._topic, Positions(topic_id, partitions, settled))
            self._hold_lock()
            self._view.ask([("SET", current_key(self._prefix), new.generation)])
        except BaseException:  # Ctrl-C too: nobody will ever use what was half filled
            with suppress(ViewAwayError, ViewError):
                self._view.connect()
                self._remove(lambda found: found == new.generation != self._view.generation)
            raise
        finally:
            new.close()
        log.info("view_switched", generation=new.generation, positions=settled)
        return new.generation

    def _fill(self, new: View) -> dict[int, int]:
        """Read until what came meanwhile is little; returns where each partition was left."""
        ends: dict[int, int] = {}
        with PinnedTopic(self._settings) as topic:
            for _ in range(PASSES):
                spans, began = topic.spans(ends), time.monotonic()
                self._progress.begin("reading the topic", sum(span.at_most for span in spans))
                for batch in topic.batches(spans):
                    records = [read_record(message) for message in batch]
                    readable = [record for record in records if record is not None]
                    for record, applied in zip(readable, new.apply(readable), strict=True):
                        self._outranked.took(record, applied, end=record.offset + 1)
                    self._records += len(records)
                    self._unreadable += len(records) - len(readable)
                    self._progress.advance(len(records))
                    self._hold_lock()
                ends = {span.partition: span.end for span in spans}
                if time.monotonic() - began < SHORT_PASS_S:
                    break
        return ends

    def _hold_lock(self) -> None:
        (held, _) = self._view.ask(
            [("GET", f"{self._prefix}:rebuilding"), ("PEXPIRE", f"{self._prefix}:rebuilding", LOCK_MS)]
        )
        if held != self._token.encode():
            raise ViewError("the view was emptied during the rebuild, or another rebuild took over: start it again")

    def _remove(self, doomed: Callable[[str], bool]) -> int:
        """Remove the keys of the generations that are `doomed`, slowly; returns how many."""
        (keys,) = self._view.ask([("DBSIZE",)])
        self._progress.begin("removing old keys", keys)
        removed = 0
        for found in self._view.scan(f"{self._prefix}:"):
            named = [(key, generation_of(self._prefix, key.decode(errors="replace"))) for key in found]
            old = [key for key, generation in named if generation is not None and doomed(generation)]
            at_once = max(1, int(self._remove_per_s))  # a second's worth: the lock must not run out between two looks
            for start in range(0, len(old), at_once):
                part = old[start : start + at_once]
                self._hold_lock()
                self._view.ask([("UNLINK", *part)])
                removed += len(part)
                self._progress.advance(len(part))
                time.sleep(len(part) / self._remove_per_s)  # the rate: the server has readers to serve
        return removed

    def _wait(self) -> None:
        until = time.monotonic() + self._grace_s
        self._progress.begin("waiting for readers of the old keys, s", round(self._grace_s))
        while (left_s := until - time.monotonic()) > 0:
            time.sleep(min(1.0, left_s))  # readers of the old keys tell nobody when they are done
            self._hold_lock()
            self._progress.advance()
