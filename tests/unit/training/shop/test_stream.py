"""The stream: what is owed comes, in each product's order, and bad events are bad."""

import json
from collections import Counter
from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.events import Deletion, Event, Refusal, parse
from training.shop.bad_events import FAULTS, bad_event
from training.shop.draws import Draws, key_of
from training.shop.shop import Shop, ShopConfig
from training.shop.stream import EventKind, StreamEvent, StreamMix, events, is_late

SHOP = Shop(ShopConfig().demo())
BASE = "http://127.0.0.1:1/p"
ALL = StreamMix(updates=0.3, deletions=0.2, late_photos=0.2, bad_events=0.2)
EVENT_BYTES = 256_000


@pytest.fixture(scope="module")
def mixed() -> list[StreamEvent]:
    return list(events(SHOP, 600, BASE, ALL))


def test_without_a_mix_it_is_registrations_alone() -> None:
    found = list(events(SHOP, 40, BASE, start=10))
    assert [event.listing for event in found] == [SHOP.listing(index) for index in range(10, 50)]
    assert all(event.path == event.listing.content_path for event in found if event.listing)


def test_the_mix_has_the_shares_asked_for(mixed: list[StreamEvent]) -> None:
    kinds = Counter(event.kind for event in mixed)
    assert kinds[EventKind.REGISTERED] == 600
    assert kinds[EventKind.BAD] == pytest.approx(120, abs=30)
    assert kinds[EventKind.DELETED] == pytest.approx(120, abs=30)
    updated = {event.product_id for event in mixed if event.kind is EventKind.UPDATED}
    assert len(updated) == pytest.approx(180, abs=35)
    late = [event.photo_late for event in mixed if event.listing]
    assert sum(late) / len(late) == pytest.approx(0.2, abs=0.05)


def test_the_stream_is_the_same_each_time(mixed: list[StreamEvent]) -> None:
    assert list(islice(events(SHOP, 600, BASE, ALL), 300)) == mixed[:300]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 120), st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_each_product_is_registered_then_updated_upwards_then_deleted(
    count: int, start: int, updates: float, deletions: float, bad: float
) -> None:
    steps: dict[str, list[StreamEvent]] = {}
    for event in events(SHOP, count, BASE, StreamMix(updates, deletions, 0.0, bad), start=start):
        if event.kind is not EventKind.BAD:
            steps.setdefault(event.product_id, []).append(event)
    assert len(steps) == count
    for first, *later in steps.values():
        assert first.kind is EventKind.REGISTERED
        assert all(event.kind is not EventKind.REGISTERED for event in later)
        assert all(event.kind is EventKind.UPDATED for event in later[:-1])
        versions = [json.loads(event.value)["version"] for event in [first, *later] if event.value is not None]
        assert versions == list(range(len(versions)))


def test_every_good_event_is_one_to_the_consumer_and_every_bad_one_is_refused(mixed: list[StreamEvent]) -> None:
    for event in mixed:
        parsed = parse(event.key, event.value, max_bytes=EVENT_BYTES)
        if event.kind is EventKind.BAD:
            assert isinstance(parsed, Refusal), event.fault
            assert event.path is None
        elif event.kind is EventKind.DELETED:
            assert parsed == Deletion(event.product_id)
        else:
            assert isinstance(parsed, Event)
            assert event.listing is not None
            assert parsed.title == event.listing.title
            assert (parsed.image_url is None) == (event.listing.photo is None)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FAULTS), st.integers(0, 10**9))
def test_every_class_of_bad_event_is_refused(fault: str, index: int) -> None:
    bad = bad_event(Draws(key_of("bad"), index), f"bad-{index}", fault)
    assert isinstance(parse(bad.key, bad.value, max_bytes=EVENT_BYTES), Refusal)


def test_bad_events_share_no_product_with_good_ones(mixed: list[StreamEvent]) -> None:
    bad = {event.product_id for event in mixed if event.kind is EventKind.BAD}
    assert not bad & {event.product_id for event in mixed if event.kind is not EventKind.BAD}


def test_time_is_the_callers_when_it_gives_one() -> None:
    moment = datetime(2030, 5, 6, 7, 8, 9, tzinfo=UTC)
    first = next(events(SHOP, 1, BASE, now=lambda: moment))
    assert first.value is not None
    assert json.loads(first.value)["registered_at"] == "2030-05-06T07:08:09.000+00:00"


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_late_share_is_the_share_of_addresses(share: float) -> None:
    tokens = [listing.photo_token for listing in SHOP.listings(800) if listing.photo_token]
    assert sum(is_late(token, share) for token in tokens) / len(tokens) == pytest.approx(share, abs=0.06)


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match="updates"):
        StreamMix(updates=1.5)
