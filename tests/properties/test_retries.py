"""A retry is its original's copy, whatever stands in its headers; retries never take more than their share."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.records import Incoming, Origin
from consumer.retries import ATTEMPT, DUE, MAX_ATTEMPT, REPLAYED, Delays, read_retry, retry_record
from consumer.retry_share import RetryShare
from consumer.settings import Settings

DELAYS = Delays.of(Settings())
COPY = Origin("products.retry.30s", 2, 77, 1_700_000_000_500)
ORIGINS = st.builds(
    Origin,
    st.from_regex(re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII), fullmatch=True),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(-1, 2**53 - 1),
)
BODIES = st.none() | st.binary(max_size=50)
NAMES = st.sampled_from([ATTEMPT, DUE, REPLAYED, *(name for name, _ in COPY.headers()), "traceparent", "other"])
VALUES = st.binary(max_size=12) | st.integers().map(lambda one: str(one).encode()) | st.just(b"9" * 5_000)


@given(ORIGINS, BODIES, BODIES, st.integers(0, MAX_ATTEMPT - 1), st.integers(0, 2**40))
def test_a_retry_is_read_as_the_event_it_is_a_copy_of(
    origin: Origin, key: bytes | None, value: bytes | None, attempt: int, now_ms: int
) -> None:
    first = Incoming(origin, key, value, [("traceparent", b"00-1"), ("version", b"3")], attempt=attempt)
    delay = DELAYS["products.retry.5m"]
    sent = retry_record(first, delay, now_ms)
    assert (sent.topic, sent.key, sent.value) == (delay.topic, key, value)
    read = read_retry(Incoming(COPY, sent.key, sent.value, sent.headers))
    assert (read.origin, read.place, read.fault) == (origin, COPY, "")
    assert (read.attempt, read.due_ms, read.answered) == (attempt + 1, now_ms + 300_000, True)
    assert dict(read.headers)["traceparent"] == b"00-1"


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_any_headers_are_a_retry_or_a_fault_with_a_reason(headers: list[tuple[str, bytes]]) -> None:
    read = read_retry(Incoming(COPY, b"k", b"v", headers))
    assert read.place == COPY
    if read.fault:
        assert (read.origin, read.attempt) == (COPY, 0)
    else:
        assert read.attempt >= 1
        assert 0 <= read.due_ms < 2**53


@pytest.mark.parametrize("missing", [ATTEMPT, DUE, *(name for name, _ in COPY.headers())])
def test_each_header_that_is_missing_is_named(missing: str) -> None:
    sent = retry_record(Incoming(COPY, b"k", b"v", []), DELAYS["products.retry.30s"], 0)
    headers = [(name, value) for name, value in sent.headers if name != missing]
    assert missing in read_retry(Incoming(COPY, b"k", b"v", headers)).fault


def test_a_dead_letter_sent_again_was_not_answered_yet() -> None:
    headers = [(ATTEMPT, b"1"), (DUE, b"5"), (REPLAYED, b"1"), *COPY.headers()]
    assert not read_retry(Incoming(COPY, b"k", b"v", headers)).answered


@pytest.mark.parametrize(
    ("topic", "at_least_s", "then"),
    [
        ("products.registered", 0, "products.retry.30s"),
        ("products.registered", 30, "products.retry.30s"),
        ("products.registered", 31, "products.retry.5m"),
        ("products.registered", 10**9, "products.retry.1h"),
        ("products.retry.30s", 0, "products.retry.5m"),
        ("products.retry.5m", 7_200, "products.retry.1h"),
        ("products.retry.1h", 0, None),
        ("products.retry.1h", 30, None),
    ],
)
def test_the_next_delay_is_long_enough_where_one_is(topic: str, at_least_s: float, then: str | None) -> None:
    found = DELAYS.after(topic, at_least_s)
    assert (found and found.topic) == then


STEPS = st.lists(
    st.tuples(
        st.integers(0, 200),  # live events polled
        st.integers(0, 100),  # retries that are due
        st.floats(0, 1),  # how much of what is in flight is finished
    ),
    max_size=60,
)


@given(st.floats(0.01, 1), st.integers(1, 500), STEPS)
def test_while_live_events_wait_retries_take_no_more_than_their_share(
    share: float, at_once: int, steps: list[tuple[int, int, float]]
) -> None:
    lane = RetryShare(share, at_once)
    burst = max(1, int(share * at_once))
    live = retries = in_flight = 0
    for polled, due, finished in steps:
        lane.took_live(polled)
        live += polled
        taken = min(due, lane.room(in_flight, live_waits=True))
        lane.took_retries(taken)
        retries += taken
        in_flight += taken
        assert in_flight <= burst, "of the fetches that run at once"
        assert retries * (1 - share) <= share * live + burst + 1e-6, "of the listings, but for a first few"
        in_flight -= int(in_flight * finished)


@given(st.integers(1, 500), st.integers(0, 500))
def test_while_nothing_live_waits_half_stays_free_for_what_comes(at_once: int, in_flight: int) -> None:
    room = RetryShare(0.2, at_once).room(in_flight, live_waits=False)
    assert room == max(0, max(1, at_once // 2) - in_flight)


def test_an_idle_hour_earns_no_flood() -> None:
    lane = RetryShare(0.2, 64)
    for _ in range(1_000):
        lane.took_retries(lane.room(0, live_waits=False))
    assert lane.room(0, live_waits=True) == 0, "what was taken meanwhile is spent"
    lane.took_live(10**6)
    assert lane.room(0, live_waits=True) == 12
