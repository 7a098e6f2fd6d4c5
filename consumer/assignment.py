"""The partitions held now: where they start, what is paused, what is committed, and how they are given up.

Runs in the poll thread only (librdkafka calls it from within `consume`). Between the Kafka consumer and offsets.py.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from consumer.budget import Budget
from consumer.health import Health
from consumer.kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition, make_consumer
from consumer.metrics import Metrics
from consumer.offsets import Lease, Offsets, Partition
from consumer.records import Origin
from consumer.settings import Settings

log = structlog.get_logger("mmcat.assignment")

ASK_S = 10.0


class Assignment:
    """Joins a group, and keeps what of its partitions was polled, finished and committed.

    Args:
        on_error: told of what the client says outside of polls.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        health: Health,
        budget: Budget,
        *,
        on_error: Callable[[KafkaError], None],
    ) -> None:
        self.consumer = self._consumer = make_consumer(
            settings.kafka,
            group_id=settings.kafka.group_id,
            extra={"on_commit": self._committed},
            on_error=on_error,
        )
        self._settings = settings
        self._metrics, self._health, self._budget = metrics, health, budget
        self._offsets = Offsets()
        self._stopped: set[Partition] = set()  # their committed offset is gone: a person decides
        self._paused = False
        self._closing = False

    def subscribe(self) -> None:
        """Join the group; assignments come while polling."""
        self._consumer.subscribe(
            [self._settings.topics.input], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    def started(self, origin: Origin) -> Lease | None:
        """A record was polled: note it under its partition's lease; None where the partition is not ours (any more)."""
        lease = self._offsets.lease((origin.topic, origin.partition))
        if lease is not None:
            lease.start(origin.offset)
        return lease

    # pause ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def pause_or_resume(self) -> None:
        """Follow the budget."""
        full = self._budget.full()
        if full != self._paused:
            self._paused = full
            self._pause() if full else self._resume()
            self._metrics.paused.set(int(full))

    def pause_all(self) -> None:
        """Nothing more from any partition: the service ends."""
        self._closing = self._paused = True
        self._pause()

    def _pause(self) -> None:
        self._consumer.pause([TopicPartition(*lease.partition) for lease in self._offsets.leases])

    def _resume(self) -> None:
        held = (lease.partition for lease in self._offsets.leases)
        self._consumer.resume([TopicPartition(*one) for one in held if one not in self._stopped])

    # commit ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def commit(self, *, wait: bool = False) -> None:
        """Commit what has become finished since the last time."""
        self._commit(self._offsets.changed(), wait=wait)

    def _commit(self, offsets: dict[Partition, int], *, wait: bool) -> None:
        if not offsets:
            return
        wanted = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        try:
            if wait:
                self._consumer.commit(offsets=wanted, asynchronous=False)
            else:
                self._consumer.commit(offsets=wanted, asynchronous=True)
        except KafkaException as error:
            # During a rebalance the broker may refuse (ILLEGAL_GENERATION): the new owner replays. Else: next time.
            log.warning("commit_failed", detail=str(error.args[0])[:200], partitions=len(offsets))
            self._offsets.forget(offsets)

    def _committed(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """librdkafka's report of an asynchronous commit."""
        failed = [one for one in partitions if error is not None or one.error is not None]
        if failed:
            log.warning("commit_failed", detail=str(error or failed[0].error)[:200], partitions=len(failed))
            self._offsets.forget((one.topic, one.partition) for one in failed)

    # failure ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def seek_back(self, lease: Lease) -> None:
        """A record of this lease was not taken by the broker: drop its work, read its partition again from the gap."""
        if self._offsets.lease(lease.partition) is not lease or (offset := lease.end()) is None:
            return  # already sought back, or no longer ours
        self._offsets.begin(lease.partition)
        where = TopicPartition(*lease.partition, offset)
        log.warning("seek_back", partition=lease.partition[1], offset=offset)
        try:
            self._consumer.pause([where])
            self._consumer.seek(where)
            if not self._paused:
                self._consumer.resume([where])
        except KafkaException as error:
            self._restart(where, error)

    def _restart(self, where: TopicPartition, error: KafkaException) -> None:
        """A seek was refused: assign the partition anew from there, which always starts its reader again."""
        log.warning("seek_refused", partition=where.partition, detail=str(error.args[0])[:200])
        self._consumer.incremental_unassign([where])
        self._consumer.incremental_assign([where])
        if self._paused:
            self._consumer.pause([where])

    def out_of_range(self, partition: Partition, error: KafkaError) -> None:
        """The committed offset is gone (retention, or a topic made anew): alarm, stop this partition."""
        self._stopped.add(partition)
        self._consumer.pause([TopicPartition(*partition)])
        self._metrics.out_of_range.labels(partition[1]).inc()
        stopped = ", ".join(str(number) for _, number in sorted(self._stopped))
        self._health.set("offsets", f"partitions {stopped}: the committed offset is out of range; set it by hand")
        log.error("offset_out_of_range", topic=partition[0], partition=partition[1], detail=error.str())

    # rebalance ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Start each where the group committed, or at its beginning; pause flags are set anew."""
        for one in self._committed_of(partitions):
            if one.offset < 0:
                one.offset = OFFSET_BEGINNING
            self._offsets.begin((one.topic, one.partition))
            consumer.incremental_assign([one])
        self._pause() if self._paused else self._resume()
        held = [lease.partition[1] for lease in self._offsets.leases]
        self._health.set("assignment", None)
        log.info("assigned", partitions=[one.partition for one in partitions], held=sorted(held))

    def _committed_of(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        while True:
            try:
                return self._consumer.committed(partitions, timeout=ASK_S)
            except KafkaException as error:
                # We have just joined, so the coordinator is there; without its answer we must not start anywhere.
                log.warning("committed_unknown", detail=str(error.args[0])[:200])
                self._health.beat()

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Finish what is in flight within a deadline, commit, give them up; the rest the next owner reads again."""
        given = [(one.topic, one.partition) for one in partitions]
        leases = [lease for one in given if (lease := self._offsets.lease(one)) is not None]
        deadline = time.monotonic() + (0 if self._closing else self._settings.revoke_s)
        while any(lease.unfinished for lease in leases) and time.monotonic() < deadline:
            self._budget.wait_change(0.05)
        left = sum(lease.unfinished for lease in leases)
        self._commit(self._offsets.end(given), wait=True)
        self._give_up(consumer, partitions)
        log.info("revoked", partitions=[one.partition for one in partitions], unfinished=left)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Somebody else has them already: nothing may be committed."""
        self._offsets.end((one.topic, one.partition) for one in partitions)
        self._give_up(consumer, partitions)
        log.warning("lost", partitions=[one.partition for one in partitions])

    def _give_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._stopped -= {(one.topic, one.partition) for one in partitions}
        for one in partitions:
            with suppress(KeyError):  # no lag was shown yet
                self._metrics.lag.remove(one.topic, str(one.partition), "live")
        consumer.incremental_unassign(partitions)

    # lag ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def show_lag(self) -> None:
        """From what the client knows without asking; absent where the broker does not tell."""
        for one in self._consumer.position([TopicPartition(*lease.partition) for lease in self._offsets.leases]):
            try:
                _, end = self._consumer.get_watermark_offsets(one, cached=True)
            except KafkaException:
                continue
            if end > 0 and one.offset >= 0:
                lag = max(0, end - one.offset)
                self._metrics.lag.labels(one.topic, one.partition, "live").set(lag)
