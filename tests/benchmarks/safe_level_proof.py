"""Whether `safe_level` keeps its promise: 200 calibration parts of the simulated shop, risk on fresh listings.

    mmcat train shop --out bundles
    python -m tests.benchmarks.safe_level_proof bundles/cross --fresh 100000 --pool 192000

Prints a table, then one line of JSON; exit 1 where a promise is not kept or the rival is better. A listing costs about
10 ms of one core, once: path scores are cached (`--cache`), so the numbers can be raised step by step. With fewer
listings in the pool than draws × rows, calibration parts overlap; they never share a listing with the fresh ones.

The rival has one threshold on the probability of the whole path: accept all of it or send the listing to review. It is
tested with the same procedure, rows and promise.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcat import bundle
from mmcat.calibration import (
    SEEN,
    Seen,
    answered,
    count_claims,
    fit,
    fit_threshold,
    levels_by_threshold,
    tuning_rows,
)
from mmcat.engines.base import Batch
from mmcat.engines.eager import EagerEngine
from mmcat.evidence import COALITIONS
from mmcat.paths import PathIndex, Rows, Scores, path_probabilities
from training.features import pixels
from training.readers.shop import shop_dataset
from training.shop.shop import ShopConfig

_CHUNK = 500  # listings per file of the cache
_BATCH = 50
_PART = 20_000  # fresh listings measured at once
_FRESH_FROM = 10_000_000  # index of the first fresh listing: far from every pool


@dataclass(frozen=True, slots=True)
class Part:
    """Listings as a model scores them: path scores [N, P] and true rows [N]."""

    scores: Scores
    targets: Rows


@dataclass(frozen=True, slots=True)
class Proof:
    """One rule over all draws; risk, depth and review are measured on the fresh listings.

    Args:
        kept: share of draws whose risk (wrong claims among claims) is within the promise.
        needed: 1 − δ less two standard errors of so many draws.
        risk, depth, review: means over the draws; depth is the mean safe level of all listings, review counts as 0.
        silent: share of draws that promise nothing.
    """

    seen: str
    rule: str
    rows: int
    kept: float
    needed: float
    risk: float
    depth: float
    review: float
    silent: float


def whole_path(scores_NP: Scores, marginals_N4: Scores, temperature: float) -> Scores:
    """What the rival looks at: every node as probable as the whole path, so that all are claimed or none."""
    probability_N1 = path_probabilities(scores_NP, temperature).max(axis=1, keepdims=True)
    return np.where(marginals_N4 > 0, probability_N1, 0.0)


def prove(
    pool: Part, fresh: Part, index: PathIndex, *, seen: str, draws: int, rows: int, **promise: float
) -> list[Proof]:
    """Calibrates on each draw from the pool and measures on the fresh listings: the served rule, then the rival.

    Args:
        promise: error_rate and confidence.
    """
    measured = []
    for chosen in _draws(len(pool.targets), draws, rows):
        scores_NP, targets = pool.scores[chosen].astype(np.float64), pool.targets[chosen]
        temperature, threshold = fit(scores_NP, targets, index, **promise)
        marginals_N4, right_N4 = answered(scores_NP, targets, index, temperature)
        rivals_N4 = whole_path(scores_NP, marginals_N4, temperature)
        rival = fit_threshold(rivals_N4, right_N4, tuning_rows(rows), **promise)
        measured.append(_measured(fresh, index, temperature, threshold, rival))
    confidence = promise["confidence"]
    needed = confidence - 2 * math.sqrt(confidence * (1 - confidence) / draws)
    return [
        _proof(seen, rule, rows, needed, promise["error_rate"], each)
        for rule, each in zip(("deepest node", "whole path"), np.array(measured).transpose(1, 0, 2), strict=True)
    ]


def _draws(pool: int, draws: int, rows: int) -> Iterator[Rows]:
    """Disjoint where the pool is large enough."""
    random = np.random.default_rng(0)
    if pool >= draws * rows:
        yield from random.permutation(pool)[: draws * rows].reshape(draws, rows)
        return
    for _ in range(draws):
        yield random.choice(pool, rows, replace=False)


def _measured(
    fresh: Part, index: PathIndex, temperature: float, threshold: float, rival: float
) -> list[tuple[float, float, float]]:
    """Risk, depth and review of both rules on the fresh listings, a part at a time."""
    sums = np.zeros((2, 3))
    for start in range(0, len(fresh.targets), _PART):
        scores_NP = fresh.scores[start : start + _PART].astype(np.float64)
        marginals_N4, right_N4 = answered(scores_NP, fresh.targets[start : start + _PART], index, temperature)
        rivals_N4 = whole_path(scores_NP, marginals_N4, temperature)
        for place, (probable_N4, least) in enumerate(((marginals_N4, threshold), (rivals_N4, rival))):
            levels_1N = levels_by_threshold(probable_N4, np.array([least]))
            claims_1, wrong_1 = count_claims(levels_1N, right_N4)
            sums[place] += claims_1[0], wrong_1[0], levels_1N.sum()
    total = len(fresh.targets)
    return [(wrong / max(1, claims), depth / total, 1 - claims / total) for claims, wrong, depth in sums.tolist()]


def _proof(seen: str, rule: str, rows: int, needed: float, error_rate: float, each: Scores) -> Proof:
    risk, depth, review = each.mean(axis=0)
    kept, silent = (each[:, 0] <= error_rate).mean(), (each[:, 2] == 1).mean()
    numbers = (round(float(value), 4) for value in (kept, needed, risk, depth, review, silent))
    return Proof(seen, rule, rows, *numbers)


def holds(proofs: Sequence[Proof]) -> bool:
    """Whether the served rule keeps its promise, deeper and with less review than the rival."""
    served, rival = proofs
    if served.silent == 1:  # where nothing can be promised, nothing is
        return True
    return served.kept >= served.needed and served.depth > rival.depth and served.review < rival.review


# ── The shop's listings, scored once ──────────────────────────────────────────────────────────────────────────────────


def shop_part(folder: Path, cache: Path, config: ShopConfig, start: int, count: int) -> dict[Seen, Part]:
    """Listings start … start + count - 1 as the bundle scores them: those with both, without photo, without title."""
    loaded = bundle.load(folder)
    engine = EagerEngine(loaded.model, loaded.preprocessing)
    cache.mkdir(parents=True, exist_ok=True)
    chunks = []
    for first in range(start, start + count, _CHUNK):
        path = cache / f"{loaded.fingerprint[:16]}-{config.seed}-{config.split}-{first}-{_CHUNK}.npz"
        if not path.exists():
            beside = path.with_suffix(".part.npz")
            np.savez(beside, **_scored(loaded, engine, config, first))  # type: ignore[arg-type]  # numpy's stub
            beside.replace(path)
            print(f"\r{first - start + _CHUNK:,} of {count:,} listings", end="", file=sys.stderr, flush=True)
        chunks.append(dict(np.load(path)))
    rows = {name: np.concatenate([chunk[name] for chunk in chunks])[:count] for name in chunks[0]}
    whole = rows["has_text"] & rows["has_image"]
    kept = {"both": whole, "text": rows["has_text"], "image": rows["has_image"]}
    return {seen: Part(rows[seen][kept[seen]], rows["targets"][kept[seen]]) for seen in SEEN}


def _scored(
    loaded: bundle.LoadedBundle, engine: EagerEngine, config: ShopConfig, first: int
) -> dict[str, npt.NDArray[Any]]:
    assert loaded.tokenizer is not None
    dataset = shop_dataset(config, _CHUNK, start=first)
    index = PathIndex(loaded.taxonomy)
    scores: dict[Seen, list[Scores]] = {seen: [] for seen in SEEN}
    has_image = []
    for begin in range(0, _CHUNK, _BATCH):
        rows = dataset.rows[begin : begin + _BATCH]
        photos, there = pixels(rows, loaded.preprocessing)
        ids, mask = loaded.tokenizer.encode([row.title for row in rows])
        batch = Batch.of(ids, mask, photos, np.array([bool(row.title) for row in rows]), there)
        has_image.append(there)
        for seen, logits in zip(SEEN, engine.fuse(engine.encode(batch), COALITIONS[:3]), strict=True):
            scores[seen].append(index.scores(logits).astype(np.float32))
    found: dict[str, npt.NDArray[Any]] = {seen: np.concatenate(parts) for seen, parts in scores.items()}
    has_text = np.array([bool(row.title) for row in dataset.rows])
    return {**found, "targets": dataset.targets, "has_text": has_text, "has_image": np.concatenate(has_image)}


def main() -> int:
    """Reads the command line, scores, proves, prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.safe_level_proof", description=__doc__)
    parser.add_argument("bundle", type=Path, help="of the shop, both modalities, for example bundles/cross")
    parser.add_argument("--fresh", type=int, default=20_000, help="listings that the risk is measured on")
    parser.add_argument("--pool", type=int, default=20_000, help="listings that calibration parts are drawn from")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--rows", type=int, default=960, help="of a calibration part")
    parser.add_argument("--error-rate", type=float, default=0.02)
    parser.add_argument("--confidence", type=float, default=0.9)
    parser.add_argument("--cache", type=Path, default=Path(".mmcat/scores"))
    wish = parser.parse_args()
    config = ShopConfig().demo()
    pool = shop_part(wish.bundle, wish.cache, config, 0, wish.pool)
    fresh = shop_part(wish.bundle, wish.cache, config, _FRESH_FROM, wish.fresh)
    index = PathIndex(bundle.load(wish.bundle).taxonomy)
    promise = {"error_rate": wish.error_rate, "confidence": wish.confidence}
    proofs = {
        seen: prove(pool[seen], fresh[seen], index, seen=seen, draws=wish.draws, rows=wish.rows, **promise)
        for seen in SEEN
    }
    print(f"\n{'seen':6} {'rule':13} {'kept':>6} {'needed':>7} {'risk':>7} {'depth':>6} {'review':>7} {'silent':>7}")
    for proof in (proof for both in proofs.values() for proof in both):
        print(
            f"{proof.seen:6} {proof.rule:13} {proof.kept:6.3f} {proof.needed:7.3f} {proof.risk:7.4f}"
            f" {proof.depth:6.3f} {proof.review:7.3f} {proof.silent:7.3f}"
        )
    passed = all(map(holds, proofs.values()))
    report = {seen: [asdict(proof) for proof in both] for seen, both in proofs.items()}
    sizes = {"draws": wish.draws, "rows": wish.rows, "pool": wish.pool, "fresh": wish.fresh}
    print(json.dumps({**promise, **sizes, "holds": passed, "proof": report}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
