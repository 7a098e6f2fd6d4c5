"""Late fusion of calibrated probabilities: the peer that a cross-attention has to beat with the same two modalities.

    text path scores  ─ temperature ─> log p ─┐  w
                                              ├─ weighted mean, of logs or of probabilities ─> log p of each path
    photo path scores ─ temperature ─> log p ─┘  1 - w

Each modality is calibrated on the part `calibrate`; the weight and the kind of mean are chosen on `select` by path
accuracy (Kittler et al. 1998 compare the two means). A listing without one modality is answered by the other alone.
After fusion.py, whose single-modality models it joins; before compare/. Pure numpy.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmcat.calibration import fit_temperature
from mmcat.paths import path_probabilities

Scores = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Mean = Literal["geometric", "arithmetic"]
WEIGHTS = tuple(step / 20 for step in range(21))


@dataclass(frozen=True, slots=True)
class Single:
    """Path scores [N, P] of one modality's model, and the rows that have the modality."""

    scores: Scores
    there: Bools


@dataclass(frozen=True, slots=True)
class LateFusion:
    """Temperatures of both modalities, the weight of the text, and the mean that is taken."""

    text_temperature: float
    image_temperature: float
    weight: float
    mean: Mean

    def scores(self, text: Single, image: Single) -> Scores:
        """Log-probabilities [N, P], up to a constant per row."""
        text_NP = path_probabilities(text.scores, self.text_temperature)
        image_NP = path_probabilities(image.scores, self.image_temperature)
        weight_N1 = np.where(image.there, np.where(text.there, self.weight, 0.0), 1.0)[:, None]
        if self.mean == "arithmetic":
            return _log(weight_N1 * text_NP + (1 - weight_N1) * image_NP)
        return weight_N1 * _log(text_NP) + (1 - weight_N1) * _log(image_NP)


def fit_late_fusion(calibrate: tuple[Single, Single, Rows], select: tuple[Single, Single, Rows]) -> LateFusion:
    """Fits temperatures on one part and chooses weight and mean on the other.

    Args:
        calibrate, select: text, photo, and the true taxonomy rows [N].
    """
    text_temperature, image_temperature = (
        fit_temperature(single.scores[single.there], calibrate[2][single.there]) if single.there.any() else 1.0
        for single in calibrate[:2]
    )
    text, image, targets = select
    means: tuple[Mean, ...] = ("geometric", "arithmetic")
    weights = sorted(WEIGHTS, key=lambda weight: abs(weight - 0.5))  # of equals the most even
    fusions = [LateFusion(text_temperature, image_temperature, weight, mean) for mean in means for weight in weights]
    return max(fusions, key=lambda one: float((one.scores(text, image).argmax(axis=1) == targets).mean()))


def _log(probabilities_NP: Scores) -> Scores:
    logs: Scores = np.log(np.maximum(probabilities_NP, 1e-300))
    return logs
