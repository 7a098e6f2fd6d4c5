"""The sequence oracle: whether what lies in the topics and in the view is what was promised, whatever happened between.

Pure functions over what was read back: the records of all topics from before the load (the cleaner lags behind it), the
view, what the processes under trial wrote down (evidence.py), and snapshots of what was committed while the outputs
stood so far (watch.py). `judge` runs them all and gives a sentence for each promise that does not hold.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.case import Case, Held, Place, Usage
from tests.chaos.evidence import LEASE_HEADER, REPLAY, RETRY, Copy, LeaseNotes, Origin
from tests.support.broker import Record
from tests.support.listings import Kind
from tests.support.outcomes import check_dead_letters, last_per_key, origin_of, rank_of

Attempt = tuple[Origin, int]
"""Of an event, counted from 0."""

DELETED: Final = 2
BLIND: Final = {"pending": 0, "unavailable": 1, "refused": 1, "undecodable": 1}
SEEN: Final = 2
MARKER_SLACK_MS: Final = 3_600_000
"""A marker that lost more than this of its life within one trial was written with a wrong one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A record that ends an attempt at an event."""

    record: Record
    topic: str
    origin: Origin
    attempt: int
    lease: LeaseNotes | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the oracle says of a trial: a sentence per broken promise, and what was counted."""

    objections: list[str]
    events: int
    losses: int
    duplicates: int
    promises: list[str] = field(default_factory=list)


def judge(case: Case) -> Verdict:
    """Hold all promises against a trial."""
    objections: list[str] = []
    broken: list[str] = []
    for name, check in CHECKS.items():
        try:
            check(case)
        except (AssertionError, KeyError, ValueError) as error:
            broken.append(name)
            objections.append(f"{name}: {type(error).__name__} {str(error)[:600]}")
    firsts = Counter(one.origin for one in first_attempts(case))
    inputs = {(one.partition, one.offset) for one in case.stream.input}
    losses = len(inputs - set(firsts))
    return Verdict(objections, len(inputs), losses, sum(firsts.values()) - len(firsts), broken)


# what an outcome is ─────────────────────────────────────────────────────────────────────────────────────────────────


def outcomes(case: Case) -> Iterator[Outcome]:
    """Every outcome of every attempt. What the view writer published again to mend the topic is none."""
    topics = {case.output_topic: case.stream.output, case.dead_letter_topic: case.stream.dead_letters}
    for topic, records in topics.items():
        for record in records:
            if "mmcat-repair" in record.headers:
                continue
            lease = case.evidence.leases.get(record.headers.get(LEASE_HEADER, b"").decode())
            yield Outcome(record, topic, origin_of(record), _attempt(record, lease), lease)


def first_attempts(case: Case) -> list[Outcome]:
    """The outcomes of the live service's first attempts."""
    return [one for one in outcomes(case) if one.attempt == 0]


def _attempt(record: Record, lease: LeaseNotes | None) -> int:
    if lease is not None and lease.role == REPLAY:
        return 1
    if "mmcat-attempt" in record.headers:
        return int(record.headers["mmcat-attempt"])
    value = _value(record)
    return int(value["attempt"]) if value and "result_id" in value else 0


def _value(record: Record) -> dict[str, Any] | None:
    if record.value is None or "mmcat-error" in record.headers:
        return None
    found: dict[str, Any] = json.loads(record.value)
    return found


def copies(case: Case) -> dict[Copy, Attempt]:
    """What each record of the delay topics asks for."""
    return {
        (topic, record.partition, record.offset): (origin_of(record), int(record.headers["mmcat-attempt"]))
        for topic, records in case.retries.items()
        for record in records
    }


# the promises ───────────────────────────────────────────────────────────────────────────────────────────────────────


def check_every_event_has_its_outcome(case: Case) -> None:
    """First attempts equal the inputs: none missing, none made up, each of its kind and about its product."""
    kinds = case.stream.kind_of()
    inputs = {(one.partition, one.offset): one for one in case.stream.input}
    firsts = first_attempts(case)
    missing = sorted(set(inputs) - {one.origin for one in firsts})
    assert not missing, f"{len(missing)} events have no outcome, such as {missing[:5]}"
    for one in outcomes(case):
        kind = kinds[one.origin]
        assert (one.topic == case.dead_letter_topic) == (kind is Kind.BAD), f"{one.origin} is {kind}: {one.topic}"
        if one.topic == case.output_topic:
            assert one.record.key == inputs[one.origin].key, f"{one.origin}: about another product"
            assert (one.record.value is None) == (kind is Kind.DELETION), f"{one.origin} is {kind}"
    check_dead_letters(case.stream)


def check_later_attempts_were_asked_for(case: Case) -> None:
    """Attempts beyond the first come from a retry topic or a replay."""
    asked = {origin for origin, _ in copies(case).values()} | set(case.evidence.replayed())
    unasked = sorted({one.origin for one in outcomes(case) if one.attempt} - asked)
    assert not unasked, f"nobody asked for later attempts at {unasked[:5]}"


def check_duplicates(case: Case) -> None:
    """None exactly once; else no more than was polled and uncommitted when a lease ended, and with equal ids."""
    allowed = Counter[Origin]() if case.exactly_once else case.evidence.may_repeat()
    count = Counter(one.origin for one in first_attempts(case))
    many = {origin: times for origin, times in count.items() if times - 1 > allowed[origin]}
    assert not many, f"{len(many)} events have more outcomes than may be, such as {sorted(many.items())[:5]}"
    _check_late_duplicates(case)
    ids: dict[tuple[Origin, bytes], set[bytes | None]] = defaultdict(set)
    for one in outcomes(case):
        ids[one.origin, one.record.headers.get("mmcat-rank", b"")].add(one.record.headers.get("mmcat-result-id"))
    differ = sorted(work for work, found in ids.items() if len(found) > 1)
    assert not differ, f"the same work has several ids: {differ[:5]}"


def _check_late_duplicates(case: Case) -> None:
    """An attempt out of a delay topic has one outcome for each of its copies there, and exactly once there is one."""
    there = copies(case)
    asked = Counter(there.values())
    if case.exactly_once:
        many = [attempt for attempt, times in asked.items() if times > 1]
        assert not many, f"{len(many)} attempts stand in the delay topics more than once, such as {many[:5]}"
    else:
        for copy, times in case.evidence.may_repeat_late().items():
            if copy in there:
                asked[there[copy]] += times
    count = Counter((one.origin, one.attempt) for one in outcomes(case) if one.lease and one.lease.role == RETRY)
    many = [attempt for attempt, times in count.items() if times > asked[attempt]]
    assert not many, f"{len(many)} later attempts have more outcomes than may be, such as {many[:5]}"


def check_late_photos(case: Case) -> None:
    """A photo that is not there yet is asked for again, until it came or the last attempt said that it never will."""
    asked = set(copies(case).values())
    for one in first_attempts(case):
        if (value := _value(one.record)) and value["image"] == "pending":
            assert (one.origin, 1) in asked, f"{one.origin} is pending, and no delay topic asks for it again"
    highest = highest_per_key(case.stream.output)
    left = [key for key, record in highest.items() if (value := _value(record)) and value["image"] == "pending"]
    assert not left, f"{len(left)} products wait for their photo for ever, such as {left[:5]}"


def check_order(case: Case) -> None:
    """Events of one product in order within a lease; nothing of a given-up lease after its successor's."""
    reached: dict[tuple[bytes | None, str], int] = {}
    holder: dict[tuple[bytes | None, int], LeaseNotes] = {}
    for one in first_attempts(case):
        if one.topic != case.output_topic or one.lease is None:
            continue
        key, lease, offset = one.record.key, one.lease, one.origin[1]
        before = reached.get((key, lease.name), -1)
        assert before < offset, f"{key!r}: {one.origin} after offset {before} under {lease.name}"
        reached[key, lease.name] = offset
        newest = holder.setdefault((key, lease.partition), lease)
        late = lease.begun_at < newest.begun_at
        assert not late or lease.lapsed, f"{key!r}: {one.origin} under {lease.name}, given up before {newest.name}"
        if not late:
            holder[key, lease.partition] = lease


def check_commits(case: Case) -> None:
    """What was committed was acknowledged up to there without a gap, at every moment, and never went back."""
    acknowledged: dict[Origin, list[tuple[Place, int]]] = defaultdict(list)
    for one in first_attempts(case):
        acknowledged[one.origin].append(((one.topic, one.record.partition), one.record.offset))
    offsets: dict[int, list[int]] = defaultdict(list)
    for record in case.stream.input:
        offsets[record.partition].append(record.offset)
    passed: dict[int, int] = {}
    for snapshot in case.snapshots:
        for partition, committed in snapshot.committed.items():
            before = passed.get(partition, 0)
            assert committed >= before, f"partition {partition}: committed went back from {before} to {committed}"
            for offset in (one for one in offsets[partition] if before <= one < committed):
                there = acknowledged[partition, offset]
                known = any(at < snapshot.ends.get(place, 0) for place, at in there)
                assert known, f"committed {committed} of partition {partition} with no outcome of {offset} yet"
            passed[partition] = committed


def check_ranks(case: Case) -> None:
    """Every record of the output topic says its true rank, and the last of each key is the highest."""
    inputs = {(one.partition, one.offset): one for one in case.stream.input}
    highest: dict[bytes | None, tuple[int, ...]] = {}
    for record in case.stream.output:
        rank = rank_of(record)
        value, origin = _value(record), inputs[origin_of(record)]
        assert rank[0] == origin.timestamp_ms, f"{record.key!r}: order {rank[0]} is not that of {origin_of(record)}"
        if value is None:
            assert rank[1] == DELETED, f"{record.key!r}: a deletion with authority {rank[1]}"
        else:
            seen = BLIND.get(value["image"], SEEN)
            assert rank[3] == seen, f"{record.key!r}: completeness {rank[3]} of a photo {value['image']}"
            assert list(rank) == value["rank"], f"{record.key!r}: header and value differ in rank"
        highest[record.key] = max(highest.get(record.key, (-1,)), rank)
    if case.mended:
        wrong = [key for key, one in last_per_key(case.stream.output).items() if rank_of(one) != highest[key]]
        assert not wrong, f"the last record of {len(wrong)} keys is not the highest ranked, such as {wrong[:5]}"


def check_view(case: Case) -> None:
    """The view holds the highest-ranked record of each product, and remembers deletions for their life."""
    for key, record in highest_per_key(case.stream.output).items():
        held = case.view.get(key, Held(None, None))
        expected = record.headers["mmcat-rank"]
        assert held.rank == expected, f"{key!r}: rank {held.rank!r} in the view, {expected!r} in the topic"
        same = (held.result and json.loads(held.result)) == (record.value and json.loads(record.value))
        assert same, f"{key!r}: another result in the view than in the topic"
        if record.value is None:
            life = held.life_ms or 0
            assert life > case.marker_life_ms - MARKER_SLACK_MS, f"{key!r}: its deletion is forgotten in {life} ms"
        else:
            assert held.life_ms is None, f"{key!r}: a result that expires in {held.life_ms} ms"


def check_compacted(case: Case) -> None:
    """Compaction leaves the same last record of each key."""
    if case.compacted is None:
        return
    before, after = last_per_key(case.stream.output), last_per_key(case.compacted)
    differ = [key for key in before if key not in after or before[key].offset != after[key].offset]
    assert not differ, f"compaction changed the last record of {differ[:5]}"
    assert len(case.compacted) < len(case.stream.output), "nothing was compacted"


def check_flat(case: Case) -> None:
    """What a process holds does not grow once it works: the last third of its life against the middle third."""
    warm: dict[int, float] = {}
    for lease in case.evidence.leases.values():
        warm[lease.pid] = min(lease.begun_at + WARM_S, warm.get(lease.pid, float("inf")))
    lives: dict[int, list[Usage]] = defaultdict(list)
    for usage in case.usage:
        if usage.at >= warm.get(usage.pid, float("inf")):
            lives[usage.pid].append(usage)
    for pid, life in lives.items():
        if len(life) < FLAT_SAMPLES:
            continue
        middle, last = life[len(life) // 3 : 2 * len(life) // 3], life[2 * len(life) // 3 :]
        for what, slack in FLAT_SLACK.items():
            if what == "threads":
                slack += LEFT_THREADS * case.left_calls
            was, now = (max(getattr(one, what) for one in part) for part in (middle, last))
            assert now <= was + slack, f"process {pid}: {what} rose from {was} to {now}"


WARM_S: Final = 2.0
"""After its first assignment a process has all its threads and pools."""
FLAT_SAMPLES: Final = 60
FLAT_SLACK: Final = {"rss_bytes": 48 * 2**20, "threads": 8, "descriptors": 48}
"""Above what connections, thread pools and allocators breathe in a short trial; a leak of one per event is far more."""
LEFT_THREADS: Final = 12
"""Of a producer whose call did not come back and is left to it (decision 0010): its own, and one per connection."""

CHECKS: Final[Mapping[str, Callable[[Case], None]]] = {
    "outcomes": check_every_event_has_its_outcome,
    "attempts": check_later_attempts_were_asked_for,
    "duplicates": check_duplicates,
    "late photos": check_late_photos,
    "order": check_order,
    "commits": check_commits,
    "ranks": check_ranks,
    "view": check_view,
    "compaction": check_compacted,
    "flat": check_flat,
}


def highest_per_key(records: Iterable[Record]) -> dict[bytes, Record]:
    """The highest-ranked record of each key; of equal ones the last."""
    found: dict[bytes, Record] = {}
    for record in records:
        if record.key is not None and (record.key not in found or rank_of(record) >= rank_of(found[record.key])):
            found[record.key] = record
    return found
