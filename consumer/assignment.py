"""The partitions held now: where they start, what is paused, what is committed, and how they are given up.

Runs in the poll thread only (librdkafka calls it from within `consume`). Between the Kafka consumer and offsets.py.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import groupby
from typing import Final

import structlog

from consumer.budget import Budget
from consumer.commits import Commits, OffsetCommits
from consumer.ending import Ending
from consumer.group_look import look
from consumer.guard import Guard
from consumer.health import Health
from consumer.kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
    admin_properties,
    make_consumer,
)
from consumer.metrics import Metrics
from consumer.offsets import Lease, Offsets, Partition
from consumer.records import Incoming
from consumer.retries import Delays
from consumer.settings import Settings

log = structlog.get_logger("mmcat.assignment")

ASK_S: Final = 5.0  # for one question where the group committed: a service that is to end waits for the answer
ASK_AGAIN_S: Final = 0.5
ROOM_S: Final = 0.5  # at the limit, before partitions are paused: longer than a batch of most models takes
REST_S: Final = 1.0  # before a refused record is tried again: no hot loop, and soon after the topic takes it


class Assignment:
    """Joins a group, and keeps what of its partitions was polled, finished and committed.

    Args:
        guard: says which partitions bring mostly dead letters.
        ending: bounds what is waited for; once the service is to end, nothing is asked again.
        on_error: told of what the client says outside of polls.
        transactions: commit, exactly once; None: the consumer does, at least once.
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
        transactions: Commits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leaving = False
        self._offsets = Offsets()
        self._settings, self._transactions, self._on_error = settings, transactions, on_error
        self._connect()
        self._metrics, self._health, self._budget, self._guard = metrics, health, budget, guard
        self.positions: dict[Partition, int] = {}
        """Next offset of each partition that nothing holds up, as the last `show_lag` saw it; -1: nothing was read."""
        self._read_to: dict[Partition, int] = {}  # where the client came to the end, also with no record read
        self._ending, self._clock = ending, clock
        self._stopped: set[Partition] = set()  # their committed offset is gone: a person decides
        self._resting: dict[Partition, tuple[float, int]] = {}  # paused until then, to be read on from there
        self._behind: dict[Partition, int] = {}  # sought back to here; nothing past it is committed yet
        self.ends: Mapping[Partition, int] = {}
        """Where resting partitions end, told by whoever asks the broker: the client learns that only by fetching."""
        self._delays = Delays.of(settings)
        self.paused = False
        """Whether all wait because too much is held."""
        self.shown_lag = 0
        """Live events that were not polled yet, as the last `show_lag` saw it."""
        self._retries_paused = False
        self._member_id: str | None = None
        self.metadata: object = None  # of the group, for transactions; as of the last look

    def _connect(self) -> None:
        """Make the client, and under at-least-once what commits by it."""
        kafka = self._settings.kafka

        def told(error: KafkaError) -> None:
            if client is self._joined:
                self._on_error(error)

        client = make_consumer(
            kafka,
            group_id=kafka.group_id,
            protocol=kafka.group_protocol,
            extra={"on_commit": self._said, "enable.partition.eof": True},
            on_error=told,
        )
        self._joined = self.consumer = self._consumer = client
        self._at_least_once = OffsetCommits(client, self._offsets, self.moved, lambda: self._leaving)
        self._commits: Commits = self._transactions or self._at_least_once

    def join_again(self) -> None:
        """Give all up without a word to the group, and join it by a new client: the old one is fenced, and no use."""
        self._forget(self._held)
        threading.Thread(target=self._consumer.close, name="close", daemon=True).start()
        self._connect()
        self.subscribe()
        log.warning("joined_again")

    def subscribe(self) -> None:
        """Join the group, for the input and the delay topics; assignments come while polling."""
        topics = [self._settings.topics.input, *self._delays.topics]
        self._consumer.subscribe(topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def leave(self) -> None:
        """Give all partitions up and leave the group. Blocks as long as brokers are away: to be called in a thread."""
        self._leaving = True
        self._consumer.close()

    def start(self, polled: Iterable[Incoming]) -> list[tuple[Incoming, Lease]]:
        """Records were polled, those of a partition in their order: note them under its lease.

        Left out is what is of a partition that is not ours (any more), or what comes again after a rest.
        """
        started: list[tuple[Incoming, Lease]] = []
        for partition, run in groupby(polled, key=lambda one: one.origin[:2]):
            lease = self._offsets.lease(partition)
            if lease is None or partition in self._resting:
                continue
            records = list(run)
            first = records[0].origin.offset
            if rest_s := self._guard.admit(partition, first):
                del records[1:]
                self.rest(partition, first + 1, rest_s)
            lease.start(*[one.origin.offset for one in records])
            started += [(one, lease) for one in records]
        return started

    def lease(self, partition: Partition) -> Lease | None:
        """Under which a partition is held; None where it is not ours (any more)."""
        return self._offsets.lease(partition)

    @property
    def retries_in_flight(self) -> int:
        """Records of delay topics that were started and have no outcome yet."""
        return sum(lease.unfinished for lease in self._offsets.leases if lease.partition[0] in self._delays)

    def at_end(self, partition: Partition, offset: int) -> None:
        """The client has read a partition to its end, records or not."""
        self._read_to[partition] = offset

    # pause ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def pause_or_resume(self) -> None:
        """Follow the budget, and let partitions go on that have rested. At the limit it first waits for room."""
        if self._transactions is not None:
            self._look()
        if not self.paused:
            self._budget.wait_room(ROOM_S)
        full = not self._budget.half_free if self.paused else self._budget.full
        if full != self.paused:
            self.paused = full
            self._pause(self._held) if full else self._resume(self._held)
            self._metrics.paused.set(int(full))
        now = self._clock()
        rested = [one for one, (due, _) in self._resting.items() if due <= now]
        for one in rested:
            del self._resting[one]
        self._resume(rested)

    def pause_all(self) -> None:
        """Nothing more from any partition: the service ends."""
        self.paused = True
        self._pause(self._held)

    def pause_retries(self, full: bool) -> None:
        """Poll nothing more from the delay topics, or go on with them."""
        if full != self._retries_paused:
            self._retries_paused = full
            retries = [one for one in self._held if one[0] in self._delays]
            self._pause(retries) if full else self._resume(retries)

    def rest(self, partition: Partition, offset: int, seconds: float) -> None:
        """Pause a partition for so long, and then read on from `offset`."""
        self._resting[partition] = (self._clock() + seconds, offset)
        self._read_to.pop(partition, None)
        where = TopicPartition(*partition, offset)
        try:
            self._consumer.pause([where])
            self._consumer.seek(where)
        except KafkaException as error:
            self._restart(where, error)

    def rests(self, partition: Partition) -> bool:
        """Whether what is polled of it now comes again after its rest."""
        return partition in self._resting

    @property
    def _held(self) -> list[Partition]:
        return [lease.partition for lease in self._offsets.leases]

    def _pause(self, partitions: Iterable[Partition]) -> None:
        self._consumer.pause([TopicPartition(*one) for one in partitions])

    def _resume(self, partitions: Iterable[Partition]) -> None:
        """Those of them that nothing holds back."""
        self._consumer.resume([TopicPartition(*one) for one in partitions if self._free(one)])

    def _free(self, partition: Partition) -> bool:
        if self.paused or partition in self._stopped or partition in self._resting:
            return False
        return not (self._retries_paused and partition[0] in self._delays)

    # commit ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def commit(self, wait_s: float = 0.0) -> None:
        """Commit what has become finished since the last time; block for the broker's word on it, so long at most."""
        self._commits.commit(wait_s)

    def _said(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._at_least_once.said(error, partitions)

    def _look(self) -> None:
        """Note what the client says of our membership: while it is polled it answers no other thread."""
        self.metadata = self._consumer.consumer_group_metadata()

    def replaced(self) -> bool | None:
        """Ask whether the group has another member with our instance id; None where the broker does not say.

        That may be a shadow of our own: a client that does not hear that it has joined, as its broker goes away, joins
        again and is fenced (librdkafka's issue 3437). A shadow is gone when its session has ended.
        """
        kafka = self._settings.kafka
        members = look(admin_properties(kafka), kafka.group_id, ASK_S)
        if members is None:
            return None
        return any(one.instance_id == kafka.instance_id and one.member_id != self._member_id for one in members)

    def moved(self, partition: Partition, offset: int) -> None:
        """So far is committed."""
        if offset > self._behind.get(partition, offset):
            del self._behind[partition]
            self._show_held_up()

    # failure ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def seek_back(self, lease: Lease) -> None:
        """A record of this lease was not taken by the broker: drop its work, read its partition again.

        After a rest: what is refused now is most likely refused again at once.
        """
        partition = lease.partition
        if self._offsets.lease(partition) is not lease:
            return  # already sought back, or no longer ours
        if (offset := self._commits.read_again_from(lease)) is None:
            asked = self._committed_of([TopicPartition(*partition)])
            if not asked:
                return  # the service ends: what comes of this partition now is dropped
            self._health.set("assignment", None)
            offset = asked[0].offset if asked[0].offset >= 0 else OFFSET_BEGINNING
        self._offsets.begin(partition)
        self._behind[partition] = max(0, offset)
        self._show_held_up()
        log.warning("seek_back", topic=partition[0], partition=partition[1], offset=offset, rest_s=REST_S)
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
        stopped = ", ".join(self._named(one) for one in sorted(self._stopped))
        behind = ", ".join(f"{self._named(one)} (from offset {at})" for one, at in sorted(self._behind.items()))
        refused = f"partitions {behind}: the broker did not take a record; tried again each second"
        gone = f"partitions {stopped}: the committed offset is out of range; set it by hand"
        self._health.set("deliveries", refused if behind else None)
        self._health.set("offsets", gone if stopped else None)

    def _names(self, partitions: Iterable[TopicPartition]) -> list[str]:
        return [self._named((one.topic, one.partition)) for one in partitions]

    def _named(self, partition: Partition) -> str:
        topic, number = partition
        return f"{topic} {number}" if topic in self._delays else str(number)

    # rebalance ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Start each where the group committed, or at its beginning; pause flags are set anew.

        A service that is to end starts none: under no lease, what comes of them is dropped.
        """
        if consumer is not self._joined:
            return  # a client that was fenced, being closed
        self._look()
        self._member_id = self._consumer.memberid()
        self.positions = {}
        for one in self._committed_of(partitions):
            if one.offset < 0:
                one.offset = OFFSET_BEGINNING
            self._offsets.begin((one.topic, one.partition))
            consumer.incremental_assign([one])
        self._pause(one for one in self._held if not self._free(one))
        self._resume(self._held)
        self._health.set("assignment", None)
        log.info("assigned", partitions=self._names(partitions), held=len(self._held))

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
        """Finish what is in flight within a deadline, commit, give them up; the rest the next owner reads again.

        Retries are not waited for: with the view away they would hold up everybody.
        """
        if consumer is not self._joined:
            return
        self._look()
        self.positions = {}
        given = [(one.topic, one.partition) for one in partitions]
        live = [one for one in given if one[0] not in self._delays]
        leases = [lease for one in live if (lease := self._offsets.lease(one)) is not None]
        deadline = self._clock() + self._settings.revoke_s
        while any(lease.unfinished for lease in leases) and self._clock() < deadline and self._ending.drain_s:
            self._budget.wait_change(0.05)
        left = sum(lease.unfinished for lease in leases)
        self._commits.give_up(lambda: self._offsets.end(given), self._ending.commit_s)
        self._give_up(consumer, partitions)
        log.info("revoked", partitions=self._names(partitions), unfinished=left)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Somebody else has them already: nothing may be committed.

        If that is another process of our instance id, we must not join again: it would be fenced in its turn.
        """
        if consumer is not self._joined:
            return
        self._offsets.end((one.topic, one.partition) for one in partitions)
        if self._settings.kafka.instance_id is not None and self.replaced():
            with suppress(KafkaException):  # a client that was told already joins no more, and says so
                consumer.unsubscribe()
            self._on_error(KafkaError(KafkaError.FENCED_INSTANCE_ID))
        self._give_up(consumer, partitions)
        log.warning("lost", partitions=self._names(partitions))

    def _give_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget((one.topic, one.partition) for one in partitions)
        consumer.incremental_unassign(partitions)

    def _forget(self, partitions: Iterable[Partition]) -> None:
        """Nothing of these is ours any more."""
        given = list(partitions)
        self._offsets.end(given)
        for partition in given:
            self._stopped.discard(partition)
            self._resting.pop(partition, None)
            self._behind.pop(partition, None)
            self._read_to.pop(partition, None)
            self._guard.forget(partition)
            with suppress(KeyError):  # no lag was shown yet
                self._metrics.lag.remove(partition[0], str(partition[1]), self._role(partition[0]))
        self._show_held_up()

    # lag ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def resting_retries(self) -> list[Partition]:
        """Partitions of delay topics that rest now; may be asked from another thread."""
        return [one for one in list(self._resting) if one[0] in self._delays]

    @property
    def live_lag(self) -> int:
        """Events of the input topic that were not polled yet; without partitions that a refused record holds up."""
        going = [one for one in self._held if one not in self._stopped and one not in self._resting]
        lags, _ = self._lags(one for one in going if one[0] not in self._delays)
        return sum(lags.values())

    def show_lag(self) -> None:
        """Set `mmcat_consumer_lag`, absent where the broker does not tell, and note positions for the watchdog."""
        lags, positions = self._lags(self._held)
        for (topic, number), lag in lags.items():
            self._metrics.lag.labels(topic, number, self._role(topic)).set(lag)
        self.shown_lag = sum(lag for (topic, _), lag in lags.items() if topic not in self._delays)
        live = {one: at for one, at in positions.items() if self._free(one) and one[0] not in self._delays}
        self.positions = {one: max(at, self._read_to.get(one, -1), -1) for one, at in live.items()}

    def _lags(self, partitions: Iterable[Partition]) -> tuple[dict[Partition, int], dict[Partition, int]]:
        """Records between position and end, from what the client knows without asking; and the positions."""
        lags: dict[Partition, int] = {}
        positions: dict[Partition, int] = {}
        for one in self._consumer.position([TopicPartition(*held) for held in partitions]):
            partition = (one.topic, one.partition)
            positions[partition] = one.offset
            try:
                _, end = self._consumer.get_watermark_offsets(one, cached=True)
            except KafkaException:
                continue
            _, position = self._resting.get(partition, (0.0, one.offset))
            if end > 0 and position >= 0:
                lags[partition] = max(0, max(end, self.ends.get(partition, 0)) - position)
        return lags, positions

    def _role(self, topic: str) -> str:
        return "retry" if topic in self._delays else "live"
