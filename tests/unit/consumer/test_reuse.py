"""Work that changes nothing is answered from the view: on a real Valkey, with a model and a photo host that count."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from consumer.delivery import Delivery
from consumer.events import Event
from consumer.fetch import Fetched, Validators
from consumer.loading import load
from consumer.metrics import Metrics
from consumer.offsets import Lease
from consumer.pipeline import Pipeline
from consumer.rank import Rank
from consumer.records import Incoming, Origin, Outgoing
from consumer.reuse import judge
from consumer.view import Ranked, View
from consumer.work import Work
from mmcat.cli.servers import LocalValkey
from mmcat.listing import Evidence, ImageStatus, Prepared, Result
from tests.support.stub_model import StubModel, accept
from tests.unit.consumer.test_pipeline import Broker, Host

pytestmark = pytest.mark.integration

PHOTO = "http://quick"


@dataclass
class CountingHost(Host):
    asked: list[str] = field(default_factory=list)

    async def fetch(self, url: str, deadline: float, known: Validators | None = None) -> Fetched:
        self.asked.append(url)
        return await super().fetch(url, deadline)


@dataclass
class Shop:
    """A pipeline that reuses, and the view that a writer keeps."""

    view: View
    url: str
    prefix: str
    pipelines: list[Pipeline] = field(default_factory=list)
    offset: int = 0

    def categorize(
        self, *events: dict[str, Any] | None, model: StubModel | None = None, settings: dict[str, Any] | None = None
    ) -> tuple[list[Outgoing], StubModel, CountingHost, Metrics]:
        """Send events about one product (None deletes it) through a fresh pipeline; returns what came out of it."""
        given = {"batch.max_age_ms": 1, "model.top_k": 1, "reuse.max_age_s": 3600.0, "reuse.timeout_s": 20.0}
        where = {"view.url": self.url, "view.prefix": self.prefix}
        loaded, _ = load(environment={}, overrides={**given, **where, **(settings or {})})
        broker, host, metrics, lease = Broker(), CountingHost(), Metrics(), Lease(("in", 0))
        model, deaths = model or StubModel(), list[BaseException]()
        pipeline = Pipeline(
            loaded,
            model,
            host,
            cast(Delivery[Work], broker),
            metrics,
            on_failed=lambda _: None,
            on_death=deaths.append,
            reuse=True,
        )
        self.pipelines.append(pipeline)
        pipeline.start()
        records = []
        for event in events:
            origin = Origin("in", 0, self.offset, 1_000 + self.offset)
            lease.start(self.offset)
            self.offset += 1
            raw = None if event is None else json.dumps({"product_id": "p", **event}).encode()
            records.append((Incoming(origin, b"p", raw, [("ce_id", b"%d" % self.offset)]), lease))
        pipeline.submit(records)
        assert pipeline.budget.wait_empty(30)
        assert not deaths
        assert lease.committable() == self.offset
        return [one for one in broker.sent if one.topic == "products.categorized"], model, host, metrics

    def write(self, sent: list[Outgoing]) -> None:
        """What the view's writer does with it."""
        ranks = [Rank.parse(dict(one.headers)["mmcat-rank"].decode()) for one in sent]
        self.view.apply([Ranked("p", rank, one.value) for rank, one in zip(ranks, sent, strict=True)])

    def known(
        self, event: dict[str, Any], model: StubModel | None = None, settings: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Categorize an event for the first time, and keep the answer in the view."""
        sent, *_ = self.categorize(event, model=model, settings=settings)
        self.write(sent)
        return said(sent[0])


@pytest.fixture
def shop(valkey_url: str, view_prefix: str) -> Iterator[Shop]:
    view = View(valkey_url, view_prefix, 3600)
    view.connect()
    shop = Shop(view, valkey_url, view_prefix)
    yield shop
    for pipeline in shop.pipelines:
        pipeline.stop()
    view.close()


def said(record: Outgoing) -> dict[str, Any]:
    found = json.loads(record.value or b"")
    assert isinstance(found, dict)
    return found


def reuse_outcomes(metrics: Metrics) -> dict[str, float]:
    (family,) = [one for one in metrics.registry.collect() if one.name == "mmcat_reuse"]
    return {one.labels["outcome"]: one.value for one in family.samples if one.name.endswith("_total") and one.value}


EVENT = {"title": "남성 러닝화", "brand": "무명", "image_url": PHOTO}


def test_an_equal_event_is_answered_from_the_view_as_a_result_of_its_own(shop: Shop) -> None:
    first = shop.known(EVENT)
    assert not first["reused"]
    sent, model, host, metrics = shop.categorize(
        {**EVENT, "seller_path": ["other"], "registered_at": "2026-01-02T03:04:05Z"}
    )
    assert model.batches == []
    assert host.asked == []
    assert reuse_outcomes(metrics) == {"reused": 1}
    again, headers = said(sent[0]), dict(sent[0].headers)
    assert again["reused"]
    own = ("result_id", "rank", "origin", "reused", "inferred_at", "registered_at", "categorized_at", "reason")
    assert {name: part for name, part in again.items() if name not in own} == {
        name: part for name, part in first.items() if name not in own
    }
    assert again["result_id"] != first["result_id"]
    assert again["result_id"].encode() == headers["mmcat-result-id"]
    assert again["rank"] == [1_001, 0, first["rank"][2], 2] == [int(one) for one in headers["mmcat-rank"].split(b",")]
    assert again["origin"] == {"topic": "in", "partition": 0, "offset": 1, "timestamp": 1_001}
    assert headers["ce_id"] == b"2"
    assert again["inferred_at"] == first["categorized_at"] <= again["categorized_at"]


def test_the_same_work_has_the_same_id_whether_reused_or_inferred(shop: Shop) -> None:
    shop.known(EVENT)
    reused, *_ = shop.categorize(EVENT)
    shop.offset -= 1  # as after a crash, with the view away
    inferred, *_ = shop.categorize(EVENT, settings={"view.url": "redis://127.0.0.1:1/0"})
    assert (said(reused[0])["reused"], said(inferred[0])["reused"]) == (True, False)
    assert dict(reused[0].headers)["mmcat-result-id"] == dict(inferred[0].headers)["mmcat-result-id"]


def other_model(**changes: Any) -> StubModel:
    model = StubModel()
    model.info = replace(model.info, **changes)
    return model


def explaining(prepared: Prepared) -> Result:
    return replace(accept(prepared), evidence=Evidence(1.0, 0.0))


@pytest.mark.parametrize(
    ("event", "model", "overrides", "outcome"),
    [
        ({**EVENT, "title": "여성 러닝화"}, None, {}, "changed"),
        ({**EVENT, "brand": "other"}, None, {}, "changed"),
        ({**EVENT, "maker": "other"}, None, {}, "changed"),
        ({**EVENT, "attributes": {"model": "X-1"}}, None, {}, "changed"),
        ({**EVENT, "image_url": "http://quick2"}, None, {}, "changed"),
        ({"title": EVENT["title"], "brand": "무명"}, None, {}, "changed"),
        (EVENT, other_model(fingerprint="e" * 64), {}, "changed"),  # thresholds are part of the bundle, so of this
        (EVENT, other_model(precision="bf16"), {}, "changed"),
        (EVENT, None, {"model.top_k": 2}, "changed"),
        (EVENT, StubModel(explaining), {"model.evidence": True}, "changed"),
        (EVENT, None, {"reuse.max_age_s": 1e-6}, "old"),
    ],
)
def test_any_one_difference_is_inferred(
    shop: Shop, event: dict[str, Any], model: StubModel | None, overrides: dict[str, Any], outcome: str
) -> None:
    shop.known(EVENT)
    sent, asked, host, metrics = shop.categorize(event, model=model, settings=overrides)
    assert asked.batches == [["p"]]
    assert host.asked == [event["image_url"] for _ in range("image_url" in event)]
    assert reuse_outcomes(metrics) == {outcome: 1}
    assert not said(sent[0])["reused"]


def test_an_answer_that_did_not_see_its_photo_is_not_reused(shop: Shop) -> None:
    dead = {**EVENT, "image_url": "http://dead"}
    assert shop.known(dead)["image"] == "unavailable"
    _, model, host, _ = shop.categorize(dead)
    assert (model.batches, host.asked) == ([["p"]], ["http://dead"])


def test_what_was_deleted_is_inferred_again(shop: Shop) -> None:
    shop.known(EVENT)
    gone, *_ = shop.categorize(None)
    shop.write(gone)
    _, model, _, metrics = shop.categorize(EVENT)
    assert model.batches == [["p"]]
    assert reuse_outcomes(metrics) == {"none": 1}


def test_reusing_again_and_again_does_not_make_an_answer_younger(shop: Shop) -> None:
    first = shop.known(EVENT)
    again, *_ = shop.categorize(EVENT)
    shop.write(again)
    held, model = said(again[0]), StubModel()
    settings, _ = load(environment={}, overrides={"reuse.max_age_s": 10.0, "model.top_k": 1})
    event = Event.model_validate({"product_id": "p", **EVENT})
    assert held["inferred_at"] == first["categorized_at"]
    held["inferred_at"] = "2026-01-01T00:00:00.000Z"  # what counts, however young `categorized_at` is
    since = 1_767_225_600.0
    assert judge(held, event, model.info, settings, since + 9) == "reused"
    assert judge(held, event, model.info, settings, since + 11) == "old"
    assert judge(held, event, model.info, settings, since - 1) == "old", "from the future: a clock is wrong"


def test_order_within_the_product_holds_between_what_is_reused_and_what_is_not(shop: Shop) -> None:
    shop.known(EVENT)
    sent, model, _, _ = shop.categorize({**EVENT, "title": "changed"}, EVENT, None, EVENT, {**EVENT, "title": "last"})
    kinds = ["deleted" if one.value is None else said(one)["reused"] for one in sent]
    assert kinds == [False, True, "deleted", True, False]
    assert [int(dict(one.headers)["mmcat-origin-offset"]) for one in sent] == [1, 2, 3, 4, 5]
    assert len(model.batches) == 2


def test_review_copies_and_audits_are_drawn_anew(shop: Shop) -> None:
    shop.known(EVENT, settings={"review.audit_share": 0.0})
    sent, *_ = shop.categorize(EVENT, settings={"review.audit_share": 1.0})
    assert (said(sent[0])["reused"], said(sent[0])["reason"]) == (True, "audit")
    shop.write(sent)
    sent, *_ = shop.categorize(EVENT, settings={"review.audit_share": 0.0})
    assert said(sent[0])["reused"]
    assert "reason" not in said(sent[0])


def test_off_by_default(shop: Shop) -> None:
    assert load(environment={})[0].reuse.max_age_s == 0
    shop.known(EVENT)
    _, model, _, metrics = shop.categorize(EVENT, settings={"reuse.max_age_s": 0.0})
    assert model.batches == [["p"]]
    assert reuse_outcomes(metrics) == {}


def test_with_the_view_killed_or_hanging_all_is_inferred(tmp_path: Path) -> None:
    with LocalValkey(logs=tmp_path) as server:
        view = View(server.url, "v", 3600)
        view.connect()
        shop = Shop(view, server.url, "v")
        shop.known(EVENT)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        began = time.monotonic()
        _, model, _, metrics = shop.categorize(EVENT, EVENT, settings={"reuse.timeout_s": 0.1})
        os.kill(server.pid, signal.SIGCONT)
        assert time.monotonic() - began < 20, "it did not wait for the view"
        assert sum(map(len, model.batches)) == 2
        assert reuse_outcomes(metrics) == {"away": 2}
        view.close()
        server.kill()
        sent, model, _, metrics = shop.categorize(EVENT)
        assert model.batches == [["p"]]
        assert reuse_outcomes(metrics) == {"away": 1}
        assert said(sent[0])["image"] == ImageStatus.USED
        for pipeline in shop.pipelines:
            pipeline.stop()


def test_a_result_that_is_not_ours_is_not_reused(shop: Shop) -> None:
    for body in (b"not json", b"[]", b'{"input_hash": "1"}'):
        shop.view.apply([Ranked("p", Rank(1, 0, 1, 2), body)])
        _, model, _, metrics = shop.categorize(EVENT)
        assert model.batches == [["p"]]
        assert reuse_outcomes(metrics) == {"none": 1}


@pytest.mark.parametrize(("name", "other"), [("model", "text"), ("alternatives", 3), ("categorized_at", "soon")])
def test_a_result_that_somebody_changed_is_inferred_again(shop: Shop, name: str, other: object) -> None:
    first, *_ = shop.categorize(EVENT)
    shop.view.apply(
        [Ranked("p", Rank(1, 0, 1, 2), json.dumps(json.loads(first[0].value or b"") | {name: other}).encode())]
    )
    _, model, *_ = shop.categorize(EVENT)
    assert model.batches == [["p"]]
