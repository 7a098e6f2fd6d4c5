"""The view writer on a real broker and a real Valkey: the view equals the topic, whatever happens to either."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from mmcat.cli.servers import LocalValkey
from tests.support.broker import TopicNames, committed, create_topics, reader, send
from tests.support.view_bench import Sent, batch, ends_of, running, settings_for, shown, up, winners, written
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalValkey]:
    """A Valkey of the test's own, to be stopped, emptied and spoiled."""
    with LocalValkey(logs=tmp_path) as valkey:
        yield valkey


def reached(positions: dict[int, int], ends: dict[int, int]) -> bool:
    return all(positions.get(partition, -1) >= end for partition, end in ends.items())


def test_view_equals_the_topic_and_counts_what_it_cannot_read(
    kafka: str, topics: TopicNames, valkey_url: str, view_prefix: str, group_id: str
) -> None:
    plain = topics.review  # a compacted topic would not take a record without a key
    unreadable: list[Sent] = [
        (b"p1", b"no rank", {}),
        (b"p1", b"bad rank", {"mmcat-rank": b"1,2,3"}),
        (b"p1", b"bad rank", {"mmcat-rank": b"\xff"}),
        (b"p1", b"rank past 2**53", {"mmcat-rank": b"9007199254740992,0,0,0"}),
        (None, b"no key", {"mmcat-rank": b"1,0,0,0"}),
        (b"\xff\xfe", b"key is not text", {"mmcat-rank": b"1,0,0,0"}),
    ]
    sent = [*batch(0, 700), *unreadable, *batch(700, 700)]
    send(kafka, plain, sent)
    with running(settings_for(kafka, plain, valkey_url, group_id, view_prefix)) as (writer, metrics):
        assert writer.wait_until(ends_of(kafka, plain), 30)
        assert shown(valkey_url, view_prefix) == winners([*batch(0, 700), *batch(700, 700)])
        assert written(metrics, "unreadable") == len(unreadable)
        again = written(metrics, "repaired")  # and read again, in part or all by now
        assert 1400 <= sum(written(metrics, kind) for kind in ("written", "deleted", "outranked")) <= 1400 + again
        assert written(metrics, "outranked") > 0
        assert up(metrics) == 1
        assert writer.reason is None


def test_next_writer_reads_on_from_the_view_and_not_from_kafka(
    kafka: str, topics: TopicNames, valkey_url: str, view_prefix: str, group_id: str
) -> None:
    settings = settings_for(kafka, topics.output, valkey_url, group_id, view_prefix)
    send(kafka, topics.output, batch(0, 300))
    ends = ends_of(kafka, topics.output)
    with running(settings) as (writer, _):
        assert writer.wait_until(ends, 30)
    done = committed(kafka, f"{group_id}-view", topics.output)
    assert reached(done, ends)  # for those who watch lag
    left = sum(ends_of(kafka, topics.output).values()) - sum(done.values())  # repairs that it had no time to read
    send(kafka, topics.output, batch(300, 40))
    with running(settings) as (writer, metrics):
        assert writer.wait_until(ends_of(kafka, topics.output), 30)
        again = written(metrics, "repaired")
        assert 40 <= sum(written(metrics, kind) for kind in ("written", "deleted", "outranked")) <= 40 + left + again
    other = settings_for(kafka, topics.output, valkey_url, group_id, f"{view_prefix}-new")
    with running(other) as (writer, _):  # the same group, whose commits stand at the end: the new view starts over
        assert writer.wait_until(ends_of(kafka, topics.output), 30)
    assert shown(valkey_url, f"{view_prefix}-new") == shown(valkey_url, view_prefix) == winners(batch(0, 340))


def test_view_that_goes_away_and_comes_back_empty_is_filled_again(
    kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    with running(settings_for(kafka, topics.output, server.url, group_id)) as (writer, metrics):
        send(kafka, topics.output, batch(0, 200))
        assert writer.wait_until(ends_of(kafka, topics.output), 30)
        server.kill()
        send(kafka, topics.output, batch(200, 200))
        eventually(lambda: up(metrics) == 0, "the view is known to be away")
        assert writer.reason
        assert writer.alive
        server.start()
        eventually(lambda: up(metrics) == 1, "the view is back")
        assert writer.wait_until(ends_of(kafka, topics.output), 30)
        assert shown(server.url) == winners(batch(0, 400))
        assert writer.reason is None


def test_reader_that_is_fenced_as_a_static_member_reads_on_by_another_client(
    apache_kafka: str, topics: TopicNames, valkey_url: str, view_prefix: str, group_id: str
) -> None:
    """Its client may do that to itself where a broker goes away; here a client of the test joins under its name."""
    settings = settings_for(apache_kafka, topics.output, valkey_url, group_id, view_prefix)
    settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"instance_id": "one"})})
    shadow: dict[str, str | int] = {"group.id": f"{group_id}-view", "group.instance.id": "one"}
    assignor: dict[str, str | int] = {"partition.assignment.strategy": "range", "session.timeout.ms": 6_000}
    given: list[object] = []
    with running(settings) as (writer, _):
        send(apache_kafka, topics.output, batch(0, 100))
        assert writer.wait_until(ends_of(apache_kafka, topics.output), 30)
        with reader(apache_kafka, **shadow, **assignor) as other:
            other.subscribe([topics.output], on_assign=lambda _, partitions: given.extend(partitions))
            eventually(lambda: other.poll(0.05) is not None or given, "it joins in our place")
        send(apache_kafka, topics.output, batch(100, 100))
        assert writer.wait_until(ends_of(apache_kafka, topics.output), 30)
        assert writer.alive
    assert shown(valkey_url, view_prefix) == winners(batch(0, 200))


def test_view_that_is_away_at_the_start_is_filled_when_it_comes(
    kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    server.kill()
    send(kafka, topics.output, batch(0, 100))
    with running(settings_for(kafka, topics.output, server.url, group_id)) as (writer, metrics):
        eventually(lambda: writer.reason, "the writer says that the view is away")
        assert up(metrics) == 0
        server.start()
        assert writer.wait_until(ends_of(kafka, topics.output), 30)
        assert shown(server.url) == winners(batch(0, 100))


def test_view_emptied_under_an_idle_writer_is_filled_again(
    kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    send(kafka, topics.output, batch(0, 300))
    with running(settings_for(kafka, topics.output, server.url, group_id)) as (writer, _):
        assert writer.wait_until(ends_of(kafka, topics.output), 30)
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
        eventually(lambda: shown(server.url) == winners(batch(0, 300)), "the view is filled again")


def test_connections_cut_again_and_again_change_nothing(
    kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    with (
        running(settings_for(kafka, topics.output, server.url, group_id)) as (writer, _),
        redis.Redis.from_url(server.url) as client,
    ):
        for step in range(8):
            send(kafka, topics.output, batch(step * 100, 100))
            client.client_kill_filter(_type="normal", skipme=True)
            if step % 3 == 0:
                client.script_flush()
        assert writer.wait_until(ends_of(kafka, topics.output), 60)
        assert shown(server.url) == winners(batch(0, 800))


def test_two_writers_share_the_partitions_and_one_takes_over(
    kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    settings = settings_for(kafka, topics.output, server.url, group_id)
    with running(settings) as (first, _):
        send(kafka, topics.output, batch(0, 200))
        assert first.wait_until(ends_of(kafka, topics.output), 30)
        with running(settings) as (second, _):
            eventually(lambda: first.applied and second.applied, "both have partitions")
            assert not set(first.applied) & set(second.applied)
            send(kafka, topics.output, batch(200, 200))
            ends = ends_of(kafka, topics.output)
            eventually(lambda: reached({**first.applied, **second.applied}, ends), "both are at the end")
        send(kafka, topics.output, batch(400, 200))
        assert first.wait_until(ends_of(kafka, topics.output), 30)
        assert shown(server.url) == winners(batch(0, 600))


def test_evicting_policy_is_waited_out_and_named(
    kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    send(kafka, topics.output, batch(0, 10))
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        with running(settings_for(kafka, topics.output, server.url, group_id)) as (writer, metrics):
            eventually(lambda: "allkeys-lru" in (writer.reason or ""), "the policy is named")
            assert up(metrics) == 0
            client.config_set("maxmemory-policy", "noeviction")
            assert writer.wait_until(ends_of(kafka, topics.output), 30)


def test_full_view_loses_nothing(kafka: str, topics: TopicNames, server: LocalValkey, group_id: str) -> None:
    with (
        running(settings_for(kafka, topics.output, server.url, group_id)) as (writer, metrics),
        redis.Redis.from_url(server.url) as client,
    ):
        send(kafka, topics.output, batch(0, 50))
        assert writer.wait_until(ends_of(kafka, topics.output), 30)
        client.config_set("maxmemory", 1)
        send(kafka, topics.output, batch(50, 50))
        eventually(lambda: "maxmemory" in (writer.reason or ""), "the writer says that the view is full")
        assert up(metrics) == 0
        client.config_set("maxmemory", 0)
        assert writer.wait_until(ends_of(kafka, topics.output), 30)
        assert shown(server.url) == winners(batch(0, 100))


def test_topic_made_again_under_the_same_name_stops_the_writer(
    apache_kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    settings = settings_for(apache_kafka, topics.output, server.url, group_id)
    send(apache_kafka, topics.output, batch(0, 10))
    with running(settings) as (writer, _):
        assert writer.wait_until(ends_of(apache_kafka, topics.output), 30)
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    for future in admin.delete_topics([topics.output]).values():
        future.result(30)
    eventually(lambda: topics.output not in admin.list_topics(timeout=5).topics, "the topic is gone")
    create_topics(apache_kafka, [topics.output], 3)
    with running(settings) as (writer, metrics):
        eventually(lambda: not writer.alive, "the writer has stopped")
        assert "deleted and made again" in (writer.reason or "")
        assert up(metrics) == 0


def test_more_partitions_stop_the_writer(
    apache_kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    settings = settings_for(apache_kafka, topics.output, server.url, group_id)
    send(apache_kafka, topics.output, batch(0, 10))
    with running(settings) as (writer, _):
        assert writer.wait_until(ends_of(apache_kafka, topics.output), 30)
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    for future in admin.create_partitions([NewPartitions(topics.output, 5)]).values():
        future.result(30)
    with running(settings) as (writer, _):
        eventually(lambda: not writer.alive, "the writer has stopped")
        assert "3 partitions and has 5 now" in (writer.reason or "")


def test_position_that_retention_passed_by_starts_over_with_what_is_left(
    apache_kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    plain = topics.review  # of a compacted topic the broker deletes no records
    settings = settings_for(apache_kafka, plain, server.url, group_id)
    send(apache_kafka, plain, batch(0, 100))
    with running(settings) as (writer, _):
        assert writer.wait_until(ends_of(apache_kafka, plain), 30)
    send(apache_kafka, plain, batch(100, 100))
    ends = ends_of(apache_kafka, plain)
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    cut = [TopicPartition(plain, partition, end - 5) for partition, end in ends.items()]
    for future in admin.delete_records(cut).values():
        future.result(30)
    with running(settings) as (writer, metrics):
        assert writer.wait_until(ends, 30)
        again = written(metrics, "repaired")
        assert 15 <= sum(written(metrics, kind) for kind in ("written", "deleted", "outranked")) <= 15 + again


def test_lag_is_shown(apache_kafka: str, topics: TopicNames, server: LocalValkey, group_id: str) -> None:
    send(apache_kafka, topics.output, batch(0, 60))
    with running(settings_for(apache_kafka, topics.output, server.url, group_id)) as (writer, metrics):
        assert writer.wait_until(ends_of(apache_kafka, topics.output), 30)
        labels = {"topic": topics.output, "partition": "0", "role": "view"}
        eventually(lambda: metrics.registry.get_sample_value("mmcat_consumer_lag", labels) == 0, "lag is zero")
