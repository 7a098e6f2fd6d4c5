"""What was sent again is never forgotten short of need, and a dead letter sent again is the record it was."""

import string

from hypothesis import given
from hypothesis import strategies as st

from consumer.dead_letters import dead_letter
from consumer.letter_journal import MAX_BYTES, Journal
from consumer.letters import Choice, Letter, Refused, read_letter, sent_again
from consumer.records import Incoming, Origin

CODES = ("event.schema", "event.not_json", "model.failed", "")
PRODUCTS = ("p1", "p2", "상품")

some = st.builds(
    Choice, st.frozensets(st.sampled_from(CODES[:3]), max_size=2), st.frozensets(st.sampled_from(PRODUCTS), max_size=2)
)
spans = st.tuples(st.integers(0, 60), st.integers(1, 30)).map(lambda one: (one[0], one[0] + one[1]))
letters = st.builds(
    Letter,
    partition=st.just(0),
    offset=st.integers(0, 95),
    timestamp_ms=st.just(0),
    key=st.sampled_from(PRODUCTS).map(str.encode),
    value=st.none(),
    headers=st.just([]),
    code=st.sampled_from(CODES),
    detail=st.just(""),
    origin=st.just(Origin("in", 0, 0, 0)),
    truncated=st.just(False),
)


@given(runs=st.lists(st.tuples(some, spans), max_size=8), letter=letters)
def test_a_journal_holds_exactly_the_letters_of_its_runs_also_when_written_down(
    runs: list[tuple[Choice, tuple[int, int]]], letter: Letter
) -> None:
    journal = Journal()
    for choice, (start, end) in runs:
        journal = journal.add(choice, start, end)
    expected = any(start <= letter.offset < end and choice.takes(letter) for choice, (start, end) in runs)
    assert journal.has(letter) == expected
    assert Journal.parse(journal.format()).has(letter) == expected


@given(runs=st.lists(st.tuples(some, spans), max_size=8), letter=letters, gone=st.integers(0, 95))
def test_what_is_gone_from_the_topic_may_be_forgotten_and_nothing_else(
    runs: list[tuple[Choice, tuple[int, int]]], letter: Letter, gone: int
) -> None:
    journal = Journal()
    for choice, (start, end) in runs:
        journal = journal.add(choice, start, end)
    if letter.offset >= gone:
        assert journal.since(gone).has(letter) == journal.has(letter)


@given(st.lists(st.text(max_size=200), max_size=60, unique=True))
def test_a_journal_always_fits_and_forgets_the_shortest_runs_first(products: list[str]) -> None:
    journal = Journal()
    for number, product in enumerate(products):
        journal = journal.add(Choice(products=frozenset([product])), 0, number + 1)
    text = journal.format()
    assert len(text.encode()) <= MAX_BYTES
    kept = Journal.parse(text)
    assert kept.format() == text


@given(st.text() | st.sampled_from(['{"a": 1}', "[1]", "[[1, 2, 3, 4]]", '[[["a"], [], "x", 2]]']))
def test_a_journal_that_is_none_holds_nothing(text: str) -> None:
    Journal.parse(text).format()


names = st.sampled_from(["traceparent", "ce_id", "version", "mmcat-error", "mmcat-truncated", "mmcat-origin-offset"])
records = st.builds(
    Incoming,
    origin=st.builds(
        Origin,
        st.text(string.ascii_letters, min_size=1, max_size=20),
        st.integers(0, 1000),
        st.integers(0, 2**53),
        st.integers(0, 2**44),
    ),
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=300),
    headers=st.lists(st.tuples(names, st.binary(max_size=10)), max_size=3),
)


@given(records, st.text(max_size=30), st.integers(20, 400))
def test_a_dead_letter_is_read_back_as_what_it_was_and_sent_again_byte_for_byte(
    record: Incoming, detail: str, max_bytes: int
) -> None:
    outgoing = dead_letter(record, "event.schema", detail, topic="dead", version="1", max_bytes=max_bytes)
    place = Origin("dead", 3, 7, 99)
    letter = read_letter(Incoming(place, outgoing.key, outgoing.value, outgoing.headers))
    assert (letter.code, letter.origin) == ("event.schema", record.origin)
    cut = len(record.key or b"") + len(record.value or b"") > max_bytes
    assert letter.refused is (Refused.TRUNCATED if cut else None)
    if not cut:
        again = sent_again(letter, "retry", 1234)
        assert (again.key, again.value) == (record.key, record.value)
        headers = dict(again.headers)
        assert set(record.origin.headers()) <= set(again.headers)
        assert (headers["mmcat-attempt"], headers["mmcat-due"], headers["mmcat-replayed"]) == (b"1", b"1234", b"1")
        assert "mmcat-error" not in headers


@given(st.lists(st.tuples(st.text(max_size=30), st.binary(max_size=30)), max_size=5), st.none() | st.binary())
def test_any_record_is_read_and_what_is_none_of_ours_is_refused(
    headers: list[tuple[str, bytes]], value: bytes | None
) -> None:
    letter = read_letter(Incoming(Origin("dead", 0, 0, 0), None, value, headers))
    assert letter.refused in (Refused.NO_ORIGIN, Refused.TRUNCATED)
    assert isinstance(letter.product, str)
