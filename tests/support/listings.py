"""A stream of events that a test and the process that sends it make alike, from a seed: what was sent is known exactly.

    python -m tests.support.listings --bootstrap HOST:PORT --topic T --count 2000 --photos http://127.0.0.1:P ...

sends what `events` with the same arguments returns.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.support.broker import send


class Kind(StrEnum):
    """What should become of an event."""

    LISTING = "listing"
    DELETION = "deletion"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Event:
    """One record to send, and what should become of it."""

    kind: Kind
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Mix:
    """How many of what; everything else follows from the seed.

    Args:
        count: listings in all, updates included.
        updates: how many of them are about a product that was listed before.
        deletions: products deleted at some point after they were listed.
        bad: events that cannot be understood, one of each kind in turn.
        photos: address of the photo host; empty sends titles alone.
    """

    count: int
    updates: int = 0
    deletions: int = 0
    bad: int = 0
    photos: str = ""
    seed: int = 7


WORDS = ("나이키", "운동화", "남성", "여성", "cotton", "shirt", "냄비", "cast iron", "우산", "lamp", "kids", "2호")
PHOTO_COUNT = 40
"""Different photo addresses in one stream: more than a photo cache would hold hot, few enough to render."""


def events(mix: Mix) -> Iterator[Event]:
    """Return the stream of a mix, the same for the same mix."""
    rng = random.Random(mix.seed)
    kinds = ["new"] * (mix.count - mix.updates) + ["update"] * mix.updates + ["delete"] * mix.deletions
    kinds += ["bad"] * mix.bad
    rng.shuffle(kinds)
    listed: list[str] = []
    bad = 0
    for number, kind in enumerate(kinds):
        if kind == "bad":
            yield bad_event(bad)
            bad += 1
        elif kind == "delete" and listed:
            yield Event(Kind.DELETION, rng.choice(listed).encode(), None, {})
        else:
            product = rng.choice(listed) if kind == "update" and listed else f"p{mix.seed}-{number}"
            listed.append(product)
            yield listing_event(product, number, rng, mix.photos)


def listing_event(product: str, number: int, rng: random.Random, photos: str = "") -> Event:
    """Return one good event; one in four has a photo where there is a photo host (they are slow to see)."""
    value = {
        "product_id": product,
        "title": f"{' '.join(rng.choices(WORDS, k=4))} {number}",
        "brand": "무명",
        "unknown": 1,
    }
    if photos and rng.random() < 1 / 4:
        value["image_url"] = f"{photos}/{rng.randrange(PHOTO_COUNT)}.jpg"
    headers = {"traceparent": f"00-{number:032x}-{number + 1:016x}-01".encode()}
    return Event(Kind.LISTING, product.encode(), json.dumps(value, ensure_ascii=False).encode(), headers)


def bad_event(number: int) -> Event:
    """Return one of the ways an event can be wrong."""
    ways: list[tuple[bytes | None, bytes | None]] = [
        (b"b0", b"not json at all"),
        (b"b1", b'{"product_id": "b1", "title": 5}'),
        (b"b2", b'{"title": "no id"}'),
        (b"b3", b'{"product_id": "b3", "title": "\xff\xfe"}'),
        (b"b4", b'{"product_id": "another", "title": "key and id differ"}'),
        (None, None),
        (b"b6", b"[" * 5_000 + b"]" * 5_000),
        (b"b7", json.dumps({"product_id": "b7", "title": "x" * 5_000}).encode()),
        (b"b8", b""),
    ]
    key, value = ways[number % len(ways)]
    return Event(Kind.BAD, key, value, {"ce_id": str(number).encode()})


def main() -> None:
    """Send a mix; prints how many events that were."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--photos", default="")
    for name in ("count", "updates", "deletions", "bad", "seed"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0, help="events a second; 0: as fast as it goes")
    given = parser.parse_args()
    mix = Mix(given.count, given.updates, given.deletions, given.bad, given.photos, given.seed)
    paced = _paced(events(mix), given.rate)
    print(send(given.bootstrap, given.topic, ((one.key, one.value, one.headers) for one in paced)))


def _paced(stream: Iterator[Event], rate: float) -> Iterator[Event]:
    began = time.monotonic()
    for number, event in enumerate(stream):
        if rate and (ahead := began + number / rate - time.monotonic()) > 0:
            time.sleep(ahead)
        yield event


if __name__ == "__main__":
    main()
