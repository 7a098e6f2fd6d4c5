"""At least once: commits the offsets of what is finished, by the consumer itself.

Runs in the poll thread. Between assignment.py, which says when, and offsets.py, which says what. Exactly once it is
transactions.py that stands here.
"""

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

import structlog

from consumer.kafka import Consumer, KafkaError, KafkaException, TopicPartition
from consumer.offsets import Lease, Offsets, Partition

log = structlog.get_logger("mmcat.commits")


Ends = Callable[[], dict[Partition, int]]
"""Ends leases, and returns what is to be committed of them now or never."""


class Commits(Protocol):
    """How what is finished is committed; called from the poll thread."""

    def commit(self, wait_s: float) -> None:
        """Commit what has become finished since the last time; block for the broker's word, so long at most."""

    def give_up(self, end: Ends, wait_s: float) -> None:
        """End leases and commit their last, so that nothing finishes in between; block likewise."""

    def read_again_from(self, lease: Lease) -> int | None:
        """End a lease, and say where its partition is to be read again; None: where the group committed."""


class OffsetCommits:
    """Commits by the consumer.

    Args:
        consumer: its `on_commit` ends in `said`.
        offsets: of the partitions held.
        moved: told what was committed.
        closing: whether the consumer is being closed: then it lets no thread in but the one that does so.
    """

    def __init__(
        self,
        consumer: Consumer,
        offsets: Offsets,
        moved: Callable[[Partition, int], None],
        closing: Callable[[], bool],
    ) -> None:
        self._consumer, self._offsets, self._moved, self._closing = consumer, offsets, moved, closing

    def commit(self, wait_s: float) -> None:
        """Commit what has become finished."""
        self._commit(self._offsets.changed(), wait_s)

    def give_up(self, end: Ends, wait_s: float) -> None:
        """End leases and commit their last.

        While it calls back, the client lets no other thread in: to wait for one would only let the commit come late,
        after those of the next owner. Without a wait it leaves before we join again, over the same connection.
        """
        self._commit(end(), wait_s if self._closing() else 0.0)

    def read_again_from(self, lease: Lease) -> int | None:
        """From the gap: what is past it is worked again."""
        return lease.end()

    def said(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """The broker's word on a commit, or that there is none."""
        failed = [one for one in partitions if error is not None or one.error is not None]
        if failed:
            # During a rebalance the broker may refuse (ILLEGAL_GENERATION): the new owner replays. Else: next time.
            log.warning("commit_failed", detail=str(error or failed[0].error)[:200], partitions=len(failed))
            self._offsets.forget((one.topic, one.partition) for one in failed)
        for one in partitions:
            if one not in failed:
                self._moved((one.topic, one.partition), one.offset)

    def _commit(self, wanted: dict[Partition, int], wait_s: float) -> None:
        if not wanted:
            return
        asked = [TopicPartition(topic, partition, offset) for (topic, partition), offset in wanted.items()]
        if wait_s > 0:
            self.said(*self._word_on(asked, wait_s))
            return
        try:
            self._consumer.commit(offsets=asked, asynchronous=True)
        except KafkaException as error:
            self.said(error.args[0], asked)

    def _word_on(
        self, wanted: list[TopicPartition], wait_s: float
    ) -> tuple[KafkaError | None, Sequence[TopicPartition]]:
        """Commit, and wait. The client's own wait takes a minute with the brokers away, so a thread is left to it.

        While the consumer is closed this is such a thread already.
        """
        words: SimpleQueue[tuple[KafkaError | None, Sequence[TopicPartition]]] = SimpleQueue()

        def ask() -> None:
            try:
                words.put((None, self._consumer.commit(offsets=wanted, asynchronous=False) or ()))
            except KafkaException as error:
                words.put((error.args[0], wanted))
            except RuntimeError:  # closed meanwhile: nobody waits for the word any more
                words.put((KafkaError(KafkaError._STATE), wanted))

        if self._closing():
            ask()
        else:
            threading.Thread(target=ask, name="commit", daemon=True).start()
        try:
            return words.get(timeout=wait_s)
        except Empty:
            return KafkaError(KafkaError._TIMED_OUT), wanted
