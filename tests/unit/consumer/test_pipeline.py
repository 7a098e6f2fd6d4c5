"""The pipeline joined, with a stub model, a scripted fetcher and a broker that the test plays.

The real broker, cache and photo host stand in tests/integration; here is what cannot be made to happen there at will.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from consumer.fetch import Fetched, Validators
from consumer.loading import load
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.outcomes import Done
from consumer.pipeline import Pipeline
from consumer.records import Incoming, Origin, Outgoing
from consumer.work import Work
from mmcat.listing import ImageStatus, Prepared, Result
from tests.support.stub_model import StubModel, accept
from tests.support.waiting import eventually


@dataclass
class Broker:
    """Keeps what is sent, and acknowledges it when told; stands in for `Delivery`."""

    sent: list[Outgoing] = field(default_factory=list)
    refuse: Callable[[Outgoing], bool] = lambda _: False
    hold: bool = False
    held: list[tuple[Callable[[bool], None], bool]] = field(default_factory=list)

    def send(self, works: Sequence[Work], on_done: Done[Work]) -> None:
        for work in works:
            self.sent += work.records
            ok = not any(self.refuse(record) for record in work.records)
            if self.hold:
                self.held.append((partial(on_done, [work]), ok))
            else:
                on_done([work], ok)


@dataclass
class Host:
    """A photo host: answers an address when its event is set."""

    slow: dict[str, asyncio.Event] = field(default_factory=dict)
    loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.slow["http://slow"] = asyncio.Event()

    async def close(self) -> None:
        pass

    async def fetch(self, url: str, deadline: float, known: Validators | None = None) -> Fetched:
        if url in self.slow:
            await self.slow[url].wait()
        if url == "http://dead":
            return Fetched(ImageStatus.UNAVAILABLE, None, True, "404")
        return Fetched(ImageStatus.USED, b"jpeg", False, "")

    def release(self) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.slow["http://slow"].set)


@dataclass
class Bench:
    """A pipeline on the bench."""

    pipeline: Pipeline
    broker: Broker
    host: Host
    model: StubModel
    metrics: Metrics
    failed: list[Lease]
    deaths: list[BaseException]
    lease: Lease = field(default_factory=lambda: Lease(("in", 0)))
    offset: int = 0

    def submit(self, product: str | None, value: bytes | None = None, **fields: Any) -> None:
        raw = value
        if value is None and fields.pop("deleted", False) is False:
            raw = json.dumps({"product_id": product, "title": "x", **fields}).encode()
        origin = Origin("in", 0, self.offset, 1000 + self.offset)
        self.lease.start(self.offset)
        self.offset += 1
        self.pipeline.submit([(Incoming(origin, product.encode() if product else None, raw, []), self.lease)])

    def settled(self) -> None:
        assert self.pipeline.budget.wait_empty(10), "something is still in flight"
        assert self.pipeline.budget.bytes == 0
        assert not self.deaths


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench() -> Iterator[MakeBench]:
    made: list[Pipeline] = []

    def make(answer: Callable[[Prepared], Result] = accept, outranked: Any = None, **overrides: Any) -> Bench:
        settings, _ = load(environment={}, overrides={"batch.max_age_ms": 1, **overrides})
        broker, host, model, metrics = Broker(), Host(), StubModel(answer), Metrics()
        failed: list[Lease] = []
        deaths: list[BaseException] = []
        pipeline = Pipeline(
            settings,
            model,
            host,
            broker,
            metrics,
            on_failed=failed.append,
            on_death=deaths.append,
            outranked=outranked,
        )
        pipeline.start()
        made.append(pipeline)
        return Bench(pipeline, broker, host, model, metrics, failed, deaths)

    yield make
    for pipeline in made:
        pipeline.stop()


def images(sent: Sequence[Outgoing]) -> dict[str, str]:
    return {json.loads(one.value)["product_id"]: json.loads(one.value)["image"] for one in sent if one.value}


def test_every_kind_of_record_gets_its_one_outcome(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.submit("a")
    bench.submit("b", image_url="http://quick")
    bench.submit("c", image_url="http://dead")
    bench.submit("d", deleted=True)
    bench.submit("e", value=b"{")
    bench.settled()
    assert images([one for one in bench.broker.sent if one.topic == "products.categorized"]) == {
        "a": "absent",
        "b": "used",
        "c": "unavailable",
    }
    assert [one.key for one in bench.broker.sent if one.value is None] == [b"d"]
    assert [one.value for one in bench.broker.sent if one.topic == "products.dead-letter"] == [b"{"]
    assert bench.lease.committable() == 5


def test_a_slow_photo_holds_its_own_product_and_nobody_else(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.submit("slow", image_url="http://slow")
    bench.submit("slow", title="update")
    bench.submit("slow", deleted=True)
    bench.submit("quick")
    eventually(lambda: [one.key for one in bench.broker.sent] == [b"quick"], "the quick one goes first")
    assert bench.lease.committable() == 0
    bench.host.release()
    bench.settled()
    mine = [one for one in bench.broker.sent if one.key == b"slow"]
    assert [one.value is None for one in mine] == [False, False, True]
    orders = [int(dict(one.headers)["mmcat-rank"].split(b",")[0]) for one in mine]
    assert orders == sorted(orders)


def test_nothing_is_finished_before_the_broker_has_it(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.broker.hold = True
    bench.submit("a")
    bench.submit("b", deleted=True)
    bench.submit(None, value=b"{")
    eventually(lambda: len(bench.broker.held) == 3, "all three are sent")
    assert bench.lease.committable() == 0
    for on_done, ok in bench.broker.held:
        on_done(ok)
    bench.settled()
    assert bench.lease.committable() == 3


def test_a_record_the_broker_does_not_take_is_never_finished(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.broker.refuse = lambda record: record.key == b"b"
    for product in "abc":
        bench.submit(product)
    bench.settled()
    assert bench.failed == [bench.lease]
    assert bench.lease.committable() == 1


def test_review_copies_are_part_of_the_outcome(make_bench: MakeBench) -> None:
    from dataclasses import replace

    from mmcat.listing import Decision

    bench = make_bench(
        lambda prepared: replace(accept(prepared), decision=Decision.REVIEW, reason="uncertain", safe_level=0)
    )
    bench.broker.refuse = lambda record: record.topic == "products.review"
    bench.submit("a")
    bench.settled()
    assert [one.topic for one in bench.broker.sent] == ["products.categorized", "products.review"]
    assert bench.lease.committable() == 0


def test_an_audited_result_is_published_as_accepted_and_copied_to_review(make_bench: MakeBench) -> None:
    bench = make_bench(**{"review.audit_share": 1.0})
    bench.submit("a")
    bench.settled()
    assert [one.topic for one in bench.broker.sent] == ["products.categorized", "products.review"]
    published, copy = (json.loads(one.value or b"") for one in bench.broker.sent)
    assert (published["decision"], published["reason"]) == ("accept", "audit")
    assert copy == published
    assert bench.metrics.registry.get_sample_value("mmcat_review_total", {"reason": "audit"}) == 1


def test_work_of_a_lease_that_ended_is_dropped(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.submit("slow", image_url="http://slow")
    bench.submit("slow", title="behind it")
    bench.submit("slow", deleted=True)
    bench.lease.end()
    bench.host.release()
    bench.settled()
    assert bench.broker.sent == []


def test_the_guilty_listing_alone_becomes_a_dead_letter(make_bench: MakeBench) -> None:
    def judge(prepared: Prepared) -> Result:
        if prepared.listing_id == "bad":
            raise MemoryError("too much")
        return accept(prepared)

    bench = make_bench(judge)
    for product in ("a", "bad", "b", "bad"):
        bench.submit(product)
    bench.settled()
    codes = [dict(one.headers)["mmcat-error"] for one in bench.broker.sent if one.topic == "products.dead-letter"]
    assert codes == [b"model.failed", b"model.failed"]
    assert set(images([one for one in bench.broker.sent if one.topic == "products.categorized"])) == {"a", "b"}
    assert bench.lease.committable() == 4


def test_what_the_view_outranks_is_superseded(make_bench: MakeBench) -> None:
    bench = make_bench(outranked=lambda record: record.key == b"old")
    bench.submit("old")
    bench.submit("old", deleted=True)
    bench.submit("new")
    bench.settled()
    assert [one.key for one in bench.broker.sent] == [b"new"]
    assert bench.metrics.registry.get_sample_value("mmcat_listings_total", {"outcome": "superseded"}) == 2
    assert bench.lease.committable() == 3


def test_order_by_version_asks_for_one(make_bench: MakeBench) -> None:
    bench = make_bench(order_by="version")
    bench.submit("a")
    bench.submit("b", version=7)
    bench.submit("c", deleted=True)  # nobody here who could be asked
    bench.settled()
    codes = {one.key: dict(one.headers).get("mmcat-error") for one in bench.broker.sent}
    assert codes == {b"a": b"event.version_missing", b"b": None, b"c": b"event.version_missing"}
    ranks = [dict(one.headers)["mmcat-rank"] for one in bench.broker.sent if one.key == b"b"]
    assert ranks[0].startswith(b"7,")


def test_budget_pauses_at_the_limit_and_resumes_at_half(make_bench: MakeBench) -> None:
    bench = make_bench(**{"limits.in_flight_listings": 10})
    bench.broker.hold = True
    for number in range(10):
        bench.submit(f"p{number}")
    eventually(lambda: len(bench.broker.held) == 10, "all are sent")
    assert bench.pipeline.budget.full
    for on_done, ok in bench.broker.held[:4]:
        on_done(ok)
    assert not bench.pipeline.budget.full
    assert not bench.pipeline.budget.half_free, "flutters"
    for on_done, ok in bench.broker.held[4:]:
        on_done(ok)
    assert bench.pipeline.budget.half_free


def test_stages_run_beside_each_other(make_bench: MakeBench) -> None:
    """A batch in the engine does not keep photos from being fetched."""
    entered, go = threading.Event(), threading.Event()

    def blocking(prepared: Prepared) -> Result:
        entered.set()
        assert go.wait(10)
        return accept(prepared)

    bench = make_bench(blocking)
    bench.submit("first")
    assert entered.wait(10)
    bench.submit("second", image_url="http://quick")
    eventually(
        lambda: bench.metrics.registry.get_sample_value("mmcat_photo_total", {"status": "used"}) == 1,
        "the photo is decoded while the engine is busy",
    )
    go.set()
    bench.settled()


def test_a_version_of_thousands_of_digits_is_a_dead_letter(make_bench: MakeBench) -> None:
    bench = make_bench(order_by="version")
    origin = Origin("in", 0, 0, 1000)
    bench.lease.start(0)
    bench.pipeline.submit([(Incoming(origin, b"a", None, [("version", b"9" * 5000)]), bench.lease)])
    bench.settled()
    assert dict(bench.broker.sent[0].headers)["mmcat-error"] == b"event.version_missing"
