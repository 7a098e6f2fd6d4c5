"""Whatever is written late, whoever reads when, crashes when, loses its view when: in the end the log is at rest.

The log is a list, the views are real, the rules are those of the product: `Outranked` and view.lua.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from consumer.rank import Rank
from consumer.repair import Outranked
from consumer.view import Ranked, View
from consumer.view_keys import product_key

PRODUCTS = ("a", "b")
# Few ranks, so that many collide and many come late; with small batches much is read before its end is.
RANKS = st.builds(Rank, st.integers(0, 2), st.sampled_from([0, 0, 2]), st.just(0), st.integers(0, 1))
WRITES = st.tuples(st.just("write"), st.sampled_from(PRODUCTS), RANKS)
READS = st.tuples(st.just("read"), st.integers(0, 1), st.integers(1, 3))
CRASHES = st.tuples(st.sampled_from(["crash", "publish and crash", "empty"]), st.integers(0, 1), st.just(0))
STEPS = st.lists(WRITES | READS | CRASHES, min_size=5, max_size=30)


class Log(list[Ranked]):
    """One partition."""

    def write(self, product: str, rank: Rank, result: bytes | None) -> None:
        self.append(Ranked(product, rank, result, 0, len(self)))


@dataclass
class Writer:
    """What view_writer.py does, one step at a time."""

    view: View
    log: Log
    outranked: Outranked = field(default_factory=Outranked)
    position: int = 0
    read: int = 0
    repairs: int = 0

    def take(self, count: int, *, crash: bool = False) -> None:
        records = self.log[self.read : self.read + count]
        for record, applied in zip(records, self.view.apply(records), strict=True):
            self.outranked.took(record, applied, end=len(self.log))
        self.read += len(records)
        due = self.outranked.due({0: self.read}, {})
        for one, held in zip(due, self.view.held([one.product_id for one in due]), strict=True):
            if held is not None:
                self.log.write(one.product_id, held.rank, held.result)
                self.repairs += 1
        if crash:  # acknowledged, and the position was not moved
            return self.crash()
        for one in due:
            self.outranked.settle(one.product_id, 0)
        self.position = self.outranked.settled(0, self.read)
        assert self.position <= self.read
        return None

    def crash(self) -> None:
        self.read = self.position
        self.outranked.clear()

    def empty(self) -> None:
        self.view.ask([("DEL", *(product_key(self.view.generation, product) for product in PRODUCTS))])
        self.position = 0
        self.crash()


@pytest.fixture
def views(valkey_url: str, view_prefix: str) -> Iterator[list[View]]:
    made = [View(valkey_url, f"{view_prefix}-{number}", 3600) for number in range(2)]
    for view in made:
        view.connect()
    yield made
    for view in made:
        view.close()


def to_the_end(log: Log, writers: list[Writer]) -> None:
    for _ in range(100):
        for writer in writers:
            writer.take(2)
        if all(writer.read == writer.position == len(log) for writer in writers):
            return
    raise AssertionError("the writers do not come to rest: they repair each other's repairs")


HIGH, LOW = Rank(1, 0, 0, 0), Rank(0, 0, 0, 0)
UNREAD = [("write", "a", HIGH), ("write", "a", LOW), ("write", "b", LOW), ("read", 0, 2), ("crash", 0, 0)]


@given(STEPS, st.integers(1, 2))
@example(UNREAD, 1)  # a crash after a stale record was read, before it was sure that it is the last
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.integration
def test_at_rest_the_last_record_of_each_key_is_the_highest_ranked_and_in_every_view(
    views: list[View], steps: list[tuple[str, int, int]], count_of_views: int
) -> None:
    log = Log()
    views = views[:count_of_views]
    writers = [Writer(view, log) for view in views]
    for writer in writers:
        writer.empty()
    for kind, who, what in steps:
        if kind == "write":
            rank = Rank(*what)  # type: ignore[misc]  # a step's third part is a rank here
            log.write(str(who), rank, None if rank.authority == 2 else b"%d" % len(log))
        elif kind == "read":
            writers[who % count_of_views].take(what)
        elif kind == "publish and crash":
            writers[who % count_of_views].take(5, crash=True)
        elif kind == "crash":
            writers[who % count_of_views].crash()
        else:
            writers[who % count_of_views].empty()
    to_the_end(log, writers)
    last = {record.product_id: (record.rank, record.result) for record in log}
    for product, (rank, _) in last.items():
        assert rank == max(record.rank for record in log if record.product_id == product)
    for view in views:
        assert view.mget(PRODUCTS) == [last.get(product) for product in PRODUCTS]
    count = len(log)
    for writer in writers:  # a full view that lost its positions, then an empty one
        writer.position = 0
        writer.crash()
    to_the_end(log, writers)
    for writer in writers:
        writer.empty()
    to_the_end(log, writers)
    assert len(log) == count, "what is at rest is written again"
