"""Order by version on real parts: deletions that say none take the order that their product has, however late the view.

Apache Kafka, Valkey, the service as a process; what went out is read back from the topic and the view.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from consumer.replay import Replay
from consumer.replay_plan import make_plan
from tests.integration.conftest import Bench, MakeBench
from tests.integration.test_exactly_once import EXACTLY_ONCE
from tests.support.broker import TopicNames, create_topics, end_offsets, random_topics, read_topic, reader, send
from tests.support.outcomes import drained, rank_of, view_of
from tests.support.replays import a_range, replay_settings
from tests.support.service import ServiceProcess
from tests.support.stub_model import StubModel

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BY_VERSION = {"MMCAT_ORDER_BY": "version", "MMCAT_COMMIT_INTERVAL_S": "0.1"}
MODES: dict[str, dict[str, str]] = {"at_least_once": {}, "exactly_once": EXACTLY_ONCE}


@pytest.fixture
def names(apache_kafka: str) -> TopicNames:
    """Topics of one partition, so that what is sent first stands first; with a delay topic."""
    found = random_topics()
    create_topics(
        apache_kafka,
        [found.input, found.output, found.review, found.dead_letter, f"{found.retry_prefix}.1s"],
        1,
        {"message.timestamp.type": "LogAppendTime"},
    )
    return found


def _registered(bench: Bench, product: str, version: int) -> None:
    value = json.dumps({"product_id": product, "title": "x", "version": version}).encode()
    send(bench.bootstrap, bench.topics.input, [(product.encode(), value, {})])


def _deleted(bench: Bench, product: str) -> None:
    send(bench.bootstrap, bench.topics.input, [(product.encode(), None, {})])


def _sent(bench: Bench, product: str) -> list[tuple[int, ...]]:
    """Order and authority of each record about a product; a repair repeats one of them, whenever it comes."""
    found = read_topic(bench.bootstrap, bench.topics.output)
    return [rank_of(one)[:2] for one in found if one.key == product.encode() and "mmcat-repair" not in one.headers]


def _view(bench: Bench, product: str) -> tuple[bytes | None, bytes | None]:
    return view_of(bench.view_url, bench.view_prefix, [product.encode()])[product.encode()]


@contextmanager
def _view_writer(bench: Bench) -> Iterator[ServiceProcess]:
    """The view is written by a process of its own."""
    folder = bench.service.folder / "writer"
    folder.mkdir(exist_ok=True)
    command = (sys.executable, "-m", "mmcat.cli", "cache-writer")
    with ServiceProcess(bench.service.env, folder, command) as writer:
        yield writer


@pytest.mark.parametrize("mode", MODES)
def test_a_deletion_without_a_version_takes_the_order_of_its_product(
    apache_kafka: str, names: TopicNames, make_bench: MakeBench, mode: str
) -> None:
    more = BY_VERSION | MODES[mode] | {"MMCAT_VIEW__ENABLED": "true", "MMCAT_RETRY__DELAYS": "1s"}
    bench = make_bench(apache_kafka, names, stub=True, **more)
    for version in (7, 9, 8):  # they come out of order
        _registered(bench, "gone", version)
    _deleted(bench, "gone")
    _registered(bench, "back", 3)
    _deleted(bench, "back")
    _registered(bench, "back", 4)
    _deleted(bench, "never seen")
    with bench.service as service:
        service.until(lambda: drained(apache_kafka, names, bench.group), "all is committed")
        service.until(lambda: _view(bench, "gone")[1] is None, "the view forgets it")
        service.until(lambda: (_view(bench, "back")[0] or b"").startswith(b"4,0,"), "the view has it again")
        assert service.terminate() == 0
    assert _sent(bench, "gone") == [(7, 0), (9, 0), (8, 0), (9, 2)]
    assert _sent(bench, "back") == [(3, 0), (3, 2), (4, 0)]
    assert _sent(bench, "never seen") == [(0, 2)]
    assert read_topic(apache_kafka, names.dead_letter) == []
    assert read_topic(apache_kafka, f"{names.retry_prefix}.1s") == []


@pytest.mark.parametrize("mode", MODES)
def test_what_another_process_wrote_counts_before_the_view_has_it(
    apache_kafka: str, names: TopicNames, make_bench: MakeBench, mode: str
) -> None:
    """With nobody writing the view the deletion is handed on, holds up nobody, and still comes to the right order."""
    alone = {"MMCAT_VIEW__ENABLED": "false", "MMCAT_RETRY__DELAYS": "1s", "MMCAT_PHOTO__DEADLINE_S": "0.5"}
    bench = make_bench(apache_kafka, names, stub=True, **(BY_VERSION | MODES[mode] | alone))
    with _view_writer(bench) as writer:
        _registered(bench, "gone", 5)
        _registered(bench, "back", 5)
        with bench.service as service:
            service.until(lambda: drained(apache_kafka, names, bench.group), "the first process has answered")
            writer.until(lambda: _view(bench, "gone")[0] and _view(bench, "back")[0], "the view has it")
            writer.kill()
            _registered(bench, "gone", 9)
            service.until(lambda: drained(apache_kafka, names, bench.group), "the view does not know of this")
            assert service.terminate() == 0
    _deleted(bench, "gone")
    _deleted(bench, "back")
    _registered(bench, "back", 6)
    with bench.service as service:
        service.until(lambda: drained(apache_kafka, names, bench.group), "the next process is not held up")
        assert _sent(bench, "gone") == [(5, 0), (9, 0)], "nobody says yet which order it has"
        with _view_writer(bench):
            service.until(lambda: _sent(bench, "gone")[-1] == (9, 2), "it is deleted, by what is in the topic")
            service.until(lambda: _view(bench, "gone")[1] is None, "in the view too")
            retried = end_offsets(apache_kafka, f"{names.retry_prefix}.1s")
            service.until(lambda: service.metric("mmcat_listings_total", outcome="superseded") == 1, "the other is not")
        assert service.terminate() == 0
    assert sum(retried.values()) >= 2
    assert _sent(bench, "back") == [(5, 0), (6, 0)]
    assert (_view(bench, "back")[0] or b"").startswith(b"6,0,")


def test_worked_again_it_does_not_delete_what_was_registered_after_it(
    apache_kafka: str, names: TopicNames, make_bench: MakeBench, valkey_url: str, view_prefix: str
) -> None:
    bench = make_bench(apache_kafka, names, stub=True, **BY_VERSION)
    _registered(bench, "p", 3)
    _deleted(bench, "p")
    _registered(bench, "p", 4)
    _registered(bench, "q", 3)
    _deleted(bench, "q")
    for _ in range(2):
        with bench.service as service:
            service.until(lambda: drained(apache_kafka, names, bench.group), "all is committed")
            service.until(lambda: (_view(bench, "p")[0] or b"").startswith(b"4,0,"), "the view has it")
            assert service.terminate() == 0
        with reader(apache_kafka, **{"group.id": bench.group}) as group:  # as if nothing had been committed
            group.commit(offsets=[TopicPartition(names.input, 0, 0)], asynchronous=False)
    assert _sent(bench, "p")[:3] == [(3, 0), (3, 2), (4, 0)]
    assert (_view(bench, "p")[0] or b"").startswith(b"4,0,")
    settings = replay_settings(apache_kafka, names, valkey_url, view_prefix).model_copy(update={"order_by": "version"})
    model = StubModel()
    summary: dict[str, Any] = Replay(settings, model, make_plan(settings, a_range(settings), model.info)).run().outcomes
    assert summary["dead_letter"] == 0
    assert _sent(bench, "q")[-1] == (3, 2)
    assert _sent(bench, "p")[-1] == (4, 0)
