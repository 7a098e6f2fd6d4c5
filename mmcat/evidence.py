"""What an answer rests on: the share of the title and of the photo in the log-probability of the answered path.

    logits with {both, text alone, image alone, none} shown ──> log p(path) of each ──> Shapley values of text and photo

Two players share what they reach together (Shapley 1953; for features of a model: Lundberg and Lee 2017): each gets the
mean of what it adds alone and what it adds to the other. The encoders have run once; only the fusion runs four times
(`Engine.fuse`). A modality that a listing does not have, or that a model does not read, adds nothing and gets 0.

After paths.py and calibration.py; before categorizer.py, which asks for it only where it is wanted. Pure numpy.
"""

from collections.abc import Mapping

import numpy as np

from mmcat.paths import Rows, Scores

Shown = tuple[bool, bool]
"""Whether the title and the photo are shown to the fusion, where the listing has them."""
COALITIONS: tuple[Shown, ...] = ((True, True), (True, False), (False, True), (False, False))
"""Both first: these are the logits of the answer itself."""


def log_probabilities(scores_BP: Scores, temperature_B: Scores, rows_B: Rows) -> Scores:
    """Log-probability [B] of one path per row, exact where the probability itself would round to 0 or 1."""
    scaled_BP = scores_BP / temperature_B[:, None]
    chosen_B = np.take_along_axis(scaled_BP, rows_B[:, None], axis=1)[:, 0]
    top_B = scaled_BP.max(axis=1)
    found_B: Scores = chosen_B - top_B - np.log(np.exp(scaled_BP - top_B[:, None]).sum(axis=1))
    return found_B


def shapley(log_probability: Mapping[Shown, Scores]) -> tuple[Scores, Scores]:
    """Shapley values [B] of text and image, from the log-probabilities [B] of all four COALITIONS."""
    both, text, image, none = (log_probability[shown] for shown in COALITIONS)
    return ((text - none) + (both - image)) / 2, ((image - none) + (both - text)) / 2
