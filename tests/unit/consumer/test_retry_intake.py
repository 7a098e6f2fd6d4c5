"""A retry is held back until it is due and it is its turn; what is held back is started for nobody."""

from dataclasses import dataclass, field
from typing import cast

import pytest

from consumer.assignment import Assignment
from consumer.metrics import Metrics
from consumer.offsets import Lease, Partition
from consumer.records import Incoming, Origin
from consumer.retries import Delays, retry_record
from consumer.retry_intake import RetryIntake
from consumer.retry_share import RetryShare
from consumer.settings import Settings

DELAYS = Delays.of(Settings())
TOPIC = DELAYS.topics[0]
PARTITION = (TOPIC, 0)
ORIGIN = Origin("products.registered", 1, 5, 1_000)


@dataclass
class Partitions:
    """Stands in for `Assignment`: what it was asked to do."""

    held: dict[Partition, Lease] = field(default_factory=lambda: {PARTITION: Lease(PARTITION)})
    resting: dict[Partition, tuple[int, float]] = field(default_factory=dict)
    paused: bool = False
    live_lag: int = 0
    retries_in_flight: int = 0

    def lease(self, partition: Partition) -> Lease | None:
        return self.held.get(partition)

    def rests(self, partition: Partition) -> bool:
        return partition in self.resting

    def rest(self, partition: Partition, offset: int, seconds: float) -> None:
        self.resting[partition] = (offset, seconds)

    def pause_retries(self, full: bool) -> None:
        self.paused = full


@dataclass
class Bench:
    partitions: Partitions = field(default_factory=Partitions)
    metrics: Metrics = field(default_factory=Metrics)
    now_s: float = 1_000.0

    def __post_init__(self) -> None:
        share = RetryShare(0.2, 10)  # two at once while live events wait, five while none does
        self.intake = RetryIntake(
            DELAYS, cast(Assignment, self.partitions), share, self.metrics, wall=lambda: self.now_s
        )

    def poll(self, offset: int, due_s: float) -> None:
        """A record that is due then comes out of the delay topic."""
        delay = DELAYS[TOPIC]
        sent = retry_record(Incoming(ORIGIN, b"k", b"v", []), delay, int((due_s - delay.seconds) * 1000))
        self.intake.polled(Incoming(Origin(TOPIC, 0, offset, 0), sent.key, sent.value, sent.headers))

    def through(self, room: int = 100) -> list[int]:
        return [record.place.offset for record, _ in self.intake.let_through(room)]

    def overdue_s(self) -> float | None:
        self.intake.show_overdue()
        return self.metrics.registry.get_sample_value("mmcat_retry_overdue_seconds")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_first_that_is_not_due_rests_its_partition_and_what_follows_comes_again(bench: Bench) -> None:
    bench.poll(0, 999)
    bench.poll(1, 1_010)
    bench.poll(2, 1_011)
    assert bench.partitions.resting == {PARTITION: (1, 10.0)}
    assert bench.through() == [0]
    lease = bench.partitions.held[PARTITION]
    lease.finish(0)
    assert lease.committable() == 1, "what rests was not started"
    bench.now_s = 1_010
    bench.partitions.resting.clear()
    bench.poll(1, 1_010)
    bench.poll(2, 1_011)
    assert bench.through() == [1]
    assert bench.partitions.resting == {PARTITION: (2, 1.0)}


def test_a_due_time_of_a_wrong_clock_holds_for_one_delay_at_most(bench: Bench) -> None:
    bench.poll(0, 10**9)
    assert bench.partitions.resting == {PARTITION: (0, 30.0)}
    bench.partitions.resting.clear()
    bench.poll(0, 10**9)
    assert bench.through() == [0]


def test_a_partition_that_was_given_away_and_came_back_rests_anew(bench: Bench) -> None:
    bench.poll(0, 1_010)
    bench.partitions.resting.clear()
    bench.partitions.held[PARTITION] = Lease(PARTITION)
    bench.poll(0, 1_010)
    assert (bench.through(), bench.partitions.resting) == ([], {PARTITION: (0, 10.0)})


def test_while_live_events_wait_only_the_share_goes_and_the_delay_topics_are_paused(bench: Bench) -> None:
    bench.partitions.live_lag = 1
    for offset in range(4):
        bench.poll(offset, 1_000)
    assert bench.through() == [0, 1]
    assert bench.partitions.paused
    assert bench.through() == [], "nothing was earned"
    bench.intake.live(4)
    assert bench.through() == [2]
    bench.partitions.live_lag = 0
    assert bench.through(room=0) == [], "the pipeline is full"
    assert bench.through() == [3]
    assert not bench.partitions.paused


def test_what_waits_under_a_lease_that_ended_is_forgotten(bench: Bench) -> None:
    bench.poll(0, 1_000)
    bench.partitions.held[PARTITION].end()
    assert bench.through() == []
    assert not bench.partitions.paused


def test_overdue_is_what_is_due_and_has_no_outcome_yet(bench: Bench) -> None:
    bench.poll(0, 1_000)
    bench.poll(1, 1_020)
    assert bench.overdue_s() == 0
    bench.now_s = 1_015
    assert bench.overdue_s() == 15, "it waits for its turn"
    bench.through()
    assert bench.overdue_s() == 15, "it is under way"
    bench.partitions.held[PARTITION].finish(0)
    assert bench.overdue_s() == 0, "the next is not due"
    bench.now_s = 1_025
    assert bench.overdue_s() == 5, "it rests, and is due"
