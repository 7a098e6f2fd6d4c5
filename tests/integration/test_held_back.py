"""Partitions that are held back, go silent, or bring down the device: nothing is lost, and somebody is told."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from prometheus_client import CollectorRegistry

from consumer.assignment import Assignment
from consumer.health import Health, HealthServer
from consumer.service import Service
from consumer.settings import Settings
from mmcat.cli import main
from mmcat.cli.servers import LocalKafka
from tests.integration.conftest import MakeBench
from tests.support.broker import (
    TopicNames,
    create_topics,
    random_topics,
    read_topic,
    reader,
    send,
)
from tests.support.listings import Event, Kind, Mix, events
from tests.support.outcomes import check_outcomes, drained, read_stream
from tests.support.stub_model import StubModel
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

BAD = 300


@pytest.fixture
def names(apache_kafka: str) -> TopicNames:
    """Topics of one partition."""
    found = random_topics()
    create_topics(apache_kafka, [found.input, found.output, found.review, found.dead_letter], 1)
    return found


def test_a_partition_of_bad_events_is_held_back_and_let_go_by_hand_and_nothing_is_lost(
    apache_kafka: str, names: TopicNames, make_bench: MakeBench, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = {
        "MMCAT_GUARD__WINDOW": "50",
        "MMCAT_GUARD__HOLD_S": "0",
        "MMCAT_GUARD__PROBES_PER_MINUTE": "60",
        "MMCAT_LIMITS__IN_FLIGHT_LISTINGS": "20",
    }
    bench = make_bench(apache_kafka, names, stub=True, **strict)
    bad = [Event(Kind.BAD, b"k%d" % number, b"not json %d" % number, {}) for number in range(BAD)]
    sent = [*bad, *events(Mix(60, seed=4))]
    send(apache_kafka, names.input, [(one.key, one.value, one.headers) for one in sent])
    with bench.service as service:
        service.until(lambda: service.metric("mmcat_guarded_partitions") == 1, "it is held back")
        missing = json.loads(service.get("/readyz")[1])["missing"]
        assert "partitions 0: 50% and more" in missing["guard"]
        assert "mmcat resume" in missing["guard"]
        before = len(read_topic(apache_kafka, names.dead_letter))
        assert 50 <= before < BAD
        service.until(
            lambda: len(read_topic(apache_kafka, names.dead_letter)) > before, "a probe is tried while it is held back"
        )
        url = f"http://127.0.0.1:{service.http_port}"

        def let_go() -> bool:
            assert main(["resume", "--url", url]) == 0
            assert capsys.readouterr().out in ("partitions 0 go on\n", "none was held back\n")
            return drained(apache_kafka, names, bench.group)

        service.until(let_go, "as often as it is let go it goes on, to the end")
        service.until(lambda: service.metric("mmcat_guarded_partitions") == 0, "nothing is held back")
        service.until(lambda: service.metric("mmcat_bottleneck", mmcat_bottleneck="none") == 1, "nothing holds it up")
        assert main(["top", "--url", url, "--json", "--every", "0.2"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["bottleneck"].startswith("no bottleneck")
        keys = {event.key.decode() for event in sent if event.key is not None}
        newest = [one["product_id"] for one in shown["last_results"]]
        assert len(newest) == 10
        assert set(newest) <= keys
        assert service.terminate() == 0
    check_outcomes(read_stream(apache_kafka, names, sent), names, exactly_once=True)


def test_a_command_to_nobody_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "--url", "http://127.0.0.1:1"]) == 1
    assert "no service answers at http://127.0.0.1:1" in capsys.readouterr().err
    assert main(["resume", "--url", "file:///etc/passwd"]) == 1
    assert "is not an address of a service" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [{}, [], "yes"])
def test_an_answer_that_is_none_of_ours_is_one_sentence(answer: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Something else listens there."""
    server = HealthServer(Health(1.0), CollectorRegistry(), "127.0.0.1", 0, commands={"/resume": lambda _: answer})
    url = f"http://127.0.0.1:{server.start()}"
    try:
        assert main(["resume", "--url", url]) == 1
    finally:
        server.stop()
    assert f"no service answers at {url}" in capsys.readouterr().err


def test_a_device_that_breaks_ends_the_process_and_no_listing_is_blamed(
    apache_kafka: str, names: TopicNames, make_bench: MakeBench
) -> None:
    sent = list(events(Mix(40, seed=5)))
    send(apache_kafka, names.input, [(one.key, one.value, one.headers) for one in sent])
    bench = make_bench(apache_kafka, names, stub=True, MMCAT_TEST_MODEL_BREAKS_ON="p5-30")
    with bench.service as service:
        assert service.wait() == 3
    said = bench.service.log.read_text(encoding="utf-8")
    assert "device-side assert" in said.splitlines()[-1]
    assert read_topic(apache_kafka, names.dead_letter) == []
    again = make_bench(apache_kafka, names, stub=True)
    with again.service as service:
        service.until(lambda: drained(apache_kafka, names, bench.group), "the next process answers all")
        assert service.terminate() == 0
    check_outcomes(read_stream(apache_kafka, names, sent), names, exactly_once=False)


# silence ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Deaf:
    """A consumer that can fall silent: nothing comes of it, and it says nothing."""

    silent = False

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        if self.silent:
            threading.Event().wait(timeout_s)
            return []
        return self._consumer.consume(count, timeout_s)


@pytest.fixture
def assignments(monkeypatch: pytest.MonkeyPatch) -> list[Assignment]:
    """Those that services of this test have made; their consumers can fall silent."""
    made: list[Assignment] = []

    def make(*given: Any, **named: Any) -> Assignment:
        made.append(Assignment(*given, **named))
        made[-1].consumer = cast(Consumer, Deaf(made[-1].consumer))
        return made[-1]

    monkeypatch.setattr("consumer.service.Assignment", make)
    return made


@pytest.fixture
def service(
    apache_kafka: str, names: TopicNames, group_id: str, assignments: list[Assignment]
) -> Iterator[tuple[Service, Callable[[], Assignment]]]:
    """A service in this process, and its assignment once it has a partition."""
    settings = Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": apache_kafka, "group_id": group_id},
            "topics": {name: getattr(names, name) for name in ("input", "output", "review", "dead_letter")},
            "view": {"enabled": False},
            "retry": {"delays": []},
            "http": {"port": 0},
            "commit_interval_s": 0.1,
            "watchdog_s": 2,
        }
    )
    found = Service(settings, StubModel())
    thread = threading.Thread(target=found.run)
    thread.start()

    def assigned() -> Assignment:
        eventually(lambda: not found.health.missing, "it is ready")
        return assignments[0]

    yield found, assigned
    found.stop()
    thread.join(60)
    assert not thread.is_alive()


def test_a_consumer_gone_silent_is_told_of_until_records_come_again(
    apache_kafka: str, names: TopicNames, service: tuple[Service, Callable[[], Assignment]]
) -> None:
    running, assigned = service
    consumer = cast(Deaf, assigned().consumer)
    told = running.metrics.registry.get_sample_value

    def results() -> float:
        return told("mmcat_listings_total", {"outcome": "result"}) or 0.0

    first, second = events(Mix(5, seed=1)), events(Mix(3, seed=2))
    send(apache_kafka, names.input, [(one.key, one.value, one.headers) for one in first])
    eventually(lambda: results() == 5, "they are categorized")
    consumer.silent = True
    send(apache_kafka, names.input, [(one.key, one.value, one.headers) for one in second])
    eventually(lambda: f"{names.input} 0 (3 behind)" in running.health.missing.get("silent", ""), "it is told")
    assert told("mmcat_silent_partitions") == 1
    assert results() == 5
    consumer.silent = False
    eventually(lambda: results() == 8, "they come")
    eventually(lambda: not running.health.missing, "it is ready again by itself")
    assert told("mmcat_silent_partitions") == 0


def test_a_partition_that_was_done_before_it_was_assigned_is_not_taken_for_silent(
    apache_kafka: str, names: TopicNames, group_id: str, request: pytest.FixtureRequest
) -> None:
    """Its client has read no record of it: only that it came to the end tells it from one gone silent."""
    send(apache_kafka, names.input, [(b"a", b"{}", {})] * 4)
    with reader(apache_kafka, **{"group.id": group_id}) as before:
        before.commit(offsets=[TopicPartition(names.input, 0, 4)], asynchronous=False)
    _, assigned = request.getfixturevalue("service")
    assignment = assigned()
    eventually(lambda: assignment.positions.get((names.input, 0)) == 4, "it knows that it has read to the end")


def test_a_partition_that_is_held_back_goes_on_after_its_broker_was_restarted(make_bench: MakeBench) -> None:
    names = random_topics()
    strict = {"MMCAT_GUARD__WINDOW": "50", "MMCAT_GUARD__HOLD_S": "0", "MMCAT_GUARD__PROBES_PER_MINUTE": "600"}
    with LocalKafka() as broker:
        create_topics(broker.bootstrap, [names.input, names.output, names.review, names.dead_letter], 1)
        bench = make_bench(broker.bootstrap, names, stub=True, **strict, MMCAT_LIMITS__IN_FLIGHT_LISTINGS="20")
        bad = [Event(Kind.BAD, b"k%d" % number, b"not json %d" % number, {}) for number in range(60)]
        sent = [*bad, *events(Mix(60, seed=6))]
        send(broker.bootstrap, names.input, [(one.key, one.value, one.headers) for one in sent])
        with bench.service as service:
            service.until(lambda: service.metric("mmcat_guarded_partitions") == 1, "it is held back")
            broker.kill()
            broker.start()
            service.until(lambda: drained(broker.bootstrap, names, bench.group), "its probes go on by themselves")
            assert service.terminate() == 0
        check_outcomes(read_stream(broker.bootstrap, names, sent), names, exactly_once=False)
