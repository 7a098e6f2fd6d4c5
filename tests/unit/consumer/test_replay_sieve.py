"""What needs no work is found by what is known, and only by that: never an event that may still be the newest."""

import json
import threading
from collections.abc import Sequence
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from consumer.loading import load
from consumer.rank import Rank
from consumer.records import Headers, Incoming, Origin
from consumer.replay_sieve import Newest, Sieve, Unneeded
from consumer.view_guard import Held, ViewGuard

IDS = st.sampled_from([f"p{number}" for number in range(30)])
RANKS = st.builds(Rank, st.integers(0, 2**53 - 1), st.sampled_from([0, 1, 2]), st.just(5), st.integers(0, 2))


@given(st.integers(1, 40), st.lists(st.tuples(IDS, RANKS)), st.lists(st.tuples(IDS, RANKS)))
def test_an_event_is_outdated_only_by_one_that_came_however_small_the_table(
    slots: int, noted: list[tuple[str, Rank]], asked: list[tuple[str, Rank]]
) -> None:
    newest = Newest(slots)
    for product, rank in noted:
        newest.note(product, rank)
    for product, rank in asked:
        if newest.outdates(product, rank):
            assert any(one == product and other[:2] > rank[:2] for one, other in noted)


@given(st.lists(st.tuples(IDS, RANKS), min_size=1))
def test_with_room_for_all_every_outdated_event_is_found(noted: list[tuple[str, Rank]]) -> None:
    newest = Newest(1_000_003)  # thirty products: two in one slot is a matter of one in two thousand
    for product, rank in noted:
        newest.note(product, rank)
    slots = {hash(product) % 2**64 % 1_000_003 for product, _ in noted}
    if len(slots) == len({product for product, _ in noted}):
        for product, rank in noted:
            best = max(other[:2] for one, other in noted if one == product)
            assert newest.outdates(product, rank) == (best > rank[:2])


class _View:
    """What a view holds, without one."""

    def __init__(self, **held: Rank) -> None:
        self._held = held

    def held(self, product_ids: Sequence[str], until: threading.Event) -> list[Held | None] | None:
        return (
            None if until.is_set() else [(self._held[one], b"{}") if one in self._held else None for one in product_ids]
        )


def _event(offset: int, product: str, version: int | None, headers: Headers | None = None) -> Incoming:
    value = None if headers is not None else json.dumps({"product_id": product, "title": "t", "version": version})
    return Incoming(Origin("in", 0, offset, 1_000 + offset), product.encode(), value and value.encode(), headers or [])  # type: ignore[arg-type]


def _sieve(order_by: str, **held: Rank) -> Sieve:
    settings, _ = load(environment={}, overrides={"order_by": order_by})
    return Sieve(settings, 7, cast(ViewGuard, _View(**held)))


def test_by_version_a_later_event_with_a_lower_version_is_the_outdated_one() -> None:
    events = [_event(0, "a", 5), _event(1, "a", 3), _event(2, "b", 1), _event(3, "b", None, [("version", b"1")])]
    sieve = _sieve("version")
    sieve.note([*events, _event(4, "a", None)])  # without a version it is a dead letter, which outdates nothing
    later = Unneeded.LATER_IN_RANGE
    assert sieve.sift(events, threading.Event()) == [None, later, later, None]


def test_the_view_outdates_what_no_answer_could_outrank_and_nothing_else() -> None:
    ours = 1_000
    held = {
        "newer": Rank(ours + 1, 0, 0, 0),
        "deleted": Rank(ours, 2, 0, 0),
        "newer_model": Rank(ours, 0, 8, 0),
        "same": Rank(ours, 0, 7, 2),
        "blind": Rank(ours, 0, 7, 1),
        "older": Rank(ours - 1, 2, 9, 2),
    }
    events = [
        Incoming(Origin("in", 0, 0, ours), one.encode(), _event(0, one, 1).value, []) for one in [*held, "unknown"]
    ]
    in_view = Unneeded.NEWER_IN_VIEW
    assert _sieve("timestamp", **held).sift(events, threading.Event()) == [in_view] * 3 + [None] * 4


def test_told_to_stop_it_says_nothing() -> None:
    stopping = threading.Event()
    stopping.set()
    assert _sieve("timestamp").sift([_event(0, "a", 1)], stopping) is None
