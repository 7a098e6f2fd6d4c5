"""Bad events: one of every class that must end in the dead-letter topic, byte for byte.

The bytes are drawn like everything else of the shop, and no bad event shares a product with a good one.
After draws.py; before stream.py. What a consumer calls each fault is the consumer's matter.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from training.shop.draws import Draws

Made = tuple[bytes | None, bytes | None]  # key, value

HUGE_BYTES = 900_000  # below Kafka's usual limit of a message, above that of an event
_DEEP = 5_000


@dataclass(frozen=True, slots=True)
class BadEvent:
    """A record that no consumer can take.

    Args:
        fault: a name of FAULTS.
    """

    fault: str
    key: bytes | None
    value: bytes | None


def bad_event(draws: Draws, product_id: str, fault: str | None = None) -> BadEvent:
    """Makes a bad event about a product that nobody else speaks of.

    Args:
        fault: None: any of FAULTS.
    """
    fault = draws.choice(FAULTS) if fault is None else fault
    key, value = _MAKERS[fault](draws, product_id)
    return BadEvent(fault, key, value)


def _with_key(product_id: str, value: bytes) -> Made:
    return product_id.encode(), value


def _json(**fields: object) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def _not_json(draws: Draws, product_id: str) -> Made:
    whole = _json(product_id=product_id, title="cut off before its end")
    return _with_key(product_id, whole[: draws.between(1, len(whole) - 1)])


def _wrong_type(draws: Draws, product_id: str) -> Made:
    fields: dict[str, object] = draws.choice(
        [
            {"title": 7},
            {"title": ["a", "list"]},
            {"title": "ok", "image_url": 5},
            {"title": "ok", "version": "third"},
            {"title": "ok", "registered_at": "yesterday"},
            {"title": None},
        ]
    )
    return _with_key(product_id, _json(product_id=product_id, **fields))


def _not_an_object(draws: Draws, product_id: str) -> Made:
    return _with_key(product_id, draws.choice([b"[]", b'"listing"', b"12", b"null", b"true"]))


def _missing_id(draws: Draws, product_id: str) -> Made:
    return _with_key(product_id, _json(title="a listing of nobody"))


def _long_id(draws: Draws, product_id: str) -> Made:
    long = product_id + "0" * draws.between(129, 400)
    return _with_key(long, _json(product_id=long, title="ok"))


def _long_title(draws: Draws, product_id: str) -> Made:
    return _with_key(product_id, _json(product_id=product_id, title="가" * draws.between(1_001, 3_000)))


def _long_address(draws: Draws, product_id: str) -> Made:
    address = "http://127.0.0.1/" + "a" * draws.between(2_040, 4_000)
    return _with_key(product_id, _json(product_id=product_id, title="ok", image_url=address))


def _invalid_utf8(draws: Draws, product_id: str) -> Made:
    broken = draws.choice([b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98"])
    return _with_key(product_id, _json(product_id=product_id, title="?").replace(b"?", broken))


def _nan(draws: Draws, product_id: str) -> Made:
    constant = draws.choice([b"NaN", b"Infinity", b"-Infinity"])
    return _with_key(
        product_id, _json(product_id=product_id, title="ok", version=0).replace(b" 0}", b" " + constant + b"}")
    )


def _deep(draws: Draws, product_id: str) -> Made:
    nested = b"[" * _DEEP + b"]" * _DEEP
    return _with_key(
        product_id, _json(product_id=product_id, title="ok", attributes={"a": 0}).replace(b" 0}", b" " + nested + b"}")
    )


def _key_mismatch(draws: Draws, product_id: str) -> Made:
    return product_id.encode(), _json(product_id=f"{product_id}x", title="whose is it")


def _huge(draws: Draws, product_id: str) -> Made:
    return _with_key(product_id, _json(product_id=product_id, title="x" * HUGE_BYTES))


def _nothing(draws: Draws, product_id: str) -> Made:
    return None, None


def _empty(draws: Draws, product_id: str) -> Made:
    return _with_key(product_id, draws.choice([b"", b" ", b"\x00"]))


_MAKERS: dict[str, Callable[[Draws, str], Made]] = {
    "not_json": _not_json,
    "wrong_type": _wrong_type,
    "not_an_object": _not_an_object,
    "missing_id": _missing_id,
    "long_id": _long_id,
    "long_title": _long_title,
    "long_address": _long_address,
    "invalid_utf8": _invalid_utf8,
    "nan": _nan,
    "deep": _deep,
    "key_mismatch": _key_mismatch,
    "huge": _huge,
    "nothing": _nothing,
    "empty": _empty,
}
FAULTS = tuple(_MAKERS)
