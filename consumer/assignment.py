"""The partitions held now: where they start, what is paused, what is committed, and how they are given up.

Runs in the poll thread only (librdkafka calls it from within `consume`). Between the Kafka consumer and offsets.py.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

import structlog

from consumer.budget import Budget
from consumer.ending import Ending
from consumer.guard import Guard
from consumer.health import Health
from consumer.kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition, make_consumer
from consumer.metrics import Metrics
from consumer.offsets import Lease, Offsets, Partition
from consumer.records import Origin
from consumer.settings import Settings

log = structlog.get_logger("mmcat.assignment")

ASK_S: Final = 5.0  # for one question where the group committed: a service that is to end waits for the answer
ASK_AGAIN_S: Final = 0.5
REST_S: Final = 1.0  # before a refused record is tried again: no hot loop, and soon after the topic takes it


class Assignment:
    """Joins a group, and keeps what of its partitions was polled, finished and committed.

    Args:
        guard: says which partitions bring mostly dead letters.
        ending: bounds what is waited for; once the service is to end, nothing is asked again.
        on_error: told of what the client says outside of polls.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        health: Health,
        budget: Budget,
        guard: Guard,
        *,
        ending: Ending,
        on_error: Callable[[KafkaError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.consumer = self._consumer = make_consumer(
            settings.kafka,
            group_id=settings.kafka.group_id,
            extra={"on_commit": self._committed, "enable.partition.eof": True},
            on_error=on_error,
        )
        self._settings = settings
        self._metrics, self._health, self._budget, self._guard = metrics, health, budget, guard
        self.positions: dict[Partition, int] = {}
        """Next offset of each partition that nothing holds up, as the last `show_lag` saw it; -1: nothing was read."""
        self._ends: dict[Partition, int] = {}  # where the client came to the end, also with no record read
        self._ending, self._on_error, self._clock = ending, on_error, clock
        self._offsets = Offsets()
        self._stopped: set[Partition] = set()  # their committed offset is gone: a person decides
        self._resting: dict[Partition, float] = {}  # sought back; paused until then
        self._behind: dict[Partition, int] = {}  # sought back to here; nothing past it is committed yet
        self._paused = False
        self._leaving = False

    def subscribe(self) -> None:
        """Join the group; assignments come while polling."""
        self._consumer.subscribe(
            [self._settings.topics.input], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    def leave(self) -> None:
        """Give all partitions up and leave the group. Blocks as long as brokers are away: to be called in a thread."""
        self._leaving = True
        self._consumer.close()

    def started(self, origin: Origin) -> Lease | None:
        """A record was polled: note it under its partition's lease.

        None where the partition is not ours (any more), or where the record comes again after a rest.
        """
        partition = (origin.topic, origin.partition)
        lease = self._offsets.lease(partition)
        if lease is None or partition in self._resting:
            return None
        lease.start(origin.offset)
        if rest_s := self._guard.admit(partition, origin.offset):
            self.rest(partition, origin.offset + 1, rest_s)
        return lease

    def at_end(self, partition: Partition, offset: int) -> None:
        """The client has read a partition to its end, records or not."""
        self._ends[partition] = offset

    # pause ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def pause_or_resume(self) -> None:
        """Follow the budget, and let partitions go on that have rested."""
        full = self._budget.full()
        if full != self._paused:
            self._paused = full
            self._pause() if full else self._resume(self._held)
            self._metrics.paused.set(int(full))
        now = self._clock()
        rested = [one for one, due in self._resting.items() if due <= now]
        for one in rested:
            del self._resting[one]
        self._resume(rested)

    def pause_all(self) -> None:
        """Nothing more from any partition: the service ends."""
        self._paused = True
        self._pause()

    @property
    def _held(self) -> list[Partition]:
        return [lease.partition for lease in self._offsets.leases]

    def _pause(self) -> None:
        self._consumer.pause([TopicPartition(*one) for one in self._held])

    def _resume(self, partitions: Iterable[Partition]) -> None:
        """Those of them that nothing holds back."""
        self._consumer.resume([TopicPartition(*one) for one in partitions if self._free(one)])

    def _free(self, partition: Partition) -> bool:
        return not self._paused and partition not in self._stopped and partition not in self._resting

    def rest(self, partition: Partition, offset: int, seconds: float) -> None:
        """Pause a partition for so long, and then read on from `offset`."""
        self._resting[partition] = self._clock() + seconds
        self._ends.pop(partition, None)
        where = TopicPartition(*partition, offset)
        try:
            self._consumer.pause([where])
            self._consumer.seek(where)
        except KafkaException as error:
            self._restart(where, error)

    # commit ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def commit(self, wait_s: float = 0.0) -> None:
        """Commit what has become finished since the last time; block for the broker's word on it, so long at most."""
        self._commit(self._offsets.changed(), wait_s)

    def _commit(self, offsets: dict[Partition, int], wait_s: float = 0.0) -> None:
        if not offsets:
            return
        wanted = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        if wait_s > 0:
            self._committed(*self._word_on(wanted, wait_s))
            return
        try:
            self._consumer.commit(offsets=wanted, asynchronous=True)
        except KafkaException as error:
            self._committed(error.args[0], wanted)

    def _word_on(
        self, wanted: list[TopicPartition], wait_s: float
    ) -> tuple[KafkaError | None, Sequence[TopicPartition]]:
        """Commit, and wait. The client's own wait takes a minute with the brokers away, so a thread is left to it.

        While the consumer is closed it lets no other thread in; but then this is one that may be left behind already.
        """
        words: SimpleQueue[tuple[KafkaError | None, Sequence[TopicPartition]]] = SimpleQueue()

        def ask() -> None:
            try:
                words.put((None, self._consumer.commit(offsets=wanted, asynchronous=False) or ()))
            except KafkaException as error:
                words.put((error.args[0], wanted))
            except RuntimeError:  # closed meanwhile: nobody waits for the word any more
                words.put((KafkaError(KafkaError._STATE), wanted))

        if self._leaving:
            ask()
        else:
            threading.Thread(target=ask, name="commit", daemon=True).start()
        try:
            return words.get(timeout=wait_s)
        except Empty:
            return KafkaError(KafkaError._TIMED_OUT), wanted

    def _committed(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """The broker's word on a commit, or that there is none."""
        failed = [one for one in partitions if error is not None or one.error is not None]
        if failed:
            # During a rebalance the broker may refuse (ILLEGAL_GENERATION): the new owner replays. Else: next time.
            log.warning("commit_failed", detail=str(error or failed[0].error)[:200], partitions=len(failed))
            self._offsets.forget((one.topic, one.partition) for one in failed)
        for one in partitions:
            if one not in failed and one.offset > self._behind.get((one.topic, one.partition), one.offset):
                del self._behind[one.topic, one.partition]
                self._show_held_up()

    # failure ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def seek_back(self, lease: Lease) -> None:
        """A record of this lease was not taken by the broker: drop its work, read its partition again from the gap.

        After a rest: what is refused now is most likely refused again at once.
        """
        partition = lease.partition
        if self._offsets.lease(partition) is not lease or (offset := lease.end()) is None:
            return  # already sought back, or no longer ours
        self._offsets.begin(partition)
        self._behind[partition] = offset
        self._show_held_up()
        log.warning("seek_back", partition=partition[1], offset=offset, rest_s=REST_S)
        self.rest(partition, offset, REST_S)

    def _restart(self, where: TopicPartition, error: KafkaException) -> None:
        """A seek was refused: assign the partition anew from there, which always starts its reader again."""
        log.warning("seek_refused", partition=where.partition, detail=str(error.args[0])[:200])
        self._consumer.incremental_unassign([where])
        self._consumer.incremental_assign([where])
        self._consumer.pause([where])

    def out_of_range(self, partition: Partition, error: KafkaError) -> None:
        """The committed offset is gone (retention, or a topic made anew): alarm, stop this partition."""
        self._stopped.add(partition)
        self._consumer.pause([TopicPartition(*partition)])
        self._metrics.out_of_range.labels(partition[1]).inc()
        self._show_held_up()
        log.error("offset_out_of_range", topic=partition[0], partition=partition[1], detail=error.str())

    def _show_held_up(self) -> None:
        """For /readyz: which partitions do not go on, and why."""
        stopped = ", ".join(str(number) for _, number in sorted(self._stopped))
        behind = ", ".join(f"{number} (from offset {offset})" for (_, number), offset in sorted(self._behind.items()))
        refused = f"partitions {behind}: the broker did not take a record; tried again each second"
        gone = f"partitions {stopped}: the committed offset is out of range; set it by hand"
        self._health.set("deliveries", refused if behind else None)
        self._health.set("offsets", gone if stopped else None)

    # rebalance ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Start each where the group committed, or at its beginning; pause flags are set anew.

        A service that is to end starts none: under no lease, what comes of them is dropped.
        """
        self.positions = {}
        for one in self._committed_of(partitions):
            if one.offset < 0:
                one.offset = OFFSET_BEGINNING
            self._offsets.begin((one.topic, one.partition))
            consumer.incremental_assign([one])
        self._pause() if self._paused else self._resume(self._held)
        self._health.set("assignment", None)
        held = sorted(number for _, number in self._held)
        log.info("assigned", partitions=[one.partition for one in partitions], held=held)

    def _committed_of(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Where the group committed; asks until that is known of each, for without it none may be started anywhere."""
        while not self._ending.told:
            try:
                answers = self._consumer.committed(partitions, timeout=ASK_S)
            except KafkaException as error:
                problem = error.args[0]
            else:  # an answer may hold an error for one partition; its offset then looks as if nothing was committed
                problem = next((one.error for one in answers if one.error is not None), None)
                if problem is None:
                    return answers
            log.warning("committed_unknown", detail=str(problem)[:200])
            self._health.set("assignment", "the broker does not say where the group committed")
            self._health.beat()
            self._on_error(problem)
            self._ending.wait(ASK_AGAIN_S)
        return []

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Finish what is in flight within a deadline, commit, give them up; the rest the next owner reads again."""
        self.positions = {}
        given = [(one.topic, one.partition) for one in partitions]
        leases = [lease for one in given if (lease := self._offsets.lease(one)) is not None]
        deadline = self._clock() + self._settings.revoke_s
        while any(lease.unfinished for lease in leases) and self._clock() < deadline and self._ending.drain_s:
            self._budget.wait_change(0.05)
        left = sum(lease.unfinished for lease in leases)
        self._commit(self._offsets.end(given), self._ending.commit_s)
        self._give_up(consumer, partitions)
        log.info("revoked", partitions=[one.partition for one in partitions], unfinished=left)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Somebody else has them already: nothing may be committed."""
        self._offsets.end((one.topic, one.partition) for one in partitions)
        self._give_up(consumer, partitions)
        log.warning("lost", partitions=[one.partition for one in partitions])

    def _give_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            partition = (one.topic, one.partition)
            self._stopped.discard(partition)
            self._resting.pop(partition, None)
            self._behind.pop(partition, None)
            self._ends.pop(partition, None)
            self._guard.forget(partition)
            with suppress(KeyError):  # no lag was shown yet
                self._metrics.lag.remove(one.topic, str(one.partition), "live")
        self._show_held_up()
        consumer.incremental_unassign(partitions)

    # lag ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def show_lag(self) -> None:
        """From what the client knows without asking; absent where the broker does not tell."""
        positions = {}
        for one in self._consumer.position([TopicPartition(*held) for held in self._held]):
            partition = (one.topic, one.partition)
            if self._free(partition):
                positions[partition] = max(one.offset, self._ends.get(partition, -1), -1)
            try:
                _, end = self._consumer.get_watermark_offsets(one, cached=True)
            except KafkaException:
                continue
            if end > 0 and one.offset >= 0:
                lag = max(0, end - one.offset)
                self._metrics.lag.labels(one.topic, one.partition, "live").set(lag)
        self.positions = positions
