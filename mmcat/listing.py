"""The nouns of the library: what comes in (Listing), what the CPU makes of it (Prepared), what goes out (Result).

Plain frozen data, no torch: the consumer and its tests use them without loading a model.
After errors.py; before everything that produces or consumes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt


class ImageStatus(StrEnum):
    """What became of a listing's photo."""

    USED = "used"  # the model saw it
    ABSENT = "absent"  # the listing has none
    PENDING = "pending"  # still being fetched: a later answer may see it
    UNAVAILABLE = "unavailable"  # could not be fetched, finally
    UNDECODABLE = "undecodable"  # fetched, and not an image, or broken
    REFUSED = "refused"  # an address or an image that we will not touch


class Decision(StrEnum):
    """Whether a result stands by itself or waits for a person."""

    ACCEPT = "accept"
    REVIEW = "review"


class Store(Protocol):
    """Keeps bytes under keys, for as long as it likes. Thread-safe. Never raises: what it cannot do is not there."""

    def get(self, kind: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is kept under each key, whole and unchanged, or None; `kind` says what is asked for, for counters."""
        ...

    def put(self, items: Mapping[bytes, bytes]) -> None:
        """Keep these."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PhotoVectors:
    """A photo as the model's image encoder saw it before.

    Args:
        digest: SHA-256 of the photo's bytes.
        vectors: float16 [N, D], N = 1 when pooled.
    """

    digest: bytes
    vectors: npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Listing:
    """A product as a seller registered it.

    Args:
        id: the product id; comes back in the result.
        title: may be empty when there is a photo (and even when there is none: the answer is then the prior).
        image: the photo as bytes of any format `photos.decode` knows, or None.
        image_status: why there is no photo, when the caller knows; None: derived (absent, used, undecodable, refused).
        seen: the photo's vectors, where the bytes are not needed any more; stands for `image`.
    """

    id: str
    title: str = ""
    image: bytes | None = None
    brand: str = ""
    maker: str = ""
    model: str = ""
    image_status: ImageStatus | None = None
    seen: PhotoVectors | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A listing after the CPU's part: ready to be stacked into a batch.

    Args:
        text: the text fields the model reads, joined.
        pixels: uint8 [px, px, 3] RGB, or None. Listings with the same photo share them: read only.
        image: USED exactly when there are pixels or `seen`.
        digest: SHA-256 of the photo's bytes; empty where nobody knows it.
        seen: the photo's vectors, where they are known; there are no pixels then.
    """

    listing_id: str
    text: str
    pixels: npt.NDArray[np.uint8] | None
    image: ImageStatus
    digest: bytes = b""
    seen: PhotoVectors | None = None

    @property
    def photo_bytes(self) -> int:
        """What the photo weighs in memory."""
        return (0 if self.pixels is None else self.pixels.nbytes) + (
            0 if self.seen is None else self.seen.vectors.nbytes
        )


@dataclass(frozen=True, slots=True)
class PathNode:
    """A node of an answered path; `probability` is its marginal over all paths through it, 0..1."""

    level: int
    id: str
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A path and its calibrated probability."""

    path: tuple[PathNode, ...]
    probability: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an answer rests on: Shapley values of title and photo, in nats (mmcat.evidence).

    Together they are the log-probability of the path with both shown, minus that with none; a negative one speaks
    against the path.
    """

    text: float
    image: float

    def shares(self) -> dict[str, float]:
        """In 0..1, of what speaks for the path; where nothing does, of the sizes. Sum 1; 0 where nothing was seen."""
        text, image = max(self.text, 0.0), max(self.image, 0.0)
        if not text + image:
            text, image = abs(self.text), abs(self.image)
        whole = text + image or 1.0
        return {"text": text / whole, "image": image / whole}


@dataclass(frozen=True, slots=True)
class Result:
    """What the model says about one listing.

    Args:
        path: an existing path of the taxonomy, from level 1 to its stop level.
        probability: calibrated, of the whole path, stop included.
        safe_level: 0..4, how deep the promised error rate holds (mmcat.calibration); 0 is review.
        reason: why a person should look ("uncertain"), None when accepted.
        alternatives: the next best paths, most probable first, without `path`.
        evidence: None unless the categorizer was loaded with it.
    """

    listing_id: str
    path: tuple[PathNode, ...]
    probability: float
    safe_level: int
    decision: Decision
    reason: str | None
    alternatives: tuple[Candidate, ...]
    image: ImageStatus
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answered, and on what: goes into every result record.

    Args:
        fingerprint: SHA-256 hex of the bundle's SHA256SUMS.
        engine: for example "eager-cpu".
        precision: "fp32", "bf16" or "int8".
        created_ms: creation time of the bundle, ms since 1970; the default generation of its results.
    """

    name: str
    fingerprint: str
    engine: str
    precision: str
    taxonomy_digest: str
    created_ms: int
