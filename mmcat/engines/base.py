"""The seam between the library and hardware: a batch goes in, four levels of logits come out.

Before it: preparation.py and text.py made the arrays. After it: paths.py turns logits into paths. No torch here, so
that an engine without torch can stand behind the same seam.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Batch:
    """What a model sees of B listings.

    Args:
        ids, mask: int64 [B, T], padded; None for models that read photos alone.
        pixels: uint8 [K, px, px, 3] of the K listings that have a photo, in batch order; None for text alone.
        has_text, has_image: bool [B], False for what the model does not read; `has_image` is True K times.
    """

    ids: npt.NDArray[np.int64] | None
    mask: npt.NDArray[np.int64] | None
    pixels: npt.NDArray[np.uint8] | None
    has_text: npt.NDArray[np.bool_]
    has_image: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.has_text)


class Engine(Protocol):
    """Runs one model on one device. One thread owns it: `logits` is not called twice at once."""

    @property
    def name(self) -> str:
        """For example "eager-cpu"."""

    @property
    def precision(self) -> str:
        """ "fp32" or "bf16"."""

    def logits(self, batch: Batch) -> list[npt.NDArray[Any]]:
        """Blocks until the device has answered: 4 × float32 [B, C]; a row depends on nothing but its own listing."""

    def ablations(self, batch: Batch, shown: Sequence[tuple[bool, bool]]) -> list[list[npt.NDArray[Any]]]:
        """`logits` once for each of `shown`: whether the fusion is shown the title, and the photo.

        The encoders run once for all of them; (True, True) gives what `logits` gives.
        """
