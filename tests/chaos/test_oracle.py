"""The oracle on made-up logs: a clean one passes, and each kind of damage is objected to by the promise it breaks."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from tests.chaos.case import Case, Held, Snapshot, Usage
from tests.chaos.evidence import LEASE_HEADER, Evidence, gather
from tests.chaos.oracle import FLAT_SAMPLES, judge
from tests.support.broker import Record
from tests.support.listings import Event, Kind
from tests.support.outcomes import Stream

OUT, DEAD, LATE = "out", "dead", "late.1s"
LIFE_MS = 777_600_000
KEYS = (b"a", b"b", b"a", b"c", None, b"b")
"""By offset of the input: a is listed and updated, b listed and deleted, c listed; the fifth is a bad event."""


def origin_headers(offset: int, lease: str) -> dict[str, bytes]:
    return {
        "mmcat-origin-topic": b"in",
        "mmcat-origin-partition": b"0",
        "mmcat-origin-offset": b"%d" % offset,
        LEASE_HEADER: lease.encode(),
    }


def retry_headers(offset: int, attempt: int = 1) -> dict[str, bytes]:
    return {**origin_headers(offset, "live-1-0"), "mmcat-attempt": b"%d" % attempt}


def outcome(offset: int, place: int, *, image: str = "absent", attempt: int = 0, lease: str = "live-1-0") -> Record:
    """The right outcome of an input, at a place in the output topic."""
    key, deleted = KEYS[offset], offset == 5
    seen = {"pending": 0, "unavailable": 1}.get(image, 2)
    rank = [1000 + offset, 2, 7, 0] if deleted else [1000 + offset, 0, 7, seen]
    identity = f"{offset}-{rank}"
    value = {"result_id": identity, "image": image, "rank": rank, "attempt": attempt}
    headers = {
        **origin_headers(offset, lease),
        "mmcat-rank": ",".join(map(str, rank)).encode(),
        "mmcat-result-id": identity.encode(),
    }
    return Record(0, place, key, None if deleted else json.dumps(value).encode(), headers, 0)


def letter(place: int = 0, lease: str = "live-1-0") -> Record:
    headers = {**origin_headers(4, lease), "mmcat-error": b"event.not_json"}
    return Record(0, place, None, b"bad", headers, 0)


def diary(*lines: Mapping[str, object]) -> Evidence:
    """Evidence of one lease that polled all and committed all, and of whatever comes on top."""
    first = {"what": "begun", "lease": "live-1-0", "role": "live", "topic": "in", "partition": 0, "pid": 1, "at": 1.0}
    polled = {"what": "polled", "lease": "live-1-0", "first": 0, "last": 5, "at": 2.0}
    done = {"what": "committed", "topic": "in", "pid": 1, "partition": 0, "offset": 6, "at": 3.0}
    ended = {"what": "ended", "lease": "live-1-0", "how": "revoked", "at": 4.0}
    return gather([first, polled, *(lines or (done, ended))])


def begun(lease: str, pid: int, at: float, role: str = "live") -> dict[str, object]:
    return {"what": "begun", "lease": lease, "role": role, "topic": "in", "partition": 0, "pid": pid, "at": at}


def view_of(output: list[Record]) -> dict[bytes, Held]:
    return {
        one.key: Held(one.headers["mmcat-rank"], one.value, None if one.value else LIFE_MS) for one in output if one.key
    }


@pytest.fixture
def clean() -> Case:
    """Six events, six outcomes, all committed."""
    values = {4: b"bad", 5: None}
    sent = [
        Event(Kind.BAD if n == 4 else Kind.DELETION if n == 5 else Kind.LISTING, key, values.get(n, b"%d" % n), {})
        for n, key in enumerate(KEYS)
    ]
    inputs = [Record(0, n, one.key, one.value, {}, 1000 + n) for n, one in enumerate(sent)]
    output = [outcome(offset, place) for place, offset in enumerate((0, 1, 2, 3, 5))]
    ends = {(OUT, 0): 5, (DEAD, 0): 1}
    return Case(
        stream=Stream(inputs, output, [letter()], sent),
        output_topic=OUT,
        dead_letter_topic=DEAD,
        evidence=diary(),
        view=view_of(output),
        snapshots=[Snapshot(2.5, {}, {}), Snapshot(3.0, {0: 6}, ends)],
        marker_life_ms=LIFE_MS,
    )


def with_output(case: Case, output: list[Record]) -> Case:
    placed = [replace(one, offset=place) for place, one in enumerate(output)]
    ends = {(OUT, 0): len(placed), (DEAD, 0): 1}
    stream = replace(case.stream, output=placed)
    return replace(case, stream=stream, snapshots=[Snapshot(3.0, {0: 6}, ends)], view=view_of(placed))


def broken(case: Case) -> set[str]:
    return set(judge(case).promises)


def test_a_clean_log_has_nothing_to_object_to(clean: Case) -> None:
    verdict = judge(clean)
    assert verdict.objections == []
    assert (verdict.events, verdict.losses, verdict.duplicates) == (6, 0, 0)


def test_an_event_without_an_outcome_is_a_loss(clean: Case) -> None:
    verdict = judge(with_output(clean, [one for one in clean.stream.output if one.key != b"c"]))
    assert verdict.losses == 1
    assert {"outcomes", "commits"} <= set(verdict.promises)


def test_an_outcome_without_an_event_is_made_up(clean: Case) -> None:
    stranger = replace(clean.stream.output[0], headers={**clean.stream.output[0].headers, "mmcat-origin-offset": b"99"})
    assert "outcomes" in broken(with_output(clean, [*clean.stream.output, stranger]))


def test_a_good_event_in_the_dead_letters_is_told(clean: Case) -> None:
    wrong = replace(letter(), headers={**letter().headers, "mmcat-origin-offset": b"3"})
    stream = replace(clean.stream, output=[one for one in clean.stream.output if one.key != b"c"])
    stream = replace(stream, dead_letters=[*stream.dead_letters, wrong])
    assert "outcomes" in broken(replace(clean, stream=stream))


def test_repeats_are_bounded_by_what_was_left_uncommitted(clean: Case) -> None:
    again = [*clean.stream.output[:4], outcome(3, 4, lease="live-2-0"), clean.stream.output[4]]
    repeated = with_output(clean, again)
    assert broken(repeated) == {"duplicates"}, "all was committed: nothing may be repeated"
    killed = diary(
        {"what": "committed", "topic": "in", "pid": 1, "partition": 0, "offset": 3, "at": 3.0},
        begun("live-2-0", 2, 5.0),
        {"what": "polled", "lease": "live-2-0", "first": 3, "last": 5, "at": 6.0},
        {"what": "committed", "topic": "in", "pid": 2, "partition": 0, "offset": 6, "at": 7.0},
    )
    assert broken(replace(repeated, evidence=killed)) == set()
    assert broken(replace(repeated, evidence=killed, exactly_once=True)) == {"duplicates"}


def test_the_same_work_with_another_id_is_told(clean: Case) -> None:
    other = outcome(3, 4, attempt=1)
    other = replace(other, headers={**other.headers, "mmcat-result-id": b"another"})
    assert "duplicates" in broken(with_output(clean, [*clean.stream.output, other]))


def test_later_attempts_need_a_retry_or_a_replay(clean: Case) -> None:
    late = with_output(clean, [*clean.stream.output, outcome(3, 5, attempt=1)])
    assert broken(late) == {"attempts"}
    asked = Record(0, 0, b"c", b"3", retry_headers(3), 0)
    assert broken(replace(late, retries={LATE: [asked]})) == set()


def with_late_photo(case: Case) -> Case:
    """Product c is answered without its photo, asked for again out of a delay topic, and answered with it."""
    pending = outcome(3, 3, image="pending")
    used = outcome(3, 5, image="used", attempt=1, lease="live-1-1")
    output = [*case.stream.output[:3], pending, case.stream.output[4], used]
    asked = Record(0, 0, b"c", b"3", retry_headers(3), 0)
    lease = {**begun("live-1-1", 1, 1.0, "retry"), "topic": LATE}
    notes = diary(
        {"what": "committed", "topic": "in", "pid": 1, "partition": 0, "offset": 6, "at": 3.0},
        {"what": "ended", "lease": "live-1-0", "how": "revoked", "at": 4.0},
        lease,
        {"what": "polled", "lease": "live-1-1", "first": 0, "last": 0, "at": 4.5},
    )
    return replace(with_output(case, output), retries={LATE: [asked]}, evidence=notes)


def test_a_photo_that_comes_late_is_nothing_to_object_to(clean: Case) -> None:
    assert broken(with_late_photo(clean)) == set()


def test_a_pending_answer_that_nobody_asks_for_again_is_told(clean: Case) -> None:
    late = with_late_photo(clean)
    unanswered = with_output(late, late.stream.output[:-1])
    assert broken(unanswered) == {"late photos"}
    assert broken(replace(unanswered, retries={})) == {"late photos"}


def test_repeats_of_a_later_attempt_are_bounded_by_its_copies_and_by_what_was_left_uncommitted(clean: Case) -> None:
    late = with_late_photo(clean)
    again = with_output(late, [*late.stream.output, late.stream.output[-1]])
    assert broken(again) == set(), "nothing of the delay topic was committed: it may be worked again"
    assert broken(replace(again, exactly_once=True)) == {"duplicates"}
    again.evidence.leases["live-1-1"].commits.append((1, 5.0))
    assert broken(again) == {"duplicates"}


def test_two_events_of_a_product_in_the_wrong_order_are_told(clean: Case) -> None:
    swapped = [outcome(2, 0), outcome(1, 1), outcome(0, 2), outcome(3, 3), outcome(5, 4)]
    assert broken(with_output(clean, swapped)) == {"order", "ranks", "view"}


@pytest.mark.parametrize(("how", "promises"), [("revoked", {"order"}), ("lost", set()), ("sought_back", set())])
def test_what_comes_after_a_revoke_is_told_and_after_a_loss_is_not(clean: Case, how: str, promises: set[str]) -> None:
    """Of a lease that was lost (or whose process was killed) records may still be on their way."""
    again = [*clean.stream.output[:3], outcome(3, 3, lease="live-2-0"), outcome(3, 4), clean.stream.output[4]]
    notes = diary(
        {"what": "committed", "topic": "in", "pid": 1, "partition": 0, "offset": 3, "at": 3.0},
        {"what": "ended", "lease": "live-1-0", "how": how, "at": 4.0},
        begun("live-2-0", 2, 5.0),
        {"what": "polled", "lease": "live-2-0", "first": 3, "last": 5, "at": 6.0},
    )
    assert broken(replace(with_output(clean, again), evidence=notes)) == promises


def test_a_commit_past_an_outcome_that_was_not_there_yet_is_told(clean: Case) -> None:
    early = Snapshot(2.7, {0: 4}, {(OUT, 0): 3, (DEAD, 0): 0})
    assert broken(replace(clean, snapshots=[early, *clean.snapshots])) == {"commits"}


def test_a_commit_that_goes_back_is_told(clean: Case) -> None:
    back = Snapshot(4.0, {0: 2}, clean.snapshots[-1].ends)
    assert broken(replace(clean, snapshots=[*clean.snapshots, back])) == {"commits"}


def _strip_rank(record: Record) -> Record:
    return replace(record, headers={name: one for name, one in record.headers.items() if name != "mmcat-rank"})


def _wrong_completeness(record: Record) -> Record:
    value = {**json.loads(record.value or b""), "image": "pending"}
    return replace(record, value=json.dumps(value).encode())


def _wrong_order(record: Record) -> Record:
    return replace(record, headers={**record.headers, "mmcat-rank": b"5,0,7,2"})


@pytest.mark.parametrize("damage", [_strip_rank, _wrong_completeness, _wrong_order])
def test_a_rank_that_is_not_the_true_one_is_told(clean: Case, damage: Callable[[Record], Record]) -> None:
    output = [damage(one) if one.key == b"c" else one for one in clean.stream.output]
    stream = replace(clean.stream, output=output)
    assert "ranks" in broken(replace(clean, stream=stream))


def test_a_stale_answer_after_a_newer_one_is_told_at_rest_even_if_the_view_is_right(clean: Case) -> None:
    stale = with_output(clean, [*clean.stream.output, outcome(0, 5, attempt=1)])
    asked = Record(0, 0, b"a", b"0", retry_headers(0), 0)
    stale = replace(stale, retries={LATE: [asked]}, view=view_of(clean.stream.output))
    assert broken(stale) == {"ranks"}
    winner = replace(outcome(2, 6), headers={**outcome(2, 6).headers, "mmcat-repair": b"1"})
    mended = with_output(clean, [*stale.stream.output, winner])
    assert broken(replace(mended, retries={LATE: [asked]})) == set()


@pytest.mark.parametrize(
    ("key", "held"),
    [
        (b"a", Held(None, None)),
        (b"a", Held(b"1000,0,7,2", b"{}")),
        (b"c", Held(b"1003,0,7,2", b"{}")),
        (b"c", Held(b"1003,0,7,2", outcome(3, 0).value, 1000)),
        (b"b", Held(None, None)),
        (b"b", Held(b"1005,2,7,0", None, 60_000)),
    ],
)
def test_a_view_that_holds_something_else_is_told(clean: Case, key: bytes, held: Held) -> None:
    assert broken(replace(clean, view={**clean.view, key: held})) == {"view"}


def test_compaction_that_changes_the_last_record_is_told(clean: Case) -> None:
    kept = [one for one in clean.stream.output if one.offset not in (0, 1)]
    assert broken(replace(clean, compacted=kept)) == set()
    assert broken(replace(clean, compacted=[one for one in kept if one.key != b"c"])) == {"compaction"}
    assert broken(replace(clean, compacted=clean.stream.output)) == {"compaction"}


@pytest.mark.parametrize("what", ["rss_bytes", "threads", "descriptors"])
def test_a_process_that_holds_more_and_more_is_told(clean: Case, what: str) -> None:
    flat = [Usage(1, 10.0 + n, 10**8, 25, 40) for n in range(FLAT_SAMPLES)]
    assert broken(replace(clean, usage=flat)) == set()
    rising = [replace(one, **{what: getattr(one, what) * (1 + n // 10)}) for n, one in enumerate(flat)]
    assert broken(replace(clean, usage=rising)) == {"flat"}
