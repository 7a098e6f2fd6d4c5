"""Deletions that say no version: whom they wait for, and what becomes of them when nobody says which order they take.

The answer of the view is the test's; tests/integration/test_versions.py has a real one.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any, cast

import pytest

from consumer.delivery import Delivery
from consumer.held_order import HeldOrder, Then, Unknown, order_held
from consumer.loading import load
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.pipeline import Pipeline
from consumer.rank import Rank
from consumer.records import Headers, Incoming, Origin, Outgoing
from consumer.retries import read_retry
from consumer.view import Held, View
from consumer.view_guard import LateGuard
from consumer.work import Work
from tests.support.stub_model import StubModel
from tests.support.waiting import eventually
from tests.unit.consumer.test_late_photos import Shelf
from tests.unit.consumer.test_pipeline import Broker, Host

FIRST = "products.retry.30s"
DELETION = Origin("in", 0, 10, 1_000)


def _held(order: int, origin: Origin | None) -> Held:
    return Held(Rank(order, 0, 0, 2), b"{}", None, origin.headers() if origin else [])


@pytest.mark.parametrize(
    ("held", "answer"),
    [
        (None, 0),
        (_held(7, Origin("in", 0, 9, 0)), 7),
        (_held(7, DELETION), 7),
        (_held(7, Origin("in", 0, 11, 0)), Unknown.LATER),
        (_held(7, Origin("in", 1, 11, 0)), 7),
        (_held(7, Origin("bulk:table", 0, 11, 0)), 7),
        (_held(7, None), 7),
        (Held(Rank(7, 2, 0, 0), None, None, [("mmcat-origin-offset", b"x" * 5_000)]), 7),
    ],
)
def test_a_deletion_takes_the_order_that_is_held_unless_that_comes_from_a_later_record(
    held: Held | None, answer: int | Unknown
) -> None:
    assert order_held(held, DELETION) == answer


@dataclass
class Asked:
    """Stands in for `HeldOrder`: keeps what is asked until the test answers."""

    asked: dict[str, tuple[float, Then]] = field(default_factory=dict)
    abandoned: bool = False
    waiting: bool = True

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def abandon(self) -> None:
        self.abandoned = True

    def ask(self, product_id: str, origin: Origin, within_s: float, then: Then) -> None:
        assert product_id not in self.asked, "asked twice"
        self.asked[product_id] = within_s, then

    def answer(self, product_id: str, answer: int | Unknown) -> None:
        self.asked.pop(product_id)[1](answer)


@dataclass
class Bench:
    """A pipeline that orders by version."""

    pipeline: Pipeline
    broker: Broker
    held: Asked
    metrics: Metrics
    deaths: list[BaseException]
    leases: dict[str, Lease] = field(default_factory=dict)

    def submit(self, product: str, version: int | None = None, headers: Headers | None = None) -> None:
        """An event with a version, or a deletion."""
        value = json.dumps({"product_id": product, "title": "x", "version": version}).encode()
        lease = self.leases.setdefault("in", Lease(("in", 0)))
        offset = lease.committable() or 0
        offset = max(offset, lease._next or 0)
        origin = Origin("in", 0, offset, 1_000)
        self.give(Incoming(origin, product.encode(), None if version is None else value, headers or []))

    def give(self, incoming: Incoming) -> None:
        lease = self.leases.setdefault(incoming.place.topic, Lease((incoming.place.topic, 0)))
        lease.start(incoming.place.offset)
        self.pipeline.submit([(incoming, lease)])

    def sent(self, product: str) -> list[Outgoing]:
        return [one for one in self.broker.sent if one.key == product.encode()]

    def settled(self) -> None:
        assert self.pipeline.budget.wait_empty(10), "something is still in flight"
        assert not self.deaths


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench() -> Iterator[MakeBench]:
    made: list[Pipeline] = []

    def make(*, retries: bool = True, attempt: int = 0) -> Bench:
        overrides: dict[str, Any] = {"batch.max_age_ms": 1, "order_by": "version"}
        settings, _ = load(environment={}, overrides=overrides)
        broker, held, metrics, deaths = Broker(), Asked(), Metrics(), list[BaseException]()
        pipeline = Pipeline(
            settings,
            StubModel(),
            Host(),
            cast(Delivery[Work], broker),
            metrics,
            on_failed=lambda _: None,
            on_death=deaths.append,
            late=LateGuard(cast(View, Shelf()), deaths.append) if retries else None,
            held_order=cast(HeldOrder, held),
            attempt=attempt,
        )
        pipeline.start()
        made.append(pipeline)
        return Bench(pipeline, broker, held, metrics, deaths)

    yield make
    for pipeline in made:
        pipeline.stop()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()


def _rank(record: Outgoing) -> Rank:
    return Rank.parse(dict(record.headers)["mmcat-rank"].decode())


def test_it_waits_with_its_product_and_nobody_else_does(bench: Bench) -> None:
    bench.submit("p", 7)
    bench.submit("p")
    bench.submit("p", 9)
    bench.submit("q", 1)
    eventually(lambda: bench.sent("q") and "p" in bench.held.asked, "others overtake")
    assert [_rank(one).order for one in bench.sent("p")] == [7], "what is later in its product waits"
    assert bench.leases["in"].committable() == 1
    bench.held.answer("p", 7)
    bench.settled()
    assert [_rank(one)[:2] for one in bench.sent("p")] == [(7, 0), (7, 2), (9, 0)]
    assert bench.leases["in"].committable() == 4


def test_a_version_in_the_header_asks_nobody(bench: Bench) -> None:
    bench.submit("p", headers=[("version", b"8")])
    bench.settled()
    (one,) = bench.sent("p")
    assert _rank(one)[:2] == (8, 2)
    bench.submit("q", headers=[("version", b"eight")])
    bench.settled()
    assert dict(bench.sent("q")[0].headers)["mmcat-error"] == b"event.version_missing"
    assert not bench.held.asked


def test_what_is_on_its_way_counts_where_the_view_cannot_have_it_yet(bench: Bench) -> None:
    bench.broker.hold = True
    bench.submit("p", 9)
    bench.submit("p", 7)
    bench.submit("p")
    eventually(lambda: "p" in bench.held.asked, "its turn has come")
    bench.held.answer("p", 5)
    eventually(lambda: len(bench.broker.held) == 3, "all are sent")
    assert [_rank(one)[:2] for one in bench.sent("p")] == [(9, 0), (7, 0), (9, 2)]
    for on_done, ok in bench.broker.held:
        on_done(ok)
    bench.settled()
    bench.broker.hold = False
    bench.submit("p")
    bench.held.answer("p", 6)  # all is acknowledged: it is the view's word alone
    bench.settled()
    assert _rank(bench.sent("p")[-1])[:2] == (6, 2)


def test_one_that_a_later_event_followed_is_superseded(bench: Bench) -> None:
    bench.submit("p")
    bench.held.answer("p", Unknown.LATER)
    bench.settled()
    assert bench.sent("p") == []
    assert bench.metrics.registry.get_sample_value("mmcat_listings_total", {"outcome": "superseded"}) == 1
    assert bench.leases["in"].committable() == 1


def test_with_the_view_away_it_is_handed_on_and_a_retry_waits_without_end(bench: Bench) -> None:
    bench.submit("p")
    within_s, _ = bench.held.asked["p"]
    assert within_s < inf
    bench.held.answer("p", Unknown.AWAY)
    bench.settled()
    (later,) = bench.sent("p")
    assert (later.topic, later.value) == (FIRST, None)
    assert bench.leases["in"].committable() == 1
    bench.give(read_retry(Incoming(Origin(FIRST, 0, 0, 0), later.key, later.value, later.headers)))
    within_s, _ = bench.held.asked["p"]
    assert within_s == inf
    bench.held.answer("p", 7)
    bench.settled()
    assert _rank(bench.sent("p")[-1])[:2] == (7, 2)
    assert bench.leases[FIRST].committable() == 1


def test_without_delay_topics_it_is_a_dead_letter(make_bench: MakeBench) -> None:
    bench = make_bench(retries=False)
    bench.submit("p")
    bench.submit("p", 8)
    bench.held.answer("p", Unknown.AWAY)
    bench.settled()
    letter, result = bench.sent("p")
    assert dict(letter.headers)["mmcat-error"] == b"event.version_missing"
    assert b"did not say in time" in dict(letter.headers)["mmcat-error-detail"]
    assert _rank(result).order == 8


def test_a_replay_waits_without_end(make_bench: MakeBench) -> None:
    bench = make_bench(retries=False, attempt=1)
    bench.submit("p")
    assert bench.held.asked["p"][0] == inf
    bench.held.answer("p", 3)
    bench.settled()


@pytest.mark.parametrize("ended", [False, True])
def test_given_up_it_has_no_outcome_and_is_read_again(bench: Bench, ended: bool) -> None:
    bench.submit("p")
    bench.pipeline.drop_waiting()
    assert bench.held.abandoned
    if ended:
        bench.leases["in"].end()
    bench.held.answer("p", 7 if ended else Unknown.ABANDONED)
    bench.settled()
    assert bench.sent("p") == []
    assert bench.leases["in"].committable() == (None if ended else 0)
