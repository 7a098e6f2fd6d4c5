"""Exactly once on a real broker: what a reader of committed records sees, whatever happens to those who write them."""

import json
import random
import signal
import threading
from urllib.parse import urlsplit

import pytest

from tests.integration.conftest import Bench, MakeBench
from tests.support.broker import (
    TopicNames,
    accept,
    committed,
    create_topics,
    end_offsets,
    random_topics,
    read_topic,
    send,
)
from tests.support.listings import Event, Kind, Mix, events
from tests.support.outcomes import (
    check_last_is_newest,
    check_outcomes,
    check_ranks,
    drained,
    origin_of,
    read_stream,
)
from training.shop.photo_host import PhotoHost

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


def test_what_is_done_past_a_gap_is_seen_when_the_gap_is_closed(apache_kafka: str, make_bench: MakeBench) -> None:
    released = threading.Event()

    def photo(_: str) -> bytes:
        released.wait(60)
        return b"no photo at all"

    names = random_topics()
    create_topics(apache_kafka, [names.input, names.output, names.review, names.dead_letter], 1)
    with PhotoHost(photo) as host:
        port = str(urlsplit(host.base_url).port)
        patient = {"MMCAT_PHOTO__DEADLINE_S": "60", "MMCAT_PHOTO__PORTS": port}
        bench = make_bench(apache_kafka, names, stub=True, **EXACTLY_ONCE, **patient)
        values = [{"product_id": f"p{number}", "title": "x"} for number in range(30)]
        values[10]["image_url"] = f"{host.base_url}/1.jpg"
        send(apache_kafka, names.input, [(one["product_id"].encode(), json.dumps(one).encode(), {}) for one in values])
        with bench.service as service:
            service.until(
                lambda: sum(int(str(one["listings"])) for one in _said(bench, "batch")) == 29, "29 are worked"
            )
            service.until(lambda: _outcomes(bench) == 10, "those before the gap are seen")
            service.until(lambda: committed(apache_kafka, bench.group, names.input) == {0: 10}, "and committed")
            assert _outcomes(bench) == 10, "nothing past the gap is seen"
            released.set()
            service.until(lambda: _outcomes(bench) == 30, "all are seen")
            assert service.terminate() == 0
    origins = [origin_of(one) for one in read_topic(apache_kafka, names.output)]
    assert origins == sorted(origins), "in the order of the partition"
    assert committed(apache_kafka, bench.group, names.input) == {0: 30}


def test_after_an_abort_the_partition_is_read_again_and_others_go_on(apache_kafka: str, make_bench: MakeBench) -> None:
    names = random_topics()
    create_topics(apache_kafka, [names.input, names.output, names.review], 2)
    create_topics(apache_kafka, [names.dead_letter], 1, {"max.message.bytes": "1000"})
    bench = make_bench(apache_kafka, names, stub=True, **EXACTLY_ONCE)
    noise = random.Random(1).randbytes(4_000)  # it stays as long when compressed
    before, after = list(events(Mix(60, seed=1))), list(events(Mix(60, seed=2)))
    sent = [*before, Event(Kind.BAD, b"bad", noise, {}), *after]
    send(apache_kafka, names.input, [(one.key, one.value, one.headers) for one in sent])
    with bench.service as service:
        service.until(lambda: len(_said(bench, "record_refused")) >= 3, "it is tried again")
        refused = {int(str(one["partition"])) for one in _said(bench, "record_refused")}
        assert len(refused) == 1
        [bad] = refused
        ends = end_offsets(apache_kafka, names.input)
        service.until(
            lambda: committed(apache_kafka, bench.group, names.input)[1 - bad] == ends[1 - bad], "the other one ends"
        )
        assert f"partitions {bad} (from offset" in json.loads(service.get("/readyz")[1])["missing"]["deliveries"]
        accept(apache_kafka, names.dead_letter, 1_000_000)
        service.wait_ready()
        service.until(lambda: drained(apache_kafka, names, bench.group), "all is committed")
        assert service.terminate() == 0
    stream = read_stream(apache_kafka, names, sent)
    check_outcomes(stream, names, exactly_once=True)
    assert [one.value for one in stream.dead_letters] == [noise]


def test_a_zombie_whose_successor_works_already_is_fenced_and_stops(
    bench: Bench, apache_kafka: str, topics: TopicNames, make_bench: MakeBench
) -> None:
    mix = Mix(400, updates=100, deletions=5, bad=5, photos=bench.photos, seed=22)
    bench.send_and_wait(mix)
    zombie = bench.service
    with zombie:
        zombie.until(lambda: _outcomes(bench) > 50, "some work is committed")
        zombie.process.send_signal(signal.SIGSTOP)
        with make_bench(apache_kafka, topics, stub=True, **EXACTLY_ONCE, **SLOW).service as successor:
            successor.until(lambda: drained(apache_kafka, topics, bench.group), "the successor does the rest", DRAIN_S)
            zombie.process.send_signal(signal.SIGCONT)
            assert zombie.wait() == 3
            assert successor.terminate() == 0
    said = [line for line in zombie.log.read_text(encoding="utf-8").splitlines() if "another process has" in line]
    assert any("stop one of the two" in line for line in said), said
    stream = read_stream(apache_kafka, topics, events(mix))
    check_outcomes(stream, topics, exactly_once=True)
    check_last_is_newest(stream)


def test_a_broker_that_does_not_keep_transactions_is_refused_with_one_sentence(
    tansu: str, make_bench: MakeBench
) -> None:
    names = random_topics()
    create_topics(tansu, [names.input, names.output, names.review, names.dead_letter], 1)
    bench = make_bench(tansu, names, stub=True, **EXACTLY_ONCE)
    with bench.service as service:
        assert service.wait() == 1
    said = service.log.read_text(encoding="utf-8")
    assert "does not keep what a transaction commits" in said
    assert "Traceback" not in said


def test_two_members_of_the_newer_protocol_share_the_work_and_one_leaves(
    apache_kafka: str, topics: TopicNames, make_bench: MakeBench
) -> None:
    newer = {
        "MMCAT_KAFKA__GROUP_PROTOCOL": "consumer",
        "MMCAT_KAFKA__SESSION_TIMEOUT_MS": "",
        "MMCAT_KAFKA__HEARTBEAT_INTERVAL_MS": "",
    }
    one = make_bench(apache_kafka, topics, stub=True, **EXACTLY_ONCE, **SLOW, **newer)
    two = make_bench(
        apache_kafka, topics, stub=True, **{**EXACTLY_ONCE, "MMCAT_KAFKA__INSTANCE_ID": "two"}, **SLOW, **newer
    )
    mix = Mix(600, updates=150, deletions=10, bad=9, photos=one.photos, seed=23)
    with one.service, two.service:
        one.service.wait_ready()
        two.service.wait_ready()
        one.send_and_wait(mix)
        worked = "mmcat_listings_total"
        one.service.until(lambda: one.service.metric(worked) and two.service.metric(worked), "both work")
        two.service.until(lambda: _outcomes(one) > 100, "some is done")
        assert one.service.terminate() == 0
        two.service.until(lambda: drained(apache_kafka, topics, one.group), "the other one does the rest", DRAIN_S)
        assert two.service.terminate() == 0
    stream = read_stream(apache_kafka, topics, events(mix))
    check_outcomes(stream, topics, exactly_once=True)
    check_last_is_newest(stream)
