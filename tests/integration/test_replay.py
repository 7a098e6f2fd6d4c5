"""Replay beside what is live: all of the range and no more, nothing over what is newer, on from where it stopped."""

import json
import subprocess
import sys
import threading
import uuid
from collections import Counter
from contextlib import closing

import pytest
from confluent_kafka import Producer

from consumer.errors import ConfigError
from consumer.rank import Rank
from consumer.replay import Replay
from consumer.replay_plan import Summary, make_plan
from consumer.replay_range import Range
from consumer.settings import Settings
from consumer.spans import Bound
from consumer.view import Ranked, View
from mmcat.cli.processes import free_port
from mmcat.cli.servers import LocalValkey
from tests.integration.conftest import Bench, MakeBench
from tests.support.broker import DEADLINE_S, TopicNames, committed, end_offsets, read_topic, send
from tests.support.listings import Event, Kind, Mix, events
from tests.support.outcomes import check_ranks, origin_of, rank_of, read_stream, wait_for_view
from tests.support.replays import a_range, a_replay, replay_settings
from tests.support.stub_model import StubModel
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(apache_kafka: str, topics: TopicNames, valkey_url: str, view_prefix: str) -> Settings:
    return replay_settings(apache_kafka, topics, valkey_url, view_prefix)


def _send(settings: Settings, mix: Mix) -> list[Event]:
    sent = list(events(mix))
    send(settings.kafka.bootstrap_servers, settings.topics.input, [(one.key, one.value, one.headers) for one in sent])
    return sent


def _in_thread(replay: Replay) -> tuple[threading.Thread, list[Summary]]:
    done: list[Summary] = []
    thread = threading.Thread(target=lambda: done.append(replay.run()))
    thread.start()
    return thread, done


def test_whole_range_has_its_outcomes_and_its_group_the_end(settings: Settings, topics: TopicNames) -> None:
    sent = _send(settings, Mix(60, updates=10, deletions=3, bad=5))
    wanted, told = a_range(settings), list[tuple[int, int]]()
    model = StubModel()
    plan = make_plan(settings, wanted, model.info)
    done = Replay(settings, model, plan, on_progress=lambda _, now, most: told.append((now, most))).run()
    last = {one.key: one.kind for one in sent if one.kind is not Kind.BAD}  # earlier ones of a product need no work
    kinds = Counter(last.values())
    expected = {"result": kinds[Kind.LISTING], "tombstone": kinds[Kind.DELETION], "dead_letter": 5}
    assert (done.complete, done.outcomes) == (True, {**expected, "superseded": 63 - len(last)})
    assert sum(map(len, model.batches)) == kinds[Kind.LISTING]
    bootstrap = settings.kafka.bootstrap_servers
    assert committed(bootstrap, wanted.group_id, topics.input) == end_offsets(bootstrap, topics.input)
    assert told[-1] == (68, 68)
    check_ranks(read_stream(bootstrap, topics, sent))


def test_it_ends_where_nothing_stands_at_the_end(settings: Settings, topics: TopicNames) -> None:
    _send(settings, Mix(6))
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(DEADLINE_S)
    for partition in range(3):
        producer.begin_transaction()
        producer.produce(topics.input, b'{"product_id": "aborted", "title": "t"}', b"aborted", partition)
        producer.flush(DEADLINE_S)
        producer.abort_transaction(DEADLINE_S)
    wanted = a_range(settings)
    done = a_replay(settings, StubModel(), wanted).run()
    assert (done.complete, done.outcomes["result"]) == (True, 6)
    ends = end_offsets(settings.kafka.bootstrap_servers, topics.input)
    assert sum(ends.values()) == 6 + 3 * 2
    assert committed(settings.kafka.bootstrap_servers, wanted.group_id, topics.input) == ends


def test_what_lies_outside_the_range_is_left_alone(settings: Settings, topics: TopicNames) -> None:
    _send(settings, Mix(60))
    done = a_replay(settings, StubModel(), a_range(settings, Bound(offset=3), Bound(offset=9))).run()
    written = read_topic(settings.kafka.bootstrap_servers, topics.output)
    origins = sorted(origin_of(one) for one in written)
    assert origins == [(partition, offset) for partition in range(3) for offset in range(3, 9)]
    assert done.outcomes["result"] == 18
    assert {json.loads(one.value or b"")["attempt"] for one in written} == {1}


def test_live_answers_are_not_overwritten(settings: Settings, topics: TopicNames) -> None:
    sent = _send(settings, Mix(20))
    records = read_topic(settings.kafka.bootstrap_servers, topics.input)
    time_of = {(one.key or b"").decode(): one.timestamp_ms for one in records}
    held = [(one.key or b"").decode() for one in sent]
    newer_event, deleted, newer_model, older_model = held[:4], held[4:8], held[8:12], held[12:16]
    generation = StubModel().info.created_ms
    view = View(settings.view.url.get_secret_value(), settings.view.prefix, 3600)
    with closing(view):
        view.connect()
        view.apply([Ranked(one, Rank(time_of[one] + 1, 0, generation, 2), b"{}") for one in newer_event])
        view.apply([Ranked(one, Rank(time_of[one] + 1, 2, generation, 0), None) for one in deleted])
        view.apply([Ranked(one, Rank(time_of[one], 0, generation + 1, 2), b"{}") for one in newer_model])
        view.apply([Ranked(one, Rank(time_of[one], 0, generation - 1, 2), b"{}") for one in older_model])
        view.apply(
            [Ranked(one, Rank(time_of[one], 0, generation, 2), b"{}") for one in held[16:18]]
        )  # equal: later wins
    done = a_replay(settings, StubModel(), a_range(settings)).run()
    assert done.outcomes == {"result": 8, "tombstone": 0, "dead_letter": 0, "superseded": 12}
    written = {(one.key or b"").decode() for one in read_topic(settings.kafka.bootstrap_servers, topics.output)}
    assert written == set(held[12:])


def test_it_waits_while_the_view_is_away(apache_kafka: str, topics: TopicNames, view_prefix: str) -> None:
    cache = LocalValkey(port=free_port())
    settings = replay_settings(apache_kafka, topics, cache.url, view_prefix)
    _send(settings, Mix(10))
    replay = a_replay(settings, StubModel(), a_range(settings))
    thread, done = _in_thread(replay)
    eventually(lambda: replay.waiting, "it asks for the view")
    assert read_topic(apache_kafka, topics.output) == []
    with cache:
        thread.join(DEADLINE_S)
    assert done[0].outcomes["result"] == 10


def test_stopped_without_a_view_it_has_published_and_committed_nothing(
    apache_kafka: str, topics: TopicNames, view_prefix: str
) -> None:
    settings = replay_settings(apache_kafka, topics, f"redis://127.0.0.1:{free_port()}/0", view_prefix)
    settings = settings.model_copy(update={"shutdown_s": 0.5})
    _send(settings, Mix(10))
    wanted = a_range(settings)
    replay = a_replay(settings, StubModel(), wanted)
    thread, done = _in_thread(replay)
    eventually(lambda: replay.waiting, "it asks for the view")
    replay.stop()
    thread.join(DEADLINE_S)
    assert not done[0].complete
    assert sum(done[0].outcomes.values()) == 0
    assert read_topic(apache_kafka, topics.output) == []
    assert all(offset <= 0 for offset in committed(apache_kafka, wanted.group_id, topics.input).values())


def test_stopped_in_the_middle_it_goes_on_under_its_group(settings: Settings, topics: TopicNames) -> None:
    _send(settings, Mix(200))
    wanted = a_range(settings)
    first = a_replay(settings, StubModel(), wanted, rate=100)
    thread, done = _in_thread(first)
    bootstrap = settings.kafka.bootstrap_servers
    eventually(lambda: sum(end_offsets(bootstrap, topics.output).values()) > 20, "some work is done")
    first.stop()
    thread.join(DEADLINE_S)
    rest = a_replay(settings, StubModel(), wanted).run()
    assert (done[0].complete, rest.complete) == (False, True)
    assert 20 < done[0].outcomes["result"] < 200
    assert done[0].outcomes["result"] + rest.outcomes["result"] == 200
    assert len({origin_of(one) for one in read_topic(bootstrap, topics.output)}) == 200
    assert a_replay(settings, StubModel(), wanted).run().outcomes["result"] == 0


def test_our_own_topics_and_groups_are_refused(settings: Settings) -> None:
    names = settings.topics
    refused = {
        (names.output, "replay"): "is written by the service: replay the topic of its events",
        (f"{names.retry_prefix}.30s", "replay"): "is written by the service: replay the topic of its events",
        (names.dead_letter, "replay"): "holds dead letters: they have a command of their own, mmcat dead-letter replay",
        (names.input, settings.kafka.group_id): "belongs to the live service",
    }
    for (topic, group), sentence in refused.items():
        with pytest.raises(ConfigError, match=sentence):
            a_replay(settings, StubModel(), Range(topic, Bound(), Bound(), group))


def _command(bench: Bench, *words: str, **more: str) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.support.stub_service", "replay", "--json", *words]
    env = {**bench.service.whole_env(), **more}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_newer_model_replays_beside_the_live_service(
    apache_kafka: str, topics: TopicNames, make_bench: MakeBench
) -> None:
    bench = make_bench(apache_kafka, topics, stub=True, MMCAT_TEST_MODEL_GENERATION="1000")
    first, second = Mix(150, updates=40, deletions=5, seed=1), Mix(50, seed=2)
    bench.send_and_wait(first)
    with bench.service as service:
        service.wait_ready()
        service.until(lambda: sum(end_offsets(apache_kafka, topics.output).values()) >= 155, "live work is done")
        wait_for_view(read_stream(apache_kafka, topics, []), bench.view_url, bench.view_prefix)
        ends = end_offsets(apache_kafka, topics.output)
        tried = _command(bench, "--dry-run")
        assert tried["records_at_most"] == 155
        assert end_offsets(apache_kafka, topics.output) == ends
        older = _command(bench, MMCAT_TEST_MODEL_GENERATION="999")
        assert older["outcomes"] == {"result": 0, "tombstone": 0, "dead_letter": 0, "superseded": 155}
        assert end_offsets(apache_kafka, topics.output) == ends
        sender = bench.send(second)  # live work goes on meanwhile
        newer = _command(bench, MMCAT_TEST_MODEL_GENERATION="1001")
        assert sender.wait(60) == 0
        service.until(
            lambda: len({origin_of(one) for one in read_topic(apache_kafka, topics.output)}) == 205, "all is answered"
        )
        stream = read_stream(apache_kafka, topics, [*events(first), *events(second)])
        wait_for_view(stream, bench.view_url, bench.view_prefix)
        assert service.terminate() == 0
    assert newer["complete"] is True
    check_ranks(stream)
    replayed = [one for one in stream.output if rank_of(one)[2] == 1001]
    assert len({one.key for one in replayed}) >= 100
