"""Exactly once on a real broker: what a reader of committed records sees, whatever happens to those who write them."""

import json

import pytest

from tests.integration.conftest import Bench, MakeBench
from tests.support.broker import TopicNames, read_topic
from tests.support.listings import Mix, events
from tests.support.outcomes import (
    check_last_is_newest,
    check_outcomes,
    check_ranks,
    drained,
    read_stream,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXACTLY_ONCE = {
    "MMCAT_DELIVERY": "exactly_once",
    "MMCAT_KAFKA__INSTANCE_ID": "one",
    "MMCAT_COMMIT_INTERVAL_S": "0.1",
    "MMCAT_VIEW__ENABLED": "false",
}
SLOW = {"MMCAT_LIMITS__IN_FLIGHT_LISTINGS": "100", "MMCAT_TEST_MODEL_MS": "100"}
DRAIN_S = 120.0


@pytest.fixture
def bench(apache_kafka: str, topics: TopicNames, make_bench: MakeBench) -> Bench:
    """A service that commits a transaction every 100 ms, and can be caught in the middle."""
    return make_bench(apache_kafka, topics, stub=True, **EXACTLY_ONCE, **SLOW)


def _said(bench: Bench, event: str) -> list[dict[str, object]]:
    lines = bench.service.log.read_text(encoding="utf-8").splitlines() if bench.service.log.exists() else []
    return [line for line in map(json.loads, lines) if line["event"] == event]


def _outcomes(bench: Bench) -> int:
    """As a reader of committed records counts them."""
    return len(read_topic(bench.bootstrap, bench.topics.output))


def test_killed_again_and_again_every_outcome_is_there_once(bench: Bench) -> None:
    mix = Mix(600, updates=150, deletions=10, bad=9, photos=bench.photos, seed=21)
    bench.send_and_wait(mix)
    with bench.service as service:
        for kill in range(3):
            service.until(lambda so_far=150 * kill: _outcomes(bench) > so_far, "it goes on", DRAIN_S)  # type: ignore[misc]
            service.kill()
            service.start()
        service.until(lambda: drained(bench.bootstrap, bench.topics, bench.group), "all is committed", DRAIN_S)
        assert service.terminate() == 0
    stream = read_stream(bench.bootstrap, bench.topics, events(mix))
    check_outcomes(stream, bench.topics, exactly_once=True)
    check_ranks(stream)
    check_last_is_newest(stream)
