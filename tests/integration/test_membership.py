"""Static membership: an instance that comes back finds its partitions, and nobody else is disturbed."""

import json
from typing import cast

import pytest

from tests.integration.conftest import Bench, MakeBench
from tests.support.broker import TopicNames, reader
from tests.support.listings import Mix, events
from tests.support.outcomes import check_outcomes, drained, read_stream
from tests.support.service import ServiceProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STATIC = {"MMCAT_VIEW__ENABLED": "false", "MMCAT_KAFKA__SESSION_TIMEOUT_MS": "9000"}
"""A session longer than a restart takes here; so long a fenced member waits before it ends."""


def _held(service: ServiceProcess) -> list[dict[str, object]]:
    """Every change of what is held, in the order in which it was said."""
    lines = map(json.loads, service.log.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["event"] in ("assigned", "revoked", "lost") and line["partitions"]]


def _now(service: ServiceProcess) -> list[int]:
    held: set[int] = set()
    for line in _held(service):
        given = {int(str(one)) for one in cast(list[int], line["partitions"])}
        held = held | given if line["event"] == "assigned" else held - given
    return sorted(held)


def test_an_instance_that_comes_back_finds_its_partitions_and_a_second_of_its_name_fences_it(
    apache_kafka: str, topics: TopicNames, make_bench: MakeBench
) -> None:
    def bench(name: str) -> Bench:
        made = make_bench(apache_kafka, topics, stub=True, **STATIC, MMCAT_KAFKA__INSTANCE_ID=name)
        made.service.folder = made.service.folder / name
        made.service.folder.mkdir(exist_ok=True)
        return made

    stays, returns, double = bench("stays"), bench("returns"), bench("returns")
    mix = Mix(120, seed=31)
    with stays.service, returns.service:
        stays.service.wait_ready()
        returns.service.wait_ready()
        stays.service.until(
            lambda: sorted(_now(stays.service) + _now(returns.service)) == [0, 1, 2] and _now(returns.service),
            "both have their share",
        )
        kept, theirs = _held(stays.service), _now(returns.service)
        assert returns.service.terminate() == 0
        returns.service.start()
        returns.service.wait_ready()
        assert _now(returns.service) == theirs
        assert _held(stays.service) == kept, "the one that stayed saw nothing of it"
        with double.service:
            double.service.wait_ready()
            assert returns.service.wait() == 3
            stays.send_and_wait(mix)
            double.service.until(lambda: drained(apache_kafka, topics, stays.group), "all is committed")
            assert double.service.terminate() == 0
        assert _held(stays.service) == kept
        assert stays.service.terminate() == 0
    said = returns.service.log.read_text(encoding="utf-8")
    assert "another process has joined the group under our kafka.instance_id: stop one of the two" in said
    check_outcomes(read_stream(apache_kafka, topics, events(mix)), topics, exactly_once=True)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_an_instance_that_was_fenced_by_its_own_shadow_joins_again(
    delivery: str, apache_kafka: str, topics: TopicNames, make_bench: MakeBench
) -> None:
    """As librdkafka leaves one where its broker goes away before it says that we joined: a client of the test joins
    under our name and is never heard of again."""
    settings = {"MMCAT_KAFKA__SESSION_TIMEOUT_MS": "6000", "MMCAT_KAFKA__INSTANCE_ID": "alone"}
    bench = make_bench(apache_kafka, topics, stub=True, **settings, MMCAT_DELIVERY=delivery)
    mix, given = Mix(60, seed=32), list[object]()
    with bench.service:
        bench.service.wait_ready()
        shadow: dict[str, str | int] = {
            "group.id": bench.group,
            "group.instance.id": "alone",
            "session.timeout.ms": 6_000,
        }
        with reader(apache_kafka, **shadow, **{"partition.assignment.strategy": "cooperative-sticky"}) as itself:
            itself.subscribe([topics.input], on_assign=lambda _, partitions: given.extend(partitions))
            eventually(lambda: itself.poll(0.05) is not None or given, "it joins in our place")
        if delivery == "at_least_once":  # what it would publish before it notices the fence it would publish again
            bench.service.until(lambda: "joined_again" in bench.service.log.read_text("utf-8"), "it joins again")
        bench.send_and_wait(mix)
        bench.service.until(lambda: drained(apache_kafka, topics, bench.group), "all is committed")
        assert bench.service.terminate() == 0
    assert "joined_again" in bench.service.log.read_text(encoding="utf-8")
    check_outcomes(read_stream(apache_kafka, topics, events(mix)), topics, exactly_once=True)
