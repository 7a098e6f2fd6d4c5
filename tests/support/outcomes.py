"""The promises of the stream, checked from outside: what went in, what came out, what the view holds.

Everything is read back from the broker and the view; nothing the service says of itself is believed.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import redis

from tests.support.broker import Record, TopicNames, committed, end_offsets, read_topic
from tests.support.listings import Event, Kind
from tests.support.waiting import eventually

Origin = tuple[int, int]
"""Partition and offset of the input topic."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One test's topics, as they stand at the end."""

    input: list[Record]
    output: list[Record]
    dead_letters: list[Record]
    sent: list[Event]

    def kind_of(self) -> dict[Origin, Kind]:
        """What should become of each input record."""
        kinds = {(event.key, event.value): event.kind for event in self.sent}
        return {(one.partition, one.offset): kinds[(one.key, one.value)] for one in self.input}


def read_stream(bootstrap: str, topics: TopicNames, sent: Iterable[Event]) -> Stream:
    """Read all topics of a test to their ends."""
    return Stream(
        read_topic(bootstrap, topics.input),
        read_topic(bootstrap, topics.output),
        read_topic(bootstrap, topics.dead_letter),
        list(sent),
    )


def drained(bootstrap: str, topics: TopicNames, group: str) -> bool:
    """Whether the group has committed the end of the input topic."""
    ends = end_offsets(bootstrap, topics.input)
    done = committed(bootstrap, group, topics.input)
    return all(done[partition] == end or end == 0 for partition, end in ends.items())


def origin_of(record: Record) -> Origin:
    """The input record that a record of ours says it comes from."""
    return int(record.headers["mmcat-origin-partition"]), int(record.headers["mmcat-origin-offset"])


def rank_of(record: Record) -> tuple[int, ...]:
    """The rank in a record's header, from the left."""
    return tuple(int(part) for part in record.headers["mmcat-rank"].split(b","))


def check_outcomes(stream: Stream, topics: TopicNames, *, exactly_once: bool) -> None:
    """Every event has its outcome, of its kind, in its place; once, or (after a crash) at least once and the same."""
    kinds = stream.kind_of()
    inputs = {(one.partition, one.offset): one for one in stream.input}
    outcomes: dict[Origin, list[Record]] = defaultdict(list)
    for record in [*stream.output, *stream.dead_letters]:
        assert record.headers["mmcat-origin-topic"] == topics.input.encode()
        outcomes[origin_of(record)].append(record)
    assert set(outcomes) == set(kinds), "events without an outcome, or outcomes without an event"
    many = {origin: len(records) for origin, records in outcomes.items() if len(records) > 1}
    assert not (exactly_once and many), f"more than one outcome: {many}"
    for record in stream.output:
        origin = origin_of(record)
        assert kinds[origin] in (Kind.LISTING, Kind.DELETION), f"a bad event was categorized: {inputs[origin]}"
        assert record.key == inputs[origin].key
        assert (record.value is None) == (kinds[origin] is Kind.DELETION)
        if record.value is not None:
            result = json.loads(record.value)
            assert result["product_id"].encode() == record.key
            assert result["result_id"].encode() == record.headers["mmcat-result-id"]
            assert result["path"], f"no path: {result}"
    for origin, records in outcomes.items():
        ids = {record.headers.get("mmcat-result-id") for record in records}
        assert len(ids) == 1, f"the same work has two ids: {origin} {ids}"
    check_dead_letters(stream)


def check_dead_letters(stream: Stream) -> None:
    """Only bad events are dead letters, byte for byte, with a code and with the headers that travel on."""
    kinds = stream.kind_of()
    inputs = {(one.partition, one.offset): one for one in stream.input}
    for letter in stream.dead_letters:
        origin = origin_of(letter)
        assert kinds[origin] is Kind.BAD, f"a good event was refused: {letter}"
        assert (letter.key, letter.value) == (inputs[origin].key, inputs[origin].value), "not byte for byte"
        assert letter.headers["mmcat-error"].startswith(b"event."), letter.headers
        for name, value in inputs[origin].headers.items():
            assert letter.headers.get(name) == value, f"{name} was not carried on"


def last_per_key(records: Iterable[Record]) -> dict[bytes, Record]:
    """The record of each key that compaction would keep."""
    return {one.key: one for one in records if one.key is not None}


def check_ranks(stream: Stream) -> None:
    """The last record of each key is the highest-ranked, and each key has one partition."""
    highest: dict[bytes, tuple[int, ...]] = {}
    places: dict[bytes, set[int]] = defaultdict(set)
    for record in stream.output:
        assert record.key is not None
        highest[record.key] = max(highest.get(record.key, (-1,)), rank_of(record))
        places[record.key].add(record.partition)
    wrong = {
        key: (rank_of(last), highest[key])
        for key, last in last_per_key(stream.output).items()
        if rank_of(last) != highest[key]
    }
    assert not wrong, f"last is not highest: {wrong}"
    spread = [key for key, partitions in places.items() if len(partitions) > 1]
    assert not spread, f"keys in several partitions: {spread}"


def check_last_is_newest(stream: Stream) -> None:
    """The last result of each product comes from the last event about it."""
    kinds = stream.kind_of()
    good = [one for one in stream.input if kinds[(one.partition, one.offset)] is not Kind.BAD]
    newest = {key: (one.partition, one.offset) for key, one in last_per_key(good).items()}
    assert {key: origin_of(one) for key, one in last_per_key(stream.output).items()} == newest


def view_of(url: str, prefix: str, keys: Iterable[bytes]) -> dict[bytes, tuple[bytes | None, bytes | None]]:
    """What the view holds of each product: (rank, result)."""
    with redis.Redis.from_url(url) as client:
        asked = list(keys)
        pipe = client.pipeline(transaction=False)
        for key in asked:
            pipe.hmget(f"{prefix}:product:{{{key.decode()}}}", ["rank", "result"])
        return {key: (rank, result) for key, (rank, result) in zip(asked, pipe.execute(), strict=True)}


def view_differences(stream: Stream, url: str, prefix: str) -> dict[bytes, str]:
    """Where the view is not the last record of each key of the output topic; empty when it is."""
    last = last_per_key(stream.output)
    wrong = {}
    for key, (rank, result) in view_of(url, prefix, last).items():
        record = last[key]
        if rank != record.headers["mmcat-rank"]:
            wrong[key] = f"rank {rank!r} in the view, {record.headers['mmcat-rank']!r} in the topic"
        elif (json.loads(result) if result else None) != (json.loads(record.value) if record.value else None):
            wrong[key] = "another result in the view than in the topic"
    return wrong


def wait_for_view(stream: Stream, url: str, prefix: str, within_s: float = 30.0) -> None:
    """Wait until the view equals the topic; says where it does not at the deadline."""
    found: list[dict[bytes, str]] = []

    def same() -> bool:
        found[:] = [view_differences(stream, url, prefix)]
        return not found[0]

    try:
        eventually(same, "the view equals the topic", within_s, every_s=0.2)
    except AssertionError as error:
        raise AssertionError(f"{len(found[0])} products differ, such as {sorted(found[0].items())[:3]}") from error


def counts(stream: Stream) -> Counter[str]:
    """How many results, tombstones and dead letters there are."""
    found = Counter("tombstone" if one.value is None else "result" for one in stream.output)
    return found + Counter({"dead_letter": len(stream.dead_letters)})
