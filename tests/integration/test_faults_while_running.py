"""Faults while records are in flight: a topic that refuses one, a broker that is gone when the service ends."""

import json
import random
from datetime import datetime
from typing import Any

import pytest

from consumer.assignment import REST_S
from consumer.ending import COMMIT_S, LEAVE_S
from mmcat.cli.servers import LocalKafka
from tests.integration.conftest import Bench, MakeBench
from tests.support.broker import accept, committed, create_topics, random_topics, send
from tests.support.listings import Event, Kind, Mix, events
from tests.support.outcomes import check_outcomes, drained, read_stream

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SMALL = "1000"
SHUTDOWN_S = 1.0
EXIT_S = 5.0
"""For an interpreter on a busy machine to end after the service has."""


def _said(bench: Bench, event: str) -> list[dict[str, Any]]:
    lines = bench.service.log.read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


def test_a_dead_letter_that_is_not_taken_is_tried_once_a_second_and_holds_up_its_partition_alone(
    apache_kafka: str, make_bench: MakeBench
) -> None:
    names = random_topics()
    create_topics(apache_kafka, [names.input, names.output, names.review], 2)
    create_topics(apache_kafka, [names.dead_letter], 1, {"max.message.bytes": SMALL})
    bench = make_bench(apache_kafka, names, stub=True)
    noise = random.Random(1).randbytes(4_000)  # it stays as long when compressed
    sent = [*events(Mix(60, seed=1)), Event(Kind.BAD, b"bad", noise, {}), *events(Mix(60, seed=2))]
    send(apache_kafka, names.input, [(one.key, one.value, one.headers) for one in sent])
    with bench.service as service:
        service.until(lambda: len(_said(bench, "seek_back")) >= 4, "it is tried again")
        attempts = _said(bench, "seek_back")
        times = [datetime.fromisoformat(one["timestamp"]).timestamp() for one in attempts]
        assert times[-1] - times[0] >= (len(times) - 1) * REST_S - 0.05, "no hot loop"
        held = {(one["partition"], one["offset"]) for one in attempts}
        assert len({partition for partition, _ in held}) == 1
        partition, offset = max(held)
        named = json.loads(service.get("/readyz")[1])["missing"]["deliveries"]
        assert f"{partition} (from offset" in named
        assert committed(apache_kafka, bench.group, names.input)[partition] <= offset
        assert len(_said(bench, "delivery_failed")) <= len(_said(bench, "seek_back")) + 1
        other = 1 - partition
        service.until(
            lambda: committed(apache_kafka, bench.group, names.input)[other] > 0, "the other partition goes on"
        )
        accept(apache_kafka, names.dead_letter, 1_000_000)
        service.wait_ready()
        service.until(lambda: drained(apache_kafka, names, bench.group), "all is committed")
        assert service.terminate() == 0
    stream = read_stream(apache_kafka, names, sent)
    check_outcomes(stream, names, exactly_once=False)
    assert [one.value for one in stream.dead_letters] == [noise]


def test_it_ends_in_time_with_the_broker_gone_and_works_again_what_was_not_committed(
    apache_kafka: str, make_bench: MakeBench
) -> None:
    slow = {
        "MMCAT_SHUTDOWN_S": f"{SHUTDOWN_S}",
        "MMCAT_COMMIT_INTERVAL_S": "600",
        "MMCAT_TEST_MODEL_MS": "200",
        "MMCAT_BATCH__MAX_LISTINGS": "8",
    }
    with LocalKafka() as broker:
        names = random_topics()
        create_topics(broker.bootstrap, [names.input, names.output, names.review, names.dead_letter], 2)
        bench = make_bench(broker.bootstrap, names, stub=True, **slow)
        with bench.service as service:
            service.wait_ready()
            bench.send_and_wait(Mix(200, seed=3))
            service.until(lambda: service.metric("mmcat_listings_total", outcome="result"), "some work is finished")
            broker.kill()  # nothing is committed, and more is in flight
            assert service.terminate(within_s=SHUTDOWN_S + COMMIT_S + LEAVE_S + EXIT_S) == 0
        assert _said(bench, "drained")[0]["unfinished"] > 0
        assert _said(bench, "commit_failed"), "it waited for the broker's word"
        broker.start()
        with bench.service as service:
            service.until(lambda: service.metric("mmcat_listings_total", outcome="result") == 200, "all is worked")
            assert service.terminate() == 0
        assert drained(broker.bootstrap, names, bench.group)
        check_outcomes(read_stream(broker.bootstrap, names, events(Mix(200, seed=3))), names, exactly_once=False)
