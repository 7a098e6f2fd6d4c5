"""Replays in the test's own process, on a model without torch: settings, plans, what the view holds before."""

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from consumer.rank import Rank
from consumer.replay import Replay
from consumer.replay_plan import Plan, make_plan
from consumer.replay_range import Range
from consumer.settings import Settings
from consumer.spans import Bound
from consumer.view import Ranked, View
from mmcat.listing import Prepared, Result
from tests.support.broker import Record, TopicNames, send
from tests.support.outcomes import rank_of
from tests.support.stub_model import StubModel, accept


def replay_settings(bootstrap: str, topics: TopicNames, view_url: str, view_prefix: str, **more: Any) -> Settings:
    """Settings of a live service whose topics and view these are."""
    names = {name: getattr(topics, name) for name in ("input", "output", "review", "dead_letter", "retry_prefix")}
    kafka = {"bootstrap_servers": bootstrap, "group_id": f"live-{view_prefix}"}
    view = {"url": view_url, "prefix": view_prefix}
    return Settings.model_validate({"kafka": kafka, "topics": names, "view": view, "shutdown_s": 5, **more})


def a_range(settings: Settings, start: Bound | None = None, end: Bound | None = None) -> Range:
    """Of the input topic, the whole of it by default, under a group of its own."""
    return Range(settings.topics.input, start or Bound(), end or Bound(), f"replay-{uuid.uuid4().hex[:10]}")


def a_plan(settings: Settings, model: StubModel, wanted: Range | None = None, **options: Any) -> Plan:
    """Pin a range for the model."""
    return make_plan(settings, wanted or a_range(settings), model.info, **options)


def a_replay(settings: Settings, model: StubModel, wanted: Range | None = None, **options: Any) -> Replay:
    """A replay of a range, by a plan that is not kept."""
    return Replay(settings, model, a_plan(settings, model, wanted, **options))


def a_model(age: int, answer: Callable[[Prepared], Result] = accept) -> StubModel:
    """A model; the one with the higher age is the newer."""
    model = StubModel(answer)
    model.info = dataclasses.replace(model.info, created_ms=1_000 + age, fingerprint=f"{age:064x}")
    return model


def register(settings: Settings, *products: str, photos: str = "", title: str = "t") -> None:
    """Send one event about each product, in order; with a photo of its own where there is a host."""
    records: list[tuple[bytes | None, bytes | None, dict[str, bytes]]] = []
    for product in products:
        value = {"product_id": product, "title": title}
        if photos:
            value["image_url"] = f"{photos}/{product}.jpg"
        records.append((product.encode(), json.dumps(value).encode(), {}))
    send(settings.kafka.bootstrap_servers, settings.topics.input, records)


def fill_view(settings: Settings, records: Iterable[Record]) -> None:
    """Apply records of the output topic, as the view's writer does."""
    hold(settings, [Ranked((one.key or b"").decode(), Rank(*rank_of(one)), one.value) for one in records])


def hold(settings: Settings, records: Iterable[Ranked]) -> None:
    """Apply what the view should hold."""
    view = View(settings.view.url.get_secret_value(), settings.view.prefix, settings.view.marker_life_s)
    with closing(view):
        view.connect()
        view.apply(list(records))
