"""What goes out keeps its contract: result records, tombstones, review copies, dead letters."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.dead_letters import KEPT_BYTES, dead_letter
from consumer.events import Event, parse
from consumer.rank import Rank, completeness
from consumer.records import CARRIED_BYTES, Headers, Incoming, Origin, Outgoing
from consumer.results import Answered, Audit, Reason, result_record, review_copy, tombstone
from consumer.schemas import files
from mmcat.listing import Candidate, Decision, Evidence, ImageStatus, ModelInfo, PathNode, Result

INFO = ModelInfo("shop", "f" * 64, "eager-cpu", "fp32", "d" * 64, 1_700_000_000_000)
NO_AUDIT, ALL_AUDIT = Audit(0.0), Audit(1.0)
DOCS = Path(__file__).parents[3] / "docs"
ORIGIN = Origin("products.registered", 3, 42, 1_760_000_000_123)
NODES = (PathNode(1, "10", "의류", 0.98), PathNode(2, "11", "shoes", 0.91))


def registered(headers: Headers | None = None, **fields: Any) -> tuple[Incoming, Event]:
    value = json.dumps({"product_id": "p1", "title": "구두 black", "image_url": "http://x/1", **fields}).encode()
    event = parse(b"p1", value, max_bytes=10_000)
    assert isinstance(event, Event)
    return Incoming(ORIGIN, b"p1", value, headers or []), event


def result(
    image: ImageStatus = ImageStatus.USED, decision: Decision = Decision.ACCEPT, evidence: Evidence | None = None
) -> Result:
    reason = "uncertain" if decision is Decision.REVIEW else None
    other = Candidate((NODES[0],), 0.05)
    return Result("p1", NODES, 0.91, 2 if reason is None else 0, decision, reason, (other,), image, evidence)


def record(
    image: ImageStatus = ImageStatus.USED,
    decision: Decision = Decision.ACCEPT,
    info: ModelInfo = INFO,
    headers: Headers | None = None,
    **fields: Any,
) -> Outgoing:
    incoming, event = registered(headers, **fields)
    answered = Answered(incoming, event, result(image, decision), 7, 99, 0, "2026-01-01T00:00:00.000Z")
    return result_record(answered, info, "out", NO_AUDIT)[0]


def audited(audit: Audit, decision: Decision = Decision.ACCEPT, order: int = 7) -> tuple[Outgoing, Reason | None]:
    incoming, event = registered()
    answered = Answered(incoming, event, result(decision=decision), order, 99, 0, "2026-01-01T00:00:00.000Z")
    return result_record(answered, INFO, "out", audit)


def body(outgoing: Outgoing) -> dict[str, Any]:
    assert outgoing.value is not None
    parsed: dict[str, Any] = json.loads(outgoing.value)
    return parsed


@pytest.mark.parametrize("decision", list(Decision))
@pytest.mark.parametrize("image", list(ImageStatus))
def test_a_result_record_keeps_its_schema(image: ImageStatus, decision: Decision) -> None:
    value = body(record(image, decision, registered_at="2026-01-01T00:00:00Z"))
    jsonschema.validate(value, json.loads(files()["schemas/result.schema.json"]))
    assert value["image"] == image
    assert value["rank"] == [7, 0, 99, completeness(image)]
    assert [node["name"] for node in value["path"]] == ["의류", "shoes"]
    assert value["origin"] == {"topic": "products.registered", "partition": 3, "offset": 42, "timestamp": 1760000000123}


def test_committed_schemas_and_settings_are_those_of_the_types() -> None:
    for name, content in files().items():
        assert (DOCS / name).read_text("utf-8") == content, "write it again: python -m consumer.schemas docs"


def test_headers_say_rank_identity_and_origin() -> None:
    outgoing = record()
    headers = dict(outgoing.headers)
    assert outgoing.key == b"p1"
    assert headers["mmcat-rank"] == b"7,0,99,2"
    assert headers["mmcat-result-id"].decode() == body(outgoing)["result_id"]
    assert headers["mmcat-origin-topic"] == b"products.registered"
    assert (headers["mmcat-origin-partition"], headers["mmcat-origin-offset"]) == (b"3", b"42")


def test_the_same_work_has_the_same_id_and_other_work_another() -> None:
    same = body(record())["result_id"]
    assert body(record())["result_id"] == same
    other_model = ModelInfo("shop", "e" * 64, "eager-cpu", "fp32", "d" * 64, 1)
    other_precision = ModelInfo("shop", "f" * 64, "eager-cpu", "bf16", "d" * 64, 1)
    others = [
        record(title="other"),
        record(info=other_model),
        record(info=other_precision),
        record(ImageStatus.UNAVAILABLE),
    ]
    ids = {body(other)["result_id"] for other in others}
    assert len(ids) == len(others)
    assert same not in ids


def test_input_hash_covers_what_the_model_sees_and_nothing_else() -> None:
    seen = body(record())["input_hash"]
    assert body(record(version=3, attributes={"a": "b"}))["input_hash"] == seen
    assert body(record(title="other"))["input_hash"] != seen
    assert body(record(image_url="http://x/2"))["input_hash"] != seen


def test_trace_and_cloud_event_headers_travel_on_within_their_limit() -> None:
    few: Headers = [("traceparent", b"00-1"), ("ce_id", b"7"), ("secret", b"no")]
    assert [name for name, _ in record(headers=few).headers[-2:]] == ["traceparent", "ce_id"]
    many: Headers = [("ce_big", b"x" * CARRIED_BYTES), ("ce_id", b"7")]
    assert "ce_big" not in dict(record(headers=many).headers)


def test_an_uncertain_result_goes_to_review_whatever_the_audit_draws() -> None:
    for audit in (NO_AUDIT, ALL_AUDIT):
        outgoing, reason = audited(audit, Decision.REVIEW)
        assert (reason, body(outgoing)["reason"], body(outgoing)["decision"]) == ("uncertain", "uncertain", "review")


def test_a_review_copy_is_the_record_and_why() -> None:
    outgoing, reason = audited(NO_AUDIT, Decision.REVIEW)
    assert reason is not None
    copy = review_copy(outgoing, reason, "review")
    assert (copy.topic, copy.key, copy.value) == ("review", b"p1", outgoing.value)
    assert dict(copy.headers)["mmcat-review-reason"] == b"uncertain"


def test_an_audited_result_is_accepted_all_the_same() -> None:
    outgoing, reason = audited(ALL_AUDIT)
    assert (reason, body(outgoing)["reason"], body(outgoing)["decision"]) == ("audit", "audit", "accept")
    jsonschema.validate(body(outgoing), json.loads(files()["schemas/result.schema.json"]))
    plain, nothing = audited(NO_AUDIT)
    assert nothing is None
    assert "reason" not in body(plain)
    assert body(plain)["result_id"] == body(outgoing)["result_id"]


def test_the_draw_of_the_result_id_decides_and_a_repeat_is_drawn_alike() -> None:
    half = Audit(0.5, b"ours")
    reasons = []
    for order in range(40):
        outgoing, reason = audited(half, order=order)
        assert (reason == "audit") == half.picks(body(outgoing)["result_id"])
        assert audited(half, order=order) == (outgoing, reason)
        reasons.append(reason)
    assert set(reasons) == {"audit", None}


@given(st.floats(0, 1), st.binary(max_size=100), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_an_audit_chooses_the_same_work_alike_and_a_larger_share_keeps_the_smaller(
    share: float, salt: bytes, identity: str
) -> None:
    picked = Audit(share, salt).picks(identity)
    assert Audit(share, salt).picks(identity) == picked
    assert Audit(1.0, salt).picks(identity)
    assert not Audit(0.0, salt).picks(identity)
    assert not picked or Audit(min(1.0, share * 1.5), salt).picks(identity)


@given(st.binary(max_size=200), st.text("0123456789abcdef", min_size=32, max_size=32), st.floats(0, 1))
def test_an_audit_draws_by_hmac_sha256(salt: bytes, identity: str, share: float) -> None:
    drawn = hmac.digest(salt, identity.encode(), "sha256")
    assert Audit(share, salt).picks(identity) == (int.from_bytes(drawn[:8], "big") < share * 2**64)


def test_an_audit_takes_its_share_and_another_salt_takes_others() -> None:
    identities = [f"{number:032x}" for number in range(40_000)]
    chosen = {salt: {one for one in identities if Audit(0.005, salt).picks(one)} for salt in (b"", b"ours")}
    for found in chosen.values():
        assert 150 < len(found) < 250  # 200 ± 3.5 standard deviations
    assert len(chosen[b""] & chosen[b"ours"]) < 10


def test_evidence_stands_in_a_record_only_where_it_was_asked_for() -> None:
    assert "evidence" not in body(record())
    incoming, event = registered()
    explained = result(evidence=Evidence(3.0, 1.0))
    answered = Answered(incoming, event, explained, 7, 99, 0, "2026-01-01T00:00:00.000Z")
    value = body(result_record(answered, INFO, "out", NO_AUDIT)[0])
    assert value["evidence"] == {"text": 0.75, "image": 0.25}
    jsonschema.validate(value, json.loads(files()["schemas/result.schema.json"]))


def test_a_tombstone_outranks_every_answer_of_its_order() -> None:
    outgoing = tombstone(Incoming(ORIGIN, b"p1", None, []), "p1", 7, 99, "out")
    deleted = Rank.parse(dict(outgoing.headers)["mmcat-rank"].decode())
    assert outgoing.value is None
    assert deleted > Rank(7, 0, 10**15, 2)
    assert deleted < Rank(8, 0, 0, 0)


@given(st.none() | st.binary(max_size=50), st.none() | st.binary(max_size=400), st.text(max_size=2000))
def test_a_dead_letter_is_the_record_byte_for_byte(key: bytes | None, value: bytes | None, detail: str) -> None:
    incoming = Incoming(ORIGIN, key, value, [("traceparent", b"00-1")])
    letter = dead_letter(incoming, "event.not_json", detail, topic="dead", version="1", max_bytes=400)
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (key, value)
    assert headers["mmcat-error"] == b"event.not_json"
    assert len(headers["mmcat-error-detail"]) <= 1024
    headers["mmcat-error-detail"].decode()
    assert headers["mmcat-origin-offset"] == b"42"
    assert "mmcat-truncated" not in headers


def test_a_dead_letter_too_large_keeps_its_beginning_and_its_hash() -> None:
    value = bytes(range(256)) * 1024
    letter = dead_letter(
        Incoming(ORIGIN, b"k", value, []), "event.too_large", "", topic="dead", version="1", max_bytes=len(value) - 1
    )
    headers = dict(letter.headers)
    assert letter.value == value[:KEPT_BYTES]
    assert headers["mmcat-truncated"] == b"1"
    assert headers["mmcat-sha256"].decode() == hashlib.sha256(value).hexdigest()


@given(st.tuples(*[st.integers(0, 2**53 - 1)] * 4))
def test_a_rank_survives_its_text(parts: tuple[int, int, int, int]) -> None:
    assert Rank.parse(Rank(*parts).format()) == Rank(*parts)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "-1,2,3,4", f"{2**53},0,0,0", "1, 2,3,4", "¹,0,0,0"]
)
def test_what_is_no_rank_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a rank"):
        Rank.parse(text)


def test_a_dead_letter_with_a_huge_key_is_cut_too() -> None:
    incoming = Incoming(ORIGIN, b"k" * 2_000_000, b"v", [])
    letter = dead_letter(incoming, "event.bad_key", "", topic="dead", version="1", max_bytes=1_000_000)
    assert letter.key == b"k" * KEPT_BYTES
    assert letter.value == b"v"
    assert dict(letter.headers)["mmcat-truncated"] == b"1"
