"""An int8 file for a tiny bundle, made of random listings by NNCF: real in all but what it was calibrated on."""

from pathlib import Path

import numpy as np

from mmcat import bundle
from mmcat.engines import int8
from mmcat.engines.agreement import answered, stacked
from mmcat.engines.eager import EagerEngine
from mmcat.engines.quantize import quantize
from mmcat.listing import ImageStatus, Prepared
from mmcat.paths import PathIndex
from tests.support.tiny import PX, TITLES


def prepared_listings(count: int, seed: int = 0) -> list[Prepared]:
    """Titles of tests/support/tiny.py and photos of soft colours."""
    dice = np.random.default_rng(seed)
    soft = dice.integers(0, 256, (count, 4, 4, 3), np.uint8).repeat(PX // 4, axis=1).repeat(PX // 4, axis=2)
    titles = [" ".join(dice.choice(TITLES, dice.integers(1, 4))) for _ in range(count)]
    return [Prepared(str(row), titles[row], soft[row], ImageStatus.USED) for row in range(count)]


def calibrated(folder: Path, judged: int = 40) -> Path:
    """Puts the file into the folder of a tiny bundle; needs NNCF, and a quarter of a minute for a ResNet50."""
    loaded = bundle.load(folder)
    graphs = quantize(loaded, prepared_listings(8))
    batches = stacked(loaded, prepared_listings(judged, seed=1))
    eager = EagerEngine(loaded.model, loaded.preprocessing, "cpu", "fp32")
    sample = answered(eager, batches, PathIndex(loaded.taxonomy), "real")
    return int8.write(folder, loaded.fingerprint, graphs, sample)
