"""What goes out: a result of the model, or a deletion, as the record of `products.categorized`; and its review copy.

Pure. After worker.py, before the producer. `ResultRecord` is the contract of the value
(docs/schemas/result.schema.json); records are built as plain dictionaries of that shape: to validate what we made
ourselves would cost more than to make it.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, NamedTuple, NotRequired, Self

from pydantic_core import to_json
from typing_extensions import TypedDict

from consumer.events import Event
from consumer.rank import AUTHORITY_DELETED, AUTHORITY_MODEL, Rank, completeness
from consumer.records import Headers, Incoming, Origin, Outgoing, carried
from consumer.settings import ReviewSettings
from mmcat.listing import Candidate, Decision, Evidence, ImageStatus, ModelInfo, PathNode, Result

SCHEMA_VERSION: Final = 1
Reason = Literal["uncertain", "audit"]
"""Why a result is copied to the review topic: no level is safe, or an accepted one was drawn for a check."""


class NodeRecord(TypedDict):
    """A node of a path with its marginal probability."""

    level: int
    id: str
    name: str
    probability: float


class CandidateRecord(TypedDict):
    """A path that was not taken."""

    path: list[NodeRecord]
    probability: float


class EvidenceRecord(TypedDict):
    """What the answer rests on: shares of title and photo, summing to 1, or both 0 where nothing was seen."""

    text: float
    image: float


class ModelRecord(TypedDict):
    """Which model answered, on what."""

    name: str
    fingerprint: str
    engine: str
    precision: str
    taxonomy: str


class OriginRecord(TypedDict):
    """The record of the input topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class ResultRecord(TypedDict):
    """The value of a record of the output topic."""

    schema_version: int
    product_id: str
    result_id: str
    path: list[NodeRecord]
    probability: float
    safe_level: int
    alternatives: list[CandidateRecord]
    evidence: NotRequired[EvidenceRecord]
    decision: Literal["accept", "review"]
    reason: NotRequired[Reason]
    image: Literal["used", "absent", "pending", "unavailable", "undecodable", "refused"]
    model: ModelRecord
    rank: list[int]
    input_hash: str
    origin: OriginRecord
    attempt: int
    reused: bool
    inferred_at: NotRequired[str]
    registered_at: str | None
    categorized_at: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Which accepted results a person checks all the same, so that their precision is known while the service runs.

    By hash of the result's id: the same work is chosen alike whenever it is repeated. With a salt nobody can tell from
    a listing whether it will be looked at.

    Args:
        share: of the accepted results, 0 … 1.
    """

    share: float
    salt: bytes = b""

    @classmethod
    def of(cls, review: ReviewSettings) -> Self:
        """As the operator set it."""
        return cls(review.audit_share, review.audit_salt.get_secret_value().encode())

    def mark(self, of: str) -> str:
        """Tells this salt from another, without saying it: 32 bits as hex, other ones for each `of`; "" for no salt."""
        return hmac.digest(self.salt, of.encode(), "sha256")[:4].hex() if self.salt else ""

    def picks(self, identity: str) -> bool:
        """Whether the result with this id is one of them."""
        if not self.share:
            return False
        drawn = _keyed(self.salt).copy()
        drawn.update(identity.encode())
        return int.from_bytes(drawn.digest()[:8], "big") < self.share * 2**64


@cache
def _keyed(salt: bytes) -> hmac.HMAC:
    """To be copied: `hmac.digest` looks its algorithm up each time, which took half as long again."""
    return hmac.new(salt, digestmod="sha256")


class Answered(NamedTuple):
    """Everything that stands behind one result record.

    Args:
        order: what rank compares first (ms of the origin, or the version).
        generation: of the active model.
        attempt: 0 live, higher for retries.
        categorized_at: RFC 3339, UTC.
    """

    incoming: Incoming
    event: Event
    result: Result
    order: int
    generation: int
    attempt: int
    categorized_at: str


class Reused(NamedTuple):
    """The same of a result whose answer was given before: `held` is that one, as the view has it (`ResultRecord`)."""

    incoming: Incoming
    event: Event
    held: Mapping[str, Any]
    order: int
    generation: int
    attempt: int
    categorized_at: str


def result_record(answered: Answered, model: ModelInfo, topic: str, audit: Audit) -> tuple[Outgoing, Reason | None]:
    """The record for the output topic: key, value and headers; and why a person should see it, if one should."""
    result, event, origin = answered.result, answered.event, answered.incoming.origin
    rank = Rank(answered.order, AUTHORITY_MODEL, answered.generation, completeness(result.image))
    identity = result_id(event.product_id, rank, answered.incoming.value or b"", model.fingerprint, model.precision)
    reason = _reason(result.decision, identity, audit)
    value: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "product_id": event.product_id,
        "result_id": identity,
        "path": _nodes(result.path),
        "probability": round(result.probability, 6),
        "safe_level": result.safe_level,
        "alternatives": [_candidate(candidate) for candidate in result.alternatives],
        "decision": result.decision.value,
        "image": result.image.value,
        "model": {
            "name": model.name,
            "fingerprint": model.fingerprint,
            "engine": model.engine,
            "precision": model.precision,
            "taxonomy": model.taxonomy_digest,
        },
        "rank": rank,
        "input_hash": input_hash(event),
        "origin": _origin(origin),
        "attempt": answered.attempt,
        "reused": False,
        "registered_at": event.registered_at,
        "categorized_at": answered.categorized_at,
    }
    if result.evidence is not None:
        value["evidence"] = _evidence(result.evidence)
    if reason is not None:
        value["reason"] = reason
    headers = _headers(rank, identity, origin, answered.incoming.headers)
    return Outgoing(topic, event.product_id.encode(), to_json(value), headers), reason


def reused_record(answered: Reused, topic: str, audit: Audit, top_k: int) -> tuple[Outgoing, Reason | None]:
    """An answer given before, as the result of this event: its own id, rank and origin; what the model said stays.

    `inferred_at` says when the model said it; `categorized_at` is now.
    """
    held, event, origin, model = answered.held, answered.event, answered.incoming.origin, answered.held["model"]
    rank = Rank(answered.order, AUTHORITY_MODEL, answered.generation, completeness(ImageStatus(held["image"])))
    raw = answered.incoming.value or b""
    identity = result_id(event.product_id, rank, raw, model["fingerprint"], model["precision"])
    reason = _reason(Decision(held["decision"]), identity, audit)
    value = {
        **{name: part for name, part in held.items() if name != "reason"},
        **({"reason": reason} if reason else {}),
        "product_id": event.product_id,
        "result_id": identity,
        "alternatives": held["alternatives"][: top_k - 1],
        "rank": list(rank),
        "origin": _origin(origin),
        "attempt": answered.attempt,
        "reused": True,
        "inferred_at": held.get("inferred_at", held["categorized_at"]),
        "registered_at": event.registered_at,
        "categorized_at": answered.categorized_at,
    }
    headers = _headers(rank, identity, origin, answered.incoming.headers)
    return Outgoing(topic, event.product_id.encode(), to_json(value), headers), reason


def review_copy(record: Outgoing, reason: Reason, topic: str) -> Outgoing:
    """The same record for the review topic, with the reason as a header."""
    return Outgoing(topic, record.key, record.value, [*record.headers, ("mmcat-review-reason", reason.encode())])


def tombstone(incoming: Incoming, product_id: str, order: int, generation: int, topic: str) -> Outgoing:
    """The record that says a product is gone: no value, a rank above every answer of the same order."""
    rank = Rank(order, AUTHORITY_DELETED, generation, 0)
    identity = result_id(product_id, rank, b"", "", "")
    return Outgoing(topic, product_id.encode(), None, _headers(rank, identity, incoming.origin, incoming.headers))


def best_possible(incoming: Incoming, product_id: str, order: int, generation: int, *, deleted: bool) -> Outgoing:
    """A record that is never sent: with the highest rank that this work can give, to ask the view whether to begin."""
    rank = Rank(order, AUTHORITY_DELETED, generation, 0) if deleted else Rank(order, AUTHORITY_MODEL, generation, 2)
    headers = [("mmcat-rank", rank.format().encode()), *incoming.origin.headers()]
    return Outgoing("", product_id.encode(), None, headers)


def result_id(product_id: str, rank: Rank, event_bytes: bytes, fingerprint: str, precision: str) -> str:
    """128 bits as hex: the same work on the same event has the same id, so any reader can tell a duplicate."""
    event = hashlib.sha256(event_bytes).hexdigest()
    work = f"{product_id}\0{rank.order}\0{event}\0{rank.generation}\0{fingerprint}\0{precision}\0{rank.completeness}"
    return hashlib.sha256(work.encode()).hexdigest()[:32]


def input_hash(event: Event) -> str:
    """128 bits as hex of what the model sees: the text fields and the photo's address."""
    seen = f"{event.title}\0{event.brand or ''}\0{event.maker or ''}\0{event.model}\0{event.image_url or ''}"
    return hashlib.sha256(seen.encode()).hexdigest()[:32]


def _reason(decision: Decision, identity: str, audit: Audit) -> Reason | None:
    if decision is Decision.REVIEW:
        return "uncertain"
    return "audit" if audit.picks(identity) else None


def _headers(rank: Rank, identity: str, origin: Origin, incoming: Headers) -> Headers:
    own = [("mmcat-rank", rank.format().encode()), ("mmcat-result-id", identity.encode()), *origin.headers()]
    return own + carried(incoming) if incoming else own


def _origin(origin: Origin) -> dict[str, object]:
    topic, partition, offset, timestamp_ms = origin
    return {"topic": topic, "partition": partition, "offset": offset, "timestamp": timestamp_ms}


def _nodes(path: tuple[PathNode, ...]) -> list[dict[str, object]]:
    return [
        {"level": node.level, "id": node.id, "name": node.name, "probability": round(node.probability, 6)}
        for node in path
    ]


def _evidence(evidence: Evidence) -> dict[str, float]:
    return {modality: round(share, 4) for modality, share in evidence.shares().items()}


def _candidate(candidate: Candidate) -> dict[str, object]:
    return {"path": _nodes(candidate.path), "probability": round(candidate.probability, 6)}
