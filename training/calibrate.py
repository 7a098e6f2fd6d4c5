"""Temperature and thresholds of one model, for each of the modalities a listing may come with.

After fusion.py; before the bundle, which holds them. The fitting itself is mmcat.calibration's.
"""

import numpy as np

from mmcat.calibration import NEVER, Calibration, Seen, fit
from mmcat.model import CategoryModel
from mmcat.paths import PathIndex
from mmcat.taxonomy import LEVELS
from training.fusion import Inputs, Rows, Withheld, logits

FEWEST = 20  # rows; with fewer a temperature is noise, and the one for both modalities stands in


def calibrate(model: CategoryModel, inputs: Inputs, rows: Rows, *, error_rate: float, confidence: float) -> Calibration:
    """Fits on the calibration part; withholds a modality to see what is left.

    Args:
        rows: row numbers that no weight or epoch was chosen on.
    """
    if not len(rows):
        return Calibration(error_rate=error_rate, confidence=confidence)
    temperatures: dict[Seen, float] = {}
    thresholds: dict[Seen, tuple[float, ...]] = {}
    for seen, (some, withhold) in _cases(model, inputs, rows).items():
        if len(some) < FEWEST and seen != "both":
            continue
        index = PathIndex(inputs.taxonomy)
        scores = index.scores(logits(model, inputs, some, withhold))
        temperatures[seen], thresholds[seen] = fit(
            scores, inputs.targets[some], index, error_rate=error_rate, confidence=confidence
        )
    if model.config.modality == "image":  # a listing without a photo tells it nothing: always to review
        temperatures["text"], thresholds["text"] = temperatures["both"], (NEVER,) * LEVELS
    return Calibration(temperatures, thresholds, error_rate, confidence)


def _cases(model: CategoryModel, inputs: Inputs, rows: Rows) -> dict[Seen, tuple[Rows, Withheld | None]]:
    """What to fit: rows and what to withhold from them, by what the model then sees."""
    there = np.ones(len(rows), np.bool_)
    has_text = inputs.text.there[rows] if model.config.reads_text and inputs.text else there
    has_image = inputs.image.there[rows] if model.config.reads_image and inputs.image else there
    whole = rows[has_text & has_image]
    cases: dict[Seen, tuple[Rows, Withheld | None]] = {"both": (whole if len(whole) else rows, None)}
    if model.config.modality == "both":
        cases["text"] = (rows[has_text], "image")
        cases["image"] = (rows[has_image], "text")
    return cases
