"""`mmcat cache rebuild|verify` on a real broker and a real Valkey, with the live writer at work."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka.admin import AdminClient

from consumer.errors import ConfigError, ViewError
from consumer.settings import Settings
from consumer.view import ViewAwayError
from consumer.view_rebuild import Rebuild, Rebuilt
from consumer.view_verify import Verified, Verify
from mmcat.cli.servers import LocalValkey
from tests.support.broker import TopicNames, create_topics, read_topic, send
from tests.support.view_bench import (
    SETTLE_S,
    Quiet,
    batch,
    ends_of,
    lasts,
    record,
    running,
    settings_for,
    shown,
    winners,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalValkey]:
    with LocalValkey(logs=tmp_path) as valkey:
        yield valkey


def rebuild(settings: Settings, grace_s: float = 0) -> Rebuilt:
    return Rebuild(settings, Quiet(), grace_s=grace_s, remove_per_s=1e6).run()


def verify(settings: Settings, wait_s: float = SETTLE_S) -> Verified:
    return Verify(settings, Quiet(), limit=100, wait_s=wait_s).run()


def current(url: str, prefix: str = "v") -> str:
    """The first part of the keys, as a reader finds it."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return str(client.get(f"{prefix}:current") or prefix)


def test_rebuild_switches_readers_and_the_live_writer_and_loses_nothing(
    apache_kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    settings = settings_for(apache_kafka, topics.output, server.url, group_id)
    sent = [batch(step * 100, 100) for step in range(8)]
    stop = threading.Event()

    def send_on() -> None:
        for step in sent[4:]:
            send(apache_kafka, topics.output, step)
        stop.set()

    with running(settings) as (writer, _):
        for step in sent[:4]:
            send(apache_kafka, topics.output, step)
        assert writer.wait_until(ends_of(apache_kafka, topics.output), SETTLE_S)
        with redis.Redis.from_url(server.url) as client:  # what nobody will ever write again by itself
            client.delete("v:product:{p1}")
            client.hset("v:product:{p2}", "result", "spoiled")
        sender = threading.Thread(target=send_on)
        sender.start()
        done = [rebuild(settings), rebuild(settings, grace_s=3)]  # while records come; a writer follows in a second
        sender.join()
        assert [one.generation for one in done] == ["v:gen1", "v:gen2"]
        expected = winners([one for step in sent for one in step])
        assert current(server.url) == "v:gen2"
        eventually(lambda: shown(server.url, "v:gen2") == expected, "the live writer goes on in the new keys", SETTLE_S)
        send(apache_kafka, topics.output, last := [record(1, 10_000, b"later")])
        eventually(lambda: shown(server.url, "v:gen2") == expected | winners(last), "and on", SETTLE_S)
        with redis.Redis.from_url(server.url) as client:
            heads = {key.decode().split(":product:")[0] for key in client.scan_iter("*:product:*")}
            assert heads == {"v:gen2"}, "the old keys are gone"
            assert not client.exists("v:positions:" + topics.output, "v:rebuilding")
        found = verify(settings)
        assert not found.counts
        assert found.products == 50


def test_a_stale_record_that_only_the_rebuild_saw_is_still_repaired(
    apache_kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    settings = settings_for(apache_kafka, topics.output, server.url, group_id)
    send(apache_kafka, topics.output, [record(1, 20, b"new"), record(1, 10, b"stale"), record(2, 5)])
    rebuild(settings)
    assert verify(settings, wait_s=0).counts == {"unrepaired": 1}
    with running(settings) as (writer, _):
        assert writer.wait_until(ends_of(apache_kafka, topics.output), SETTLE_S)
    assert lasts(read_topic(apache_kafka, topics.output)) == shown(server.url, "v:gen1")
    assert not verify(settings, wait_s=0).counts


def test_verify_names_what_differs_and_how(
    apache_kafka: str, topics: TopicNames, server: LocalValkey, group_id: str, tmp_path: Path
) -> None:
    settings = settings_for(apache_kafka, topics.output, server.url, group_id)
    send(apache_kafka, topics.output, [record(number, 10, b"%d" % number) for number in range(9)])
    send(apache_kafka, topics.output, [record(8, 20, None)])
    with running(settings) as (writer, _):
        assert writer.wait_until(ends_of(apache_kafka, topics.output), SETTLE_S)
    assert asked(apache_kafka, topics, server.url, tmp_path, "verify")[0] == 0
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.delete("v:product:{p0}", "v:product:{p8}")
        client.hset("v:product:{p1}", "rank", "9,0,1,2")
        client.hset("v:product:{p2}", "rank", "11,0,1,2")
        client.hset("v:product:{p3}", "result", "3?")
        client.hset("v:product:{p77}", mapping={"rank": "1,0,0,0", "at": "0:0", "headers": "[]", "result": "x"})
        client.hset("v:product:{p78}", mapping={"rank": "1,2,0,0", "at": "0:0", "headers": "[]"})  # a deletion
        client.hset("v:product:{p4}", mapping={"rank": "99,0,0,0", "at": "0:99999", "result": "newer"})
        partition = next(one.partition for one in read_topic(apache_kafka, topics.output) if one.key == b"p4")
        client.hset("v:product:{p4}", "at", f"{partition}:99999")  # taken from behind the pinned end
    status, said = asked(apache_kafka, topics, server.url, tmp_path, "verify", "--json")
    assert status == 1
    found = {one["product_id"]: one["kind"] for one in said["differences"]}
    assert found == {"p0": "missing", "p8": "missing", "p1": "older", "p2": "higher", "p3": "other", "p77": "extra"}
    assert said["counts"] == {"missing": 2, "older": 1, "higher": 1, "other": 1, "extra": 1}
    status, said = asked(apache_kafka, topics, server.url, tmp_path, "verify", "--json", "--limit", "1")
    assert (status, len(said["differences"]), sum(said["counts"].values())) == (1, 1, 6)
    status, said = asked(apache_kafka, topics, server.url, tmp_path, "rebuild", "--json", "--grace", "3")
    assert (status, said["generation"], said["records"]) == (0, "v:gen1", 10)
    assert not verify(settings, wait_s=0).counts


def asked(bootstrap: str, topics: TopicNames, url: str, folder: Path, *command: str) -> tuple[int, Any]:
    """Run `mmcat cache …`: its exit status and its JSON, if any."""
    env = {"PATH": "/usr/bin:/bin", "MMCAT_VIEW__PREFIX": "v", **topics.env()}
    whole = [sys.executable, "-m", "mmcat.cli", "cache", *command, "--bootstrap", bootstrap, "--view", url]
    done = subprocess.run(whole, env=env, cwd=Path.cwd(), capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if "--json" in command else done.stderr


def test_rebuild_that_has_no_room_changes_nothing_and_clears_up(
    apache_kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    settings = settings_for(apache_kafka, topics.output, server.url, group_id)
    big = [record(number, 10, b"x" * 20_000) for number in range(100)]
    send(apache_kafka, topics.output, big)
    with running(settings) as (writer, _), redis.Redis.from_url(server.url) as client:
        assert writer.wait_until(ends_of(apache_kafka, topics.output), SETTLE_S)
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 500_000)
        with pytest.raises(ViewAwayError, match="maxmemory"):
            rebuild(settings)
        assert current(server.url) == "v"
        assert not list(client.scan_iter("v:gen1*"))
        assert not verify(settings).counts
        client.config_set("maxmemory", 0)
        assert rebuild(settings).generation == "v:gen2"


def test_two_rebuilds_at_once_are_refused(
    apache_kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    settings = settings_for(apache_kafka, topics.output, server.url, group_id)
    send(apache_kafka, topics.output, [record(1, 1)])
    with redis.Redis.from_url(server.url) as client:
        client.set("v:rebuilding", "another")
        with pytest.raises(ViewError, match="another rebuild"):
            rebuild(settings)
        assert client.get("v:rebuilding") == b"another"


def test_after_a_topic_was_made_again_a_rebuild_lets_the_writer_go_on(
    apache_kafka: str, topics: TopicNames, server: LocalValkey, group_id: str
) -> None:
    settings = settings_for(apache_kafka, topics.output, server.url, group_id)
    send(apache_kafka, topics.output, [record(1, 100, b"old topic"), record(2, 100)])
    with running(settings) as (writer, _):
        assert writer.wait_until(ends_of(apache_kafka, topics.output), SETTLE_S)
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    for future in admin.delete_topics([topics.output]).values():
        future.result(30)
    eventually(lambda: topics.output not in admin.list_topics(timeout=5).topics, "the topic is gone")
    create_topics(apache_kafka, [topics.output], 2)
    send(apache_kafka, topics.output, new := [record(1, 1, b"new topic")])
    with running(settings) as (writer, _):
        eventually(lambda: not writer.alive, "the writer has stopped")
        assert "mmcat cache rebuild" in (writer.reason or "")
    with pytest.raises(ViewError, match="made again"):
        verify(settings)
    rebuild(settings)
    with running(settings) as (writer, _):
        assert writer.wait_until(ends_of(apache_kafka, topics.output), SETTLE_S)
        assert shown(server.url, "v:gen1") == winners(new)


def test_a_broker_that_knows_no_ends_is_refused(tansu: str, server: LocalValkey, group_id: str) -> None:
    create_topics(tansu, [topic := f"test.{group_id}"], 1)
    with pytest.raises(ConfigError, match="needs Apache Kafka"):
        rebuild(settings_for(tansu, topic, server.url, group_id))
    assert current(server.url) == "v"


def test_a_pointer_that_is_not_ours_is_named(valkey_url: str, view_prefix: str, group_id: str) -> None:
    settings = settings_for("127.0.0.1:1", "none", valkey_url, group_id, view_prefix)
    with redis.Redis.from_url(valkey_url) as client:
        client.set(f"{view_prefix}:current", "somebody:else")
        with pytest.raises(ViewError, match="names no generation of this view"):
            verify(settings)
        client.delete(f"{view_prefix}:current")
