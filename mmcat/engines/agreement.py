"""How many of eager PyTorch's answers an engine keeps, and how much faster it gives them.

The listings are the operator's own where the bundle was calibrated on some (int8.py), with eager's answers beside them.
Else they are drawn, because a bundle holds no listings: titles of the taxonomy's own names, photos of soft colours with
noise, and listings that lack either. A model is less sure of them than of real ones, so rounding turns a path sooner
there, and what keeps its promise on real listings may fail on drawn ones.

After int8.py; before choice.py and quantize.py.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmcat.bundle import LoadedBundle
from mmcat.engines.base import Batch, Engine, logits
from mmcat.engines.int8 import Sample
from mmcat.listing import Prepared
from mmcat.paths import PathIndex
from mmcat.stacking import stack


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised of an engine, against eager PyTorch in float32.

    Args:
        same_paths: share of equal paths, at least.
        probability: how far a probability may be off.
        drawn: batches of drawn listings it is judged on, of 16 each: of the 256 for bf16 one path may differ, of the 32
            for fp32 none. A bundle in int8 has real ones.
    """

    same_paths: float
    probability: float
    drawn: int


PROMISES = {
    "fp32": Promise(0.999, 1e-3, drawn=2),
    "bf16": Promise(0.995, 0.1, drawn=16),
    "int8": Promise(0.99, 0.25, drawn=0),
}
LISTINGS = 16
"""Of a batch on which engines are compared."""
_ROUNDS, _TIMED = 4, 2  # rounds of both engines in turns, the first to warm up; batches of each


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an engine did against eager.

    Args:
        same_paths: share of equal answers.
        probability: largest difference of an answer's probability, before calibration.
        faster: eager's time over the engine's.
        listings: on which, in words.
    """

    same_paths: float
    probability: float
    faster: float
    listings: str

    def keeps(self, promise: Promise) -> bool:
        return self.same_paths >= promise.same_paths and self.probability <= promise.probability

    def __str__(self) -> str:
        return (
            f"{self.faster:.2f} times the speed of eager, {self.same_paths:.1%} of paths equal on {self.listings},"
            f" probabilities within {self.probability:.0e}"
        )


def judge(eager: Engine, other: Engine, sample: Sample, index: PathIndex) -> Verdict:
    """Compares the other's answers with those in the sample; then both run some of its batches in turns."""
    found = answered(other, sample.batches, index, sample.kind)
    ratios = []
    for round_ in range(_ROUNDS):
        for batch in sample.batches[:_TIMED]:
            started = time.perf_counter()
            logits(eager, batch)
            between = time.perf_counter()
            logits(other, batch)
            ended = time.perf_counter()
            if round_:
                ratios.append((between - started) / (ended - between))
    return Verdict(
        same_paths=float((found.rows == sample.rows).mean()),
        probability=float(np.abs(found.probabilities - sample.probabilities).max()),
        faster=statistics.median(ratios),
        listings=str(sample),
    )


def answered(engine: Engine, batches: Sequence[Batch], index: PathIndex, kind: str) -> Sample:
    """These listings with the engine's answers."""
    decoded = [index.decode(index.scores(logits(engine, batch))) for batch in batches]
    rows = np.concatenate([one.rows[:, 0] for one in decoded])
    probabilities = np.concatenate([one.probabilities[:, 0] for one in decoded]).astype(np.float32)
    return Sample(kind, batches, rows, probabilities)


def stacked(loaded: LoadedBundle, listings: Sequence[Prepared]) -> list[Batch]:
    """Prepared listings as batches."""
    config, px = loaded.config, loaded.preprocessing.px
    chunks = (listings[start : start + LISTINGS] for start in range(0, len(listings), LISTINGS))
    return [stack(chunk, config, px, loaded.tokenizer).batch for chunk in chunks]


def drawn_batches(loaded: LoadedBundle, count: int) -> list[Batch]:
    """Drawn listings; the same for the same bundle."""
    dice = np.random.default_rng(int(loaded.fingerprint[:8], 16))
    names = sorted({node.name for path in loaded.taxonomy.paths for node in path})
    return [_drawn(loaded, names, dice) for _ in range(count)]


def _drawn(loaded: LoadedBundle, names: list[str], dice: np.random.Generator) -> Batch:
    config, px = loaded.config, loaded.preprocessing.px
    titles = [" ".join(dice.choice(names, dice.integers(1, 7))) for _ in range(LISTINGS)]
    has_text = (np.arange(LISTINGS) % 4 != 1) & config.reads_text
    has_image = (np.arange(LISTINGS) % 4 != 2) & config.reads_image
    soft = (
        dice.integers(0, 256, (int(has_image.sum()), 4, 4, 3)).repeat(-(-px // 4), axis=1).repeat(-(-px // 4), axis=2)
    )
    noisy = soft[:, :px, :px] + dice.normal(0, 20, (len(soft), px, px, 3))
    ids, mask = loaded.tokenizer.encode(titles) if loaded.tokenizer is not None else (None, None)
    pixels = np.clip(noisy, 0, 255).astype(np.uint8) if config.reads_image else None
    return Batch.of(ids, mask, pixels, has_text, has_image)
