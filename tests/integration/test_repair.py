"""Rank at rest, on a real broker and a real Valkey: a key's last record is the highest-ranked, and in the view."""

from collections import Counter

import pytest
import redis
from confluent_kafka.admin import AdminClient

from tests.support.broker import Record, TopicNames, create_topics, read_topic, send
from tests.support.view_bench import (
    SETTLE_S,
    Sent,
    ends_of,
    lasts,
    record,
    running,
    settings_for,
    shown,
    winners,
    written,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

UPDATED = [record(1, 10, b"old"), record(1, 20, b"new"), record(1, 15, b"stale")]
DELETED = [record(2, 10, b"listed"), record(2, 20, None), record(2, 10, b"late photo")]
BETTER = [record(3, 10, b"saw the photo"), record(3, 10, b"blind", complete=0)]
FINE = [record(4, 10, b"once"), record(5, 10, b"first"), record(5, 20, b"second")]
STALE = 3


def stale_after_all() -> list[Sent]:
    """A stale record after an update, after a deletion, after a better answer; and products that are fine."""
    return [*UPDATED[:2], *DELETED[:2], *BETTER[:1], *FINE, UPDATED[2], DELETED[2], BETTER[1]]


def repairs(records: list[Record]) -> list[Record]:
    return [one for one in records if "mmcat-repair" in one.headers]


def at_rest(bootstrap: str, topic: str) -> bool:
    records = read_topic(bootstrap, topic)
    highest: dict[bytes, tuple[int, ...]] = {}
    for one in records:
        rank = tuple(map(int, one.headers["mmcat-rank"].split(b",")))
        highest[one.key or b""] = max(highest.get(one.key or b"", ()), rank)
    found = {key: tuple(map(int, rank.split(b","))) for key, (rank, _) in lasts(records).items()}
    return found == highest


def test_a_stale_record_is_outranked_in_the_topic_by_the_winner_published_again(
    kafka: str, topics: TopicNames, valkey_url: str, view_prefix: str, group_id: str
) -> None:
    sent = stale_after_all()
    send(kafka, topics.output, sent)
    with running(settings_for(kafka, topics.output, valkey_url, group_id, view_prefix)) as (writer, metrics):
        assert writer.wait_until(ends_of(kafka, topics.output), SETTLE_S)
        assert writer.wait_until(ends_of(kafka, topics.output), SETTLE_S)  # what it published itself
        assert written(metrics, "repaired") == STALE
        assert written(metrics, "outranked") == STALE
    records = read_topic(kafka, topics.output)
    assert lasts(records) == winners(sent) == shown(valkey_url, view_prefix)
    places = {(one.partition, one.offset): one for one in records}
    originals = {key: headers for key, _, headers in [*sent, BETTER[0]] if key and headers["mmcat-result-id"] in IDS}
    for one in repairs(records):
        stale = places[one.partition, int(one.headers["mmcat-repair"])]
        assert stale.key == one.key, "the header names the record that is outranked, of the same partition"
        kept = {name: value for name, value in one.headers.items() if name != "mmcat-repair"}
        assert kept == originals[one.key or b""], "the winner's headers, byte for byte"


IDS = {UPDATED[1][2]["mmcat-result-id"], DELETED[1][2]["mmcat-result-id"], BETTER[0][2]["mmcat-result-id"]}


def test_what_was_repaired_is_not_repaired_again_whoever_reads_it_from_the_beginning(
    kafka: str, topics: TopicNames, valkey_url: str, view_prefix: str, group_id: str
) -> None:
    send(kafka, topics.output, stale_after_all())
    settings = settings_for(kafka, topics.output, valkey_url, group_id, view_prefix)
    with running(settings) as (writer, _):
        assert writer.wait_until(ends_of(kafka, topics.output), SETTLE_S)
    count = len(read_topic(kafka, topics.output))
    for prefix, emptied in (("another", False), (view_prefix, True)):  # an empty view; a full one without positions
        if emptied:
            with redis.Redis.from_url(valkey_url) as client:
                client.delete(f"{view_prefix}:positions:{topics.output}")
        again = settings_for(kafka, topics.output, valkey_url, group_id, f"{prefix}" if emptied else f"{view_prefix}2")
        with running(again) as (writer, metrics):
            assert writer.wait_until(ends_of(kafka, topics.output), SETTLE_S)
            assert written(metrics, "repaired") == 0
            assert written(metrics, "outranked") >= STALE
    assert len(read_topic(kafka, topics.output)) == count


def test_two_views_whose_writers_both_repair_come_to_rest(
    kafka: str, topics: TopicNames, valkey_url: str, view_prefix: str, group_id: str
) -> None:
    first = settings_for(kafka, topics.output, valkey_url, group_id, view_prefix)
    second = settings_for(kafka, topics.output, valkey_url, f"{group_id}-2", f"{view_prefix}-2")
    sent = stale_after_all()
    with running(first) as (one, _), running(second) as (two, _):
        eventually(lambda: one.applied and two.applied, "both read")
        send(kafka, topics.output, sent)
        eventually(lambda: at_rest(kafka, topics.output), "the topic is at rest")
        for writer in (one, two, one, two):  # each may have repaired after the other read
            assert writer.wait_until(ends_of(kafka, topics.output), SETTLE_S)
    records = read_topic(kafka, topics.output)
    found = Counter(one.key for one in repairs(records))
    assert set(found) == {b"p1", b"p2", b"p3"}
    assert max(found.values()) <= 2, "each writer repairs each product once at most"
    assert lasts(records) == winners(sent)
    assert shown(valkey_url, view_prefix) == shown(valkey_url, f"{view_prefix}-2") == winners(sent)


def test_compaction_keeps_what_the_view_holds(
    apache_kafka: str, valkey_url: str, view_prefix: str, group_id: str, topics: TopicNames
) -> None:
    topic = f"{topics.output}.compacted"
    create_topics(apache_kafka, [topic], 1, CLEANED)
    sent = stale_after_all()
    send(apache_kafka, topic, sent)
    with running(settings_for(apache_kafka, topic, valkey_url, group_id, view_prefix)) as (writer, _):
        assert writer.wait_until(ends_of(apache_kafka, topic), SETTLE_S)
        # The cleaner leaves the newest segment alone: records about nothing let it close.
        eventually(lambda: send(apache_kafka, topic, [record(99, 1)]) and compacted(apache_kafka, topic), "compacted")
        assert writer.wait_until(ends_of(apache_kafka, topic), SETTLE_S)
        kept = winners(sent) | winners([record(99, 1)])
        assert lasts(read_topic(apache_kafka, topic)) == kept == shown(valkey_url, view_prefix)


def test_a_winner_that_compaction_took_is_published_from_the_view(
    apache_kafka: str, valkey_url: str, view_prefix: str, group_id: str, topics: TopicNames
) -> None:
    topic = f"{topics.output}.compacted"
    create_topics(apache_kafka, [topic], 1, CLEANED)
    settings = settings_for(apache_kafka, topic, valkey_url, group_id, view_prefix)
    sent = stale_after_all()
    send(apache_kafka, topic, sent[:-STALE])
    with running(settings) as (writer, _):
        assert writer.wait_until(ends_of(apache_kafka, topic), SETTLE_S)
    send(apache_kafka, topic, sent[-STALE:])  # nobody reads them before the cleaner has passed
    eventually(lambda: send(apache_kafka, topic, [record(99, 1)]) and compacted(apache_kafka, topic), "compacted")
    assert lasts(read_topic(apache_kafka, topic))[b"p1"][1] == b"stale"
    with running(settings) as (writer, metrics):
        assert writer.wait_until(ends_of(apache_kafka, topic), SETTLE_S)
        assert written(metrics, "repaired") == STALE
    kept = winners(sent) | winners([record(99, 1)])
    assert lasts(read_topic(apache_kafka, topic)) == kept == shown(valkey_url, view_prefix)


# The cleaner of the tests' broker looks every half second; segments this small close with every record.
CLEANED = {
    "cleanup.policy": "compact",
    "segment.bytes": "1048576",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
}


def compacted(bootstrap: str, topic: str) -> bool:
    """Whether each key but the one that keeps coming has one record left."""
    found = Counter(one.key for one in read_topic(bootstrap, topic))
    return all(count == 1 for key, count in found.items() if key != b"p99")


def test_a_topic_that_cannot_be_written_keeps_the_view_in_step_and_the_position_back(
    apache_kafka: str, valkey_url: str, view_prefix: str, group_id: str, topics: TopicNames
) -> None:
    create_topics(apache_kafka, [narrow := f"{topics.output}.narrow"], 1)
    send(apache_kafka, narrow, stale_after_all())
    narrowed(apache_kafka, narrow, "1")  # bytes: every record is refused
    with running(settings_for(apache_kafka, narrow, valkey_url, group_id, view_prefix)) as (writer, metrics):
        eventually(lambda: "repairs" in (writer.reason or ""), "it says that it could not repair", 60)
        eventually(lambda: shown(valkey_url, view_prefix) == winners(stale_after_all()), "the view is in step")
        assert writer.applied[0] < len(stale_after_all())
        narrowed(apache_kafka, narrow, "1048588")
        eventually(lambda: written(metrics, "repaired") >= STALE, "repaired", 60)
        eventually(lambda: writer.reason is None, "all is well")
    assert lasts(read_topic(apache_kafka, narrow)) == winners(stale_after_all())


def narrowed(bootstrap: str, topic: str, max_bytes: str) -> None:
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

    entry = ConfigEntry("max.message.bytes", max_bytes, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)
