"""What a model's answers looked like when it was made: histograms of the calibration part, kept in the bundle.

A service that counts the same of its own answers can tell when listings have drifted away from what the promises were
fitted on. After calibration.py; before bundle.py, which stores it. Pure numpy.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcat.errors import ModelError
from mmcat.listing import ImageStatus
from mmcat.taxonomy import Taxonomy

BINS = 20  # of the path probability, equally wide over 0 … 1; the last holds 1 as well


@dataclass(frozen=True, slots=True)
class Reference:
    """Three histograms of the same rows.

    Args:
        paths: rows by answered path (ids joined by ">", as in taxonomy.tsv); paths never answered are left out.
        probabilities: rows per bin of the calibrated path probability, lowest first.
        photos: rows by what became of the photo.
    """

    paths: Mapping[str, int]
    probabilities: tuple[int, ...]
    photos: Mapping[str, int]

    def __post_init__(self) -> None:
        counts = [*self.paths.values(), *self.probabilities, *self.photos.values()]
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ModelError("a histogram holds something else than counts")
        if len(self.probabilities) != BINS or set(self.photos) - {status.value for status in ImageStatus}:
            raise ModelError(f"a reference has {BINS} bins of probability and photo statuses that are known")
        if not sum(self.paths.values()) == sum(self.probabilities) == sum(self.photos.values()):
            raise ModelError("the histograms of a reference are not of the same rows")

    @property
    def rows(self) -> int:
        """How many rows were counted."""
        return sum(self.probabilities)

    @classmethod
    def of(
        cls,
        taxonomy: Taxonomy,
        answers: npt.NDArray[np.int64],
        probabilities: npt.NDArray[np.float64],
        photos: Sequence[ImageStatus],
    ) -> "Reference":
        """Counts N answers: taxonomy rows [N], their calibrated path probabilities [N], photo statuses."""
        paths = Counter(">".join(node.id for node in taxonomy.paths[row]) for row in answers.tolist())
        bins = np.histogram(probabilities, BINS, (0.0, 1.0))[0]
        return cls(dict(sorted(paths.items())), tuple(bins.tolist()), dict(sorted(Counter(map(str, photos)).items())))

    def to_json(self) -> dict[str, Any]:
        return {
            "paths": dict(self.paths), "probabilities": list(self.probabilities), "photos": dict(self.photos)
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Reference":
        """The inverse of `to_json`; a missing key or what is no count is a ModelError."""
        try:
            return cls(dict(data["paths"]), tuple(data["probabilities"]), dict(data["photos"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the reference cannot be read: {error!r}") from error
