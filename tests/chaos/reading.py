"""What a trial asks of broker and view: its topics, what the view holds, the output topic once it is compacted.

Used by trial.py, which makes a case of it for the oracle.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import redis
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic

from tests.chaos.case import Held
from tests.chaos.oracle import highest_per_key
from tests.chaos.site import Site
from tests.support.broker import DEADLINE_S, Record, TopicNames, committed, end_offsets, read_topic, send
from tests.support.waiting import eventually

PARTITIONS: Final = 3
CLEANED_S: Final = 60.0
UNLAGGED: Final = {"min.compaction.lag.ms": "0", "min.cleanable.dirty.ratio": "0.001", "segment.ms": "100"}


def make_topics(site: Site, names: TopicNames, delay_topics: Sequence[str]) -> None:
    """Make the topics of one trial; the cleaner lags a day behind."""
    lagged = {"cleanup.policy": "compact", "min.compaction.lag.ms": "86400000"}
    wanted = {names.input: {"message.timestamp.type": "LogAppendTime"}, names.output: lagged}
    every = (names.input, names.output, names.review, names.dead_letter, *delay_topics)
    admin = AdminClient({"bootstrap.servers": site.bootstrap})
    made = admin.create_topics(
        [NewTopic(name, PARTITIONS, site.replication, config=wanted.get(name, {})) for name in every]
    )
    for future in made.values():
        future.result(DEADLINE_S)


def worked_through(bootstrap: str, delay_topics: Sequence[str], group: str) -> bool:
    """Whether the group has committed all records of the delay topics.

    Each hands on to the next before its own record is committed, so the order in which they are looked at matters. What
    stands behind the last record may be a transaction's mark, which nobody commits.
    """
    for topic in delay_topics:
        ends = {one.partition: one.offset + 1 for one in read_topic(bootstrap, topic)}
        done = committed(bootstrap, group, topic) if ends else {}
        if any(done[partition] < end for partition, end in ends.items()):
            return False
    return True


def all_closed(bootstrap: str, topics: Iterable[str]) -> bool:
    """Whether a reader of committed records may read each topic to its end: no transaction is open there."""
    return all(
        end_offsets(bootstrap, topic) == end_offsets(bootstrap, topic, isolation="read_uncommitted") for topic in topics
    )


def view_is_at(ends: Mapping[int, int], url: str, prefix: str, topic: str) -> bool:
    """Whether the view has read its topic up to these offsets."""
    with redis.Redis.from_url(url) as client:
        found = client.hgetall(f"{prefix}:positions:{topic}")
    return all(int(found.get(b"%d" % partition, b"-2")) >= end or not end for partition, end in ends.items())


def read_view(url: str, prefix: str, output: Sequence[Record]) -> dict[bytes, Held]:
    """What the view holds of every product of the output topic."""
    keys = list(highest_per_key(one for one in output if "mmcat-rank" in one.headers))
    with redis.Redis.from_url(url) as client:
        pipe = client.pipeline(transaction=False)
        for key in keys:
            name = f"{prefix}:product:{{{key.decode()}}}"
            pipe.hmget(name, ["rank", "result"])
            pipe.pttl(name)
        answers = pipe.execute()
    pairs = zip(answers[::2], answers[1::2], strict=True)
    return {
        key: Held(rank, result, life if life >= 0 else None)
        for key, ((rank, result), life) in zip(keys, pairs, strict=True)
    }


def compacted(bootstrap: str, topic: str) -> list[Record]:
    """Let the cleaner go over the output topic at last, and return what it leaves."""
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in UNLAGGED.items()
    ]
    wanted = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.incremental_alter_configs([wanted]).values():
        future.result(DEADLINE_S)
    before = len(read_topic(bootstrap, topic))
    time.sleep(0.2)  # a segment is old enough to be closed by the next record
    rolls = [b"roll-%d" % number for number in range(4 * PARTITIONS)]
    send(bootstrap, topic, [(key, b"{}", {}) for key in rolls])

    def cleaned() -> list[Record]:
        left = [one for one in read_topic(bootstrap, topic) if one.key not in rolls]
        return left if len(left) < before else []

    return eventually(cleaned, "the cleaner went over the output topic", CLEANED_S, every_s=0.5)
