"""Temperature, threshold and promise of one model, for each modality that a listing may come with; what they attain.

After fusion.py; before the bundle, which holds them. The fitting itself is mmcat.calibration's.
"""

import math
from collections.abc import Iterator

import numpy as np

from mmcat.calibration import NEVER, Calibration, Seen, answered, count_claims, fit, levels_by_threshold
from mmcat.model import CategoryModel
from mmcat.paths import PathIndex
from mmcat.taxonomy import LEVELS
from training.fusion import Inputs, Rows, Withheld, logits, logits_by_chunk

FEWEST = 20  # rows; with fewer a temperature is noise, and the one for both modalities stands in
MOST = 20_000  # rows; more tell no more about three numbers, and their path scores would not fit into memory


def calibrate(model: CategoryModel, inputs: Inputs, rows: Rows, *, error_rate: float, confidence: float) -> Calibration:
    """Fits on the calibration part; withholds a modality to see what is left. Holds all three modalities.

    Args:
        rows: row numbers that no weight or epoch was chosen on.
    """
    temperatures: dict[Seen, float] = {"both": 1.0}
    thresholds: dict[Seen, float] = {"both": NEVER}
    index = PathIndex(inputs.taxonomy)
    for seen, some, withhold in _cases(model, inputs, rows):
        if len(some) < FEWEST:
            temperatures[seen], thresholds[seen] = temperatures["both"], NEVER
            continue
        some = some[:: math.ceil(len(some) / MOST)]
        scores = index.scores(logits(model, inputs, some, withhold))
        temperatures[seen], thresholds[seen] = fit(
            scores, inputs.targets[some], index, error_rate=error_rate, confidence=confidence
        )
    if (reads := model.config.modality) != "both":
        # Whatever else a listing has, the model sees this one; a listing without it tells it nothing: always to review.
        temperatures |= {"text": temperatures["both"], "image": temperatures["both"]}
        thresholds |= {"text": NEVER, "image": NEVER, reads: thresholds["both"]}
    return Calibration(temperatures, thresholds, error_rate, confidence)


def attained(
    model: CategoryModel, inputs: Inputs, rows: Rows, calibration: Calibration
) -> dict[Seen, dict[str, float | None]]:
    """What the promise comes to on held rows, by what the model then sees: for the report and the model card.

    Returns:
        rows: as many as were looked at.
        error_rate: share of the claims (safe levels above 0) that are not on the true path; None without claims.
        depth: mean safe level of all rows, 0 for those in review.
        review: share of rows that go to review.
    """
    index = PathIndex(inputs.taxonomy)
    found: dict[Seen, dict[str, float | None]] = {}
    for seen, some, withhold in _cases(model, inputs, rows):
        if not len(some):
            continue
        temperature = calibration.temperature(seen)
        marginals_N4, right_N4 = np.empty((len(some), LEVELS)), np.empty((len(some), LEVELS), np.bool_)
        done = 0
        for part, chunk in logits_by_chunk(model, inputs, some, withhold):
            at = slice(done, done + len(part))
            marginals_N4[at], right_N4[at] = answered(index.scores(chunk), inputs.targets[part], index, temperature)
            done = at.stop
        levels_1N = levels_by_threshold(marginals_N4, np.array([calibration.threshold(seen)]))
        claims, wrong = (int(count[0]) for count in count_claims(levels_1N, right_N4))
        found[seen] = {
            "rows": len(some),
            "error_rate": round(wrong / claims, 4) if claims else None,
            "depth": round(float(levels_1N.mean()), 4),
            "review": round(1 - claims / len(some), 4),
        }
    return found


def _cases(model: CategoryModel, inputs: Inputs, rows: Rows) -> Iterator[tuple[Seen, Rows, Withheld | None]]:
    """What to look at: what the model then sees, of which rows, and what to withhold from them."""
    there = np.ones(len(rows), np.bool_)
    has_text = inputs.text.there[rows] if model.config.reads_text and inputs.text else there
    has_image = inputs.image.there[rows] if model.config.reads_image and inputs.image else there
    yield "both", rows[has_text & has_image], None
    if model.config.modality == "both":
        yield "text", rows[has_text], "image"
        yield "image", rows[has_image], "text"
