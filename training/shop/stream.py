"""The shop's stream: registrations, and on request updates, deletions, late photos and bad events, as bytes.

Deterministic in (shop, mix, start, count). Knows nothing of Kafka: whoever sends hands the records to a client and
keeps the truth that comes with each. Memory is bounded by the updates and deletions that are still to come.

After shop.py and bad_events.py; photo_host.py serves the photos under the addresses that stand in the events.
"""

import heapq
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from training.shop.bad_events import bad_event
from training.shop.draws import TOKEN_LIMIT, Draws, key_of
from training.shop.shop import REVISIONS, PhotoState, Shop, ShopListing

_LONGEST_WAIT = 60  # registrations between two events of one product
_MOST_UPDATES = 3
_DELETION = REVISIONS

Owed = tuple[int, int, int]  # due after the registration of this index, of which index, revision or _DELETION


class EventKind(StrEnum):
    """What an event says."""

    REGISTERED = "registered"
    UPDATED = "updated"
    DELETED = "deleted"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class StreamMix:
    """What comes beside registrations, as shares of them.

    Args:
        updates: of products that are registered anew later, one to three times, with another title and photo.
        deletions: of products that are deleted later, after their last update.
        late_photos: of photos that the host does not have at first; see `photo_host.late`.
        bad_events: bad events per registration.
    """

    updates: float = 0.0
    deletions: float = 0.0
    late_photos: float = 0.0
    bad_events: float = 0.0

    def __post_init__(self) -> None:
        for name in ("updates", "deletions", "late_photos", "bad_events"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0 … 1, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One record and the truth about it.

    Args:
        key, value: what is sent; a null value is a deletion.
        product_id: whose event it is; of a bad event the product it pretends to be.
        listing: what was registered; None for deletions and bad events.
        photo_late: the host will have the photo only after a while.
        fault: of a bad event, its name in bad_events.FAULTS.
    """

    key: bytes | None
    value: bytes | None
    kind: EventKind
    product_id: str
    listing: ShopListing | None = None
    photo_late: bool = False
    fault: str | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def path(self) -> tuple[str, ...] | None:
        """Ids of the true path, None where the event must not get one."""
        return self.listing.content_path if self.listing is not None else None


def events(
    shop: Shop,
    count: int,
    photo_base: str,
    mix: StreamMix | None = None,
    *,
    start: int = 0,
    now: Callable[[], datetime] | None = None,
) -> Iterator[StreamEvent]:
    """Registers listings start … start + count - 1, with what the mix adds; all that is owed comes before the end.

    Args:
        photo_base: the photo host's address; a photo's is `<photo_base>/<token>.jpg`.
        now: the registration time; None: the shop's own time, the same in every run.
    """
    mix = mix or StreamMix()
    key = key_of("stream", shop.config.seed, shop.config.split)
    owed: list[Owed] = []
    for index in range(start, start + count):
        draws = Draws(key, index)
        yield listing_event(shop.listing(index), photo_base, EventKind.REGISTERED, mix.late_photos, now)
        if draws.chance(mix.bad_events):
            product_id = f"bad-{index}"
            bad = bad_event(draws, product_id)
            yield StreamEvent(bad.key, bad.value, EventKind.BAD, product_id, fault=bad.fault)
        for due in _follow_ups(draws, index, mix):
            heapq.heappush(owed, due)
        while owed and owed[0][0] <= index:
            yield _owed_event(shop, heapq.heappop(owed), photo_base, mix, now)
    while owed:
        yield _owed_event(shop, heapq.heappop(owed), photo_base, mix, now)


def listing_event(
    listing: ShopListing,
    photo_base: str,
    kind: EventKind = EventKind.REGISTERED,
    late_photos: float = 0.0,
    now: Callable[[], datetime] | None = None,
) -> StreamEvent:
    """The event that registers or updates a listing."""
    registered_at = now().isoformat(timespec="milliseconds") if now else listing.registered_at
    value: dict[str, object] = {
        "product_id": listing.product_id,
        "title": listing.title,
        "brand": listing.brand,
        "version": listing.revision,
        "registered_at": registered_at,
    }
    if listing.photo_token:
        value["image_url"] = f"{photo_base}/{listing.photo_token}.jpg"
    return StreamEvent(
        key=listing.product_id.encode(),
        value=json.dumps(value, ensure_ascii=False).encode(),
        kind=kind,
        product_id=listing.product_id,
        listing=listing,
        photo_late=listing.photo_state is PhotoState.FINE and is_late(listing.photo_token, late_photos),
    )


def is_late(photo_token: str, share: float) -> bool:
    """Whether this photo is one of the share that the host does not have at first: host and stream agree by this."""
    return int(photo_token, 16) < share * TOKEN_LIMIT


def _follow_ups(draws: Draws, index: int, mix: StreamMix) -> list[Owed]:
    """What this product will still get, each later than the one before."""
    due, owed = index, []
    if draws.chance(mix.updates):
        for revision in range(1, draws.between(1, _MOST_UPDATES) + 1):
            due += draws.between(1, _LONGEST_WAIT)
            owed.append((due, index, revision))
    if draws.chance(mix.deletions):
        owed.append((due + draws.between(1, _LONGEST_WAIT), index, _DELETION))
    return owed


def _owed_event(
    shop: Shop, owed: Owed, photo_base: str, mix: StreamMix, now: Callable[[], datetime] | None
) -> StreamEvent:
    _, index, revision = owed
    listing = shop.listing(index, 0 if revision == _DELETION else revision)
    if revision == _DELETION:
        return StreamEvent(listing.product_id.encode(), None, EventKind.DELETED, listing.product_id)
    return listing_event(listing, photo_base, EventKind.UPDATED, mix.late_photos, now)
