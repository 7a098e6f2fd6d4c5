"""Any bytes are an event, a deletion or a refusal with a code; never an exception."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.events import MAX_ID, MAX_TITLE, MAX_URL, Code, Deletion, Event, Refusal, parse

LIMIT = 2**20
texts = st.text(max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
names = st.sampled_from(
    ["product_id", "title", "image_url", "version", "registered_at", "brand", "maker", "seller_path", "attributes", "x"]
)
objects = st.dictionaries(names, json_values, max_size=8)


def value(**fields: Any) -> bytes:
    return json.dumps({"product_id": "p1", "title": "a title", **fields}).encode()


@settings(max_examples=1500, deadline=None)
@given(st.none() | st.binary(max_size=40), st.none() | st.binary(max_size=300))
@example(b"k", b"[" * 100_000)
@example(b"k", b'{"a":' * 100_000)
@example(b"k", b'{"product_id":"k","title":"x","version":1' + b"0" * 5000 + b"}")
@example(b"k", b"")
@example(b"k", b"null")
@example(b"k", b'"\\ud800"')
def test_any_bytes_are_one_of_the_three(key: bytes | None, raw: bytes | None) -> None:
    assert isinstance(parse(key, raw, max_bytes=LIMIT), Event | Deletion | Refusal)


@settings(max_examples=1500, deadline=None)
@given(objects, st.binary(min_size=1, max_size=4), st.floats(0, 1))
def test_bytes_that_are_no_utf_8_are_refused_wherever_they_stand(
    fields: dict[str, Any], odd: bytes, place: float
) -> None:
    raw = value(**fields)
    at = int(place * len(raw))
    raw = raw[:at] + odd + raw[at:]
    try:
        raw.decode()
    except UnicodeDecodeError:
        parsed = parse(None, raw, max_bytes=LIMIT)
        assert isinstance(parsed, Refusal)
        assert parsed.code is Code.NOT_UTF8


@settings(max_examples=1500, deadline=None)
@given(objects)
def test_any_json_object_is_an_event_within_the_contract_or_refused(fields: dict[str, Any]) -> None:
    raw = json.dumps(fields).encode()
    parsed = parse(None, raw, max_bytes=LIMIT)
    if isinstance(parsed, Event):
        assert parsed.product_id == fields["product_id"]
        assert 1 <= len(parsed.product_id) <= MAX_ID
        assert len(parsed.title) <= MAX_TITLE
        assert len(parsed.image_url or "") <= MAX_URL
        assert parsed.title.strip() or parsed.image_url
        assert b"NaN" not in raw
    else:
        assert isinstance(parsed, Refusal)
        assert len(parsed.detail.encode()) < 1024


@pytest.mark.parametrize(
    ("key", "raw", "code"),
    [
        (None, None, Code.NO_KEY),
        (b"", None, Code.NO_KEY),
        (b"\xff", None, Code.BAD_KEY),
        (b"k" * 129, None, Code.BAD_KEY),
        (b"other", value(), Code.KEY_MISMATCH),
        (b"p1", b" " * (LIMIT + 1), Code.TOO_LARGE),
        (b"p1", b"\xff\xfe", Code.NOT_UTF8),
        (b"p1", b"{", Code.NOT_JSON),
        (b"p1", b"\xef\xbb\xbf{}", Code.NOT_JSON),
        (b"p1", b'{"product_id":"p1","title":"x","other":NaN}', Code.NOT_JSON),
        (b"p1", b'{"product_id":"p1","title":"x","other":-Infinity}', Code.NOT_JSON),
        (b"p1", b'{"a":' * 300 + b"1" + b"}" * 300, Code.TOO_DEEP),
        (b"p1", b"[]", Code.SCHEMA),
        (b"p1", b'{"title":"x"}', Code.SCHEMA),
        (b"p1", value(product_id=1), Code.SCHEMA),
        (b"p1", value(product_id=""), Code.SCHEMA),
        (b"p1", value(product_id="a\0b"), Code.SCHEMA),
        (b"p1", value(product_id="p" * 129), Code.SCHEMA),
        (b"p1", value(title="x" * 1001), Code.SCHEMA),
        (b"p1", value(title=None), Code.SCHEMA),
        (b"p1", value(image_url="h" * 2049), Code.SCHEMA),
        (b"p1", value(version="1"), Code.SCHEMA),
        (b"p1", value(version=-1), Code.SCHEMA),
        (b"p1", value(version=2**53), Code.SCHEMA),
        (b"p1", value(version=1.5), Code.SCHEMA),
        (b"p1", value(registered_at="yesterday"), Code.SCHEMA),
        (b"p1", value(registered_at="2026-01-01T00:00:00"), Code.SCHEMA),
        (b"p1", value(attributes=[]), Code.SCHEMA),
        (b"p1", value(title=" "), Code.EMPTY),
        (b"p1", value(title="", image_url=""), Code.EMPTY),
    ],
)
def test_a_bad_event_is_refused_by_its_code(key: bytes | None, raw: bytes | None, code: Code) -> None:
    parsed = parse(key, raw, max_bytes=LIMIT)
    assert isinstance(parsed, Refusal)
    assert parsed.code is code
    assert parsed.detail


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        (b"p1", value()),
        (None, value()),
        (b"p1", value(title="NaN Infinity", unknown={"deep": [1]})),
        (b"p1", value(title="", image_url="http://x/y")),
        (b"p1", value(version=2**53 - 1, registered_at="2026-01-01T00:00:00+09:00", attributes={"a": [1, None]})),
        ("상품".encode(), value(product_id="상품", title="한글 제목")),
    ],
)
def test_a_good_event_is_read(key: bytes | None, raw: bytes) -> None:
    assert isinstance(parse(key, raw, max_bytes=LIMIT), Event)


def test_a_null_value_with_a_key_is_a_deletion() -> None:
    assert parse(b"p1", None, max_bytes=LIMIT) == Deletion("p1")


@pytest.mark.parametrize("moment", ["1", "1700000000", "  2026-01-01T00:00:00Z", 1700000000, "٢٠٢٦-01-01T00:00:00Z"])
def test_a_number_is_no_moment(moment: object) -> None:
    parsed = parse(b"p1", value(registered_at=moment), max_bytes=LIMIT)
    assert isinstance(parsed, Refusal)
    assert parsed.code is Code.SCHEMA
