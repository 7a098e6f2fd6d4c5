"""Watches a trial from outside, all along: what was committed while the outputs stood so far, what processes hold.

A thread beside the trial. The oracle holds its snapshots against the records afterwards; a broker that is away just
gives no snapshot.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.chaos.case import Snapshot, Usage
from tests.support.broker import TopicNames, reader

EACH_S: Final = 0.15
ASK_S: Final = 5.0
# What is committed may stand behind the open transaction of a member that was killed: there, and not to be read yet.
ENDS: Final = {"isolation.level": "read_uncommitted"}


class Watch:
    """Takes snapshots from `start` to `stop`.

    Args:
        pids: the processes under trial, whichever run at the moment.
    """

    def __init__(
        self, bootstrap: str, topics: TopicNames, group: str, partitions: int, pids: Callable[[], Iterable[int]]
    ) -> None:
        self._bootstrap, self._group, self._pids = bootstrap, group, pids
        self._inputs = [TopicPartition(topics.input, one) for one in range(partitions)]
        self._outputs = [(topic, one) for topic in (topics.output, topics.dead_letter) for one in range(partitions)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch-trial", daemon=True)
        self.snapshots: list[Snapshot] = []
        self.usage: list[Usage] = []
        self.error: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more; raises what ended the thread before its time."""
        self._stopping.set()
        self._thread.join(4 * ASK_S)
        if self.error is not None:
            raise self.error

    def committed(self) -> int:
        """Offsets committed by the last snapshot, all partitions together."""
        return sum(self.snapshots[-1].committed.values()) if self.snapshots else 0

    def has_committed(self, wanted: Mapping[int, int]) -> bool:
        """Whether the last snapshot has just these offsets."""
        return bool(self.snapshots) and dict(self.snapshots[-1].committed) == dict(wanted)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                # A client that only asks for commits does not look for a coordinator that moved: a new one does.
                with suppress(KafkaException), reader(self._bootstrap, **ENDS, **{"group.id": self._group}) as consumer:
                    while not self._stopping.wait(EACH_S):
                        self._look_at_processes()
                        self._ask(consumer)
        except BaseException as error:  # told by `stop`
            self.error = error

    def _ask(self, consumer: Consumer) -> None:
        answers = consumer.committed(self._inputs, timeout=ASK_S)
        ends = {
            place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=ASK_S)[1] for place in self._outputs
        }
        if any(one.error is not None for one in answers):
            return
        known = {one.partition: one.offset for one in answers if one.offset >= 0}
        there = sum(consumer.get_watermark_offsets(one, timeout=ASK_S)[1] for one in self._inputs)
        self.snapshots.append(Snapshot(time.time(), known, ends, there - sum(known.values())))

    def _look_at_processes(self) -> None:
        for pid in self._pids():
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                with process.oneshot():
                    held = process.memory_info().rss, process.num_threads(), process.num_fds()
                self.usage.append(Usage(pid, time.time(), *held))
