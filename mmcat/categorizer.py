"""The library in one class: load a bundle, prepare listings on the CPU, categorize batches on the engine.

    Listing ── prepare ──> Prepared ──┐
    Listing ── prepare ──> Prepared ──┼─ each title and photo once ─> engine ─> logits ─> paths ─> safe level ─> Result
    Listing ── prepare ──> Prepared ──┘

A pure function of its inputs: an answer does not depend on its batch-mates (to 1e-4 of a probability in fp32).
Last in the flow; knows all other modules. Does no fetching and holds no queue.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcat import bundle as bundles
from mmcat.calibration import Seen, safe_level, seen_of
from mmcat.engines.base import WHOLE, Encoded, Engine
from mmcat.errors import ModelError
from mmcat.evidence import COALITIONS, log_probabilities, shapley
from mmcat.features import Features, fingerprints
from mmcat.listing import (
    Candidate,
    Decision,
    Evidence,
    ImageStatus,
    Listing,
    ModelInfo,
    PathNode,
    PhotoVectors,
    Prepared,
    Result,
    Store,
)
from mmcat.paths import Decoded, PathIndex, Rows, Scores
from mmcat.preparation import listing_text, photo
from mmcat.shared_decoding import SharedDecoding
from mmcat.stacking import stack
from mmcat.taxonomy import Taxonomy

_CHUNK = 32  # listings per engine call of `categorize`: larger batches are no faster on a CPU


class Categorizer:
    """Loads by `Categorizer.load`; `prepare` may be called from any thread, the rest from one at a time."""

    def __init__(
        self, bundle: bundles.LoadedBundle, engine: Engine, *, evidence: bool = False, why_engine: str = "given"
    ) -> None:
        self.taxonomy: Taxonomy = bundle.taxonomy
        self.info = ModelInfo(
            name=bundle.name,
            fingerprint=bundle.fingerprint,
            engine=engine.name,
            precision=engine.precision,
            taxonomy_digest=bundle.taxonomy.digest,
            created_ms=bundle.created_ms,
        )
        self.preprocessing = bundle.preprocessing
        self.why_engine = why_engine
        self._config = bundle.config
        self._tokenizer = bundle.tokenizer
        self._calibration = bundle.calibration
        self._engine = engine
        self._evidence = evidence
        self._index = PathIndex(bundle.taxonomy)
        self._decoding = SharedDecoding(bundle.preprocessing)
        self._fingerprints = partial(fingerprints, bundle, engine.name, engine.numerics)
        self._features: Features | None = None

    @classmethod
    def load(
        cls,
        bundle: str | Path,
        *,
        device: str = "auto",
        engine: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        evidence: bool = False,
        cache: Path | None = None,
    ) -> "Categorizer":
        """Verifies and loads a bundle; blocks for seconds. The network is never asked.

        Args:
            device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:N".
            engine: "eager" (PyTorch), "cpu" (OpenVINO, the extra `cpu`), "compiled" (PyTorch compiled, for CUDA; blocks
                for minutes), or "auto": the faster of the first two that answers as eager in fp32 does; `why_engine`
                says why it is that one.
            precision: "fp32", "bf16", "int8" (the CPU engine's, of a bundle that was calibrated), or "auto": bf16 on
                CUDA that has it; on a CPU, with engine "auto", the fastest that answers alike; else fp32.
            threads: CPU threads, for the whole process; None leaves torch's choice.
            evidence: whether results say what they rest on; the fusion then runs four times, the encoders once.
            cache: folder where engines keep what they make of a bundle (its size for each); None: nothing is kept,
                and "auto" is eager.

        Raises:
            BundleError: the folder is not a bundle that can be served.
            ModelError: no such device, engine or precision.
        """
        if threads is not None and threads < 1:
            raise ModelError(f"threads must be at least 1, not {threads}")
        import torch

        from mmcat.engines.choice import choose

        if threads is not None:
            torch.set_num_threads(threads)
        loaded = bundles.read(bundle)
        bundles.check_served(bundle, loaded.config)
        chosen, why = choose(loaded, engine=engine, device=device, precision=precision, threads=threads, cache=cache)
        return cls(loaded, chosen, evidence=evidence, why_engine=why)

    def keep_features(self, store: Store | None) -> None:
        """From now on look vectors of photos and titles up in this store, and keep there what is encoded.

        Vectors then pass through half precision, kept or not: an answer does not depend on what the store holds.
        """
        config = self._config
        text_width = config.text_width if config.reads_text else 0
        shape = (config.image_cells, config.image_width, text_width)
        self._features = None if store is None else Features(store, self._fingerprints(), *shape)

    def known_photos(self, digests: Sequence[bytes]) -> list[PhotoVectors | None]:
        """What is kept of the photos with these SHA-256 digests; nothing without a store. Thread-safe."""
        if self._features is None or not self._config.reads_image:
            return [None] * len(digests)
        return self._features.photos(digests)

    def prepare(self, listing: Listing) -> Prepared:
        """The CPU's part of one listing: text joined, photo decoded. Thread-safe; never raises for a bad photo.

        A model that reads titles alone does not look at photos: they count as absent. A photo whose vectors are kept
        is not decoded.
        """
        text = listing_text(listing, self.preprocessing.text_fields)
        if not self._config.reads_image:
            return Prepared(listing.id, text, None, ImageStatus.ABSENT)
        if listing.seen is not None:
            return Prepared(listing.id, text, None, ImageStatus.USED, listing.seen.digest, listing.seen)
        if listing.image is None:
            return Prepared(listing.id, text, *photo(listing, self.preprocessing))
        digest = hashlib.sha256(listing.image).digest()
        if (seen := self.known_photos([digest])[0]) is not None:
            return Prepared(listing.id, text, None, ImageStatus.USED, digest, seen)
        pixels, status = self._decoding.photo(listing, digest)
        return Prepared(listing.id, text, pixels, status, digest)

    def categorize_prepared(self, batch: Sequence[Prepared], top_k: int = 3) -> list[Result]:
        """Categorizes a batch in one engine call; blocks until it is done.

        Args:
            top_k: best paths per listing, the answer included: top_k − 1 alternatives. At least 1.

        Returns:
            One result per listing, in order.

        Raises:
            ModelError: the engine gave no finite numbers, or a listing was prepared for another model.
        """
        return self._categorize(batch, top_k, self._features)

    def categorize(self, listings: Sequence[Listing], top_k: int = 3) -> list[Result]:
        """Prepares and categorizes listings, a few at a time; blocks until all are done."""
        results = []
        for start in range(0, len(listings), _CHUNK):
            chunk = [self.prepare(listing) for listing in listings[start : start + _CHUNK]]
            results += self.categorize_prepared(chunk, top_k)
        return results

    def warm_up(self) -> None:
        """Runs one batch of each kind of listing, so that the first real one is not the slow one."""
        px = self.preprocessing.px
        grey = np.full((px, px, 3), 128, np.uint8) if self._config.reads_image else None
        with_photo = Prepared("", "warm up", grey, ImageStatus.ABSENT if grey is None else ImageStatus.USED)
        self._categorize([with_photo, Prepared("", "warm up", None, ImageStatus.ABSENT)], 1, None)  # both encoders run

    def _categorize(self, batch: Sequence[Prepared], top_k: int, features: Features | None) -> list[Result]:
        if top_k < 1:
            raise ModelError(f"top_k must be at least 1, not {top_k}")
        if not batch:
            return []
        stacked = stack(batch, self._config, self.preprocessing.px, self._tokenizer, features)
        encoded = self._engine.encode(stacked.batch)
        ablated = self._engine.fuse(encoded, COALITIONS if self._evidence else WHOLE)
        scores = [self._scores(logits, len(batch)) for logits in ablated]
        if features is not None:
            stacked.keep(encoded, features, pooled=self._config.keys == "pooled")
        seen = _seen(encoded.has_text, encoded.has_image)
        decoded = self._index.decode(scores[0], self._temperatures(seen), top_k)
        evidence = self._evidence_of(scores, decoded.rows[:, 0], encoded) if self._evidence else [None] * len(batch)
        return [self._result(prepared, decoded, row, seen[row], evidence[row]) for row, prepared in enumerate(batch)]

    def _scores(self, logits: list[npt.NDArray[Any]], count: int) -> Scores:
        if len(logits[0]) != count or not all(np.isfinite(level_BC).all() for level_BC in logits):
            raise ModelError(f"the engine {self._engine.name} gave no finite scores for a batch of {count}")
        return self._index.scores(logits)

    def _temperatures(self, seen: Sequence[Seen | None]) -> Scores:
        return np.array([self._calibration.temperature(one) for one in seen])

    def _evidence_of(self, scores: Sequence[Scores], rows_B: Rows, encoded: Encoded) -> list[Evidence | None]:
        """Of the answered rows; each coalition under the temperature of what it shows."""
        found = {}
        for (with_text, with_image), scores_BP in zip(COALITIONS, scores, strict=True):
            temperatures_B = self._temperatures(_seen(encoded.has_text & with_text, encoded.has_image & with_image))
            found[with_text, with_image] = log_probabilities(scores_BP, temperatures_B, rows_B)
        return [Evidence(*map(float, values)) for values in zip(*shapley(found), strict=True)]

    def _result(
        self, prepared: Prepared, decoded: Decoded, row: int, seen: Seen | None, evidence: Evidence | None
    ) -> Result:
        candidates = [self._candidate(decoded, row, place) for place in range(decoded.rows.shape[1])]
        answer = candidates[0]
        level = safe_level([node.probability for node in answer.path], self._calibration.threshold(seen))
        return Result(
            listing_id=prepared.listing_id,
            path=answer.path,
            probability=answer.probability,
            safe_level=level,
            decision=Decision.ACCEPT if level else Decision.REVIEW,
            reason=None if level else "uncertain",
            alternatives=tuple(candidates[1:]),
            image=prepared.image,
            evidence=evidence,
        )

    def _candidate(self, decoded: Decoded, row: int, place: int) -> Candidate:
        path = self.taxonomy.paths[decoded.rows[row, place]]
        nodes = tuple(
            PathNode(node.level, node.id, node.name, float(decoded.marginals[row, place, node.level - 1]))
            for node in path
        )
        return Candidate(nodes, min(float(decoded.probabilities[row, place]), nodes[-1].probability))


def _seen(has_text_B: npt.NDArray[np.bool_], has_image_B: npt.NDArray[np.bool_]) -> list[Seen | None]:
    return [seen_of(*one) for one in zip(has_text_B.tolist(), has_image_B.tolist(), strict=True)]
