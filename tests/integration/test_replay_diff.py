"""`--diff` says what a replay would change: exactly what the replay then changes, and nothing is written for it."""

import dataclasses
import json
from collections.abc import Callable
from hashlib import blake2b

import pytest
import redis

from consumer.rank import Rank
from consumer.replay import Replay
from consumer.replay_diff import Answer, Change, Changes, Kind
from consumer.settings import Settings
from consumer.view import Ranked
from mmcat.listing import PathNode, Prepared, Result
from tests.support.broker import TopicNames, committed, end_offsets, read_topic, send
from tests.support.outcomes import last_per_key
from tests.support.replays import a_model, a_plan, a_replay, fill_view, hold, register, replay_settings
from tests.support.stub_model import accept

pytestmark = pytest.mark.integration
PRODUCTS = [f"p{number}" for number in range(40)]


@pytest.fixture
def settings(apache_kafka: str, topics: TopicNames, valkey_url: str, view_prefix: str) -> Settings:
    return replay_settings(apache_kafka, topics, valkey_url, view_prefix)


def _by_lot(seed: int) -> Callable[[Prepared], Result]:
    """A path of one to three levels for each product, another with another seed for most."""

    def answer(prepared: Prepared) -> Result:
        drawn = blake2b(f"{prepared.listing_id} {seed}".encode()).digest()
        ids = [str(byte % 2) for byte in drawn[: 1 + drawn[3] % 3]]
        path = tuple(PathNode(level, one, f"name {one}", 0.9) for level, one in enumerate(ids, 1))
        return dataclasses.replace(accept(prepared), path=path)

    return answer


def _view(settings: Settings) -> dict[bytes, dict[bytes, bytes]]:
    with redis.Redis.from_url(settings.view.url.get_secret_value()) as client:
        return {key: client.hgetall(key) for key in client.scan_iter(f"{settings.view.prefix}:*")}


def _ids(value: bytes | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(node["id"] for node in json.loads(value)["path"])


def _prepare(settings: Settings) -> None:
    """Answers of an old model in the view; some products unknown to it, updated in it, or deleted after it."""
    register(settings, *PRODUCTS)
    a_replay(settings, a_model(1, _by_lot(1))).run()
    answered = read_topic(settings.kafka.bootstrap_servers, settings.topics.output)
    unknown = {product.encode() for product in PRODUCTS[:5]}
    fill_view(settings, [one for one in answered if one.key not in unknown])
    hold(settings, [Ranked(product, Rank(2**50, 0, 1, 2), b"{}") for product in PRODUCTS[5:8]])
    deletions: list[tuple[bytes | None, bytes | None, dict[str, bytes]]]
    deletions = [(product.encode(), None, {}) for product in PRODUCTS[8:11]]
    send(settings.kafka.bootstrap_servers, settings.topics.input, deletions)


def test_it_says_what_the_replay_then_changes_and_writes_nothing(settings: Settings) -> None:
    bootstrap, topics = settings.kafka.bootstrap_servers, settings.topics
    _prepare(settings)
    model = a_model(2, _by_lot(2))
    plan = a_plan(settings, model)
    names = (topics.input, topics.output, topics.review, topics.dead_letter)
    before, view = {name: end_offsets(bootstrap, name) for name in names}, _view(settings)

    found: list[Change] = []
    changes = Changes(found.append)
    foretold = Replay(settings, model, plan, compare=changes.add).run()
    assert {name: end_offsets(bootstrap, name) for name in names} == before
    assert set(committed(bootstrap, plan.group, topics.input).values()) == {-1001}
    assert _view(settings) == view

    done = Replay(settings, model, plan).run()
    assert (foretold.outcomes, foretold.superseded) == (done.outcomes, done.superseded)
    written = [
        one for one in read_topic(bootstrap, topics.output) if one.offset >= before[topics.output][one.partition]
    ]
    held = {key: view.get(f"{settings.view.prefix}:product:{{{key}}}".encode(), {}) for key in PRODUCTS}
    pairs = {
        key.decode(): (_ids(held[key.decode()].get(b"result")), _ids(last.value))
        for key, last in last_per_key(written).items()
    }
    told = {one.product_id: tuple(side and side.ids for side in (one.old, one.new)) for one in found}
    assert told == {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    sums = changes.summary()
    assert sums["compared"] == len(pairs) == 37
    assert (sums["new"], sums["deleted"], sums["same"]) == (5, 3, len(pairs) - len(told))
    assert sums["changed"] == len(told) - 8
    mains = [(old, new) for old, new in pairs.values() if old and new]
    assert sums["levels"][0] == {
        "level": 1,
        "compared": len(mains),
        "changed": (moved := sum(old[:1] != new[:1] for old, new in mains)),
        "share": round(moved / len(mains), 4),
    }
    assert sum(one["answers"] for one in sums["categories"]) == len(told)


def test_a_sample_is_some_of_the_same_changes(settings: Settings) -> None:
    _prepare(settings)
    model = a_model(2, _by_lot(2))
    plan = a_plan(settings, model)
    every: dict[str, tuple[Kind, Answer | None]] = {}
    some: dict[str, tuple[Kind, Answer | None]] = {}
    whole = Changes(lambda one: every.update({one.product_id: (one.kind, one.new)}))
    part = Changes(lambda one: some.update({one.product_id: (one.kind, one.new)}))
    Replay(settings, model, plan, compare=whole.add).run()
    model.batches.clear()
    Replay(settings, model, plan, compare=part.add, sample=15).run()
    assert 5 <= part.summary()["compared"] <= 25
    assert sum(map(len, model.batches)) <= part.summary()["compared"]
    assert some.items() <= every.items()
