"""The seam between the library and hardware: a batch goes in, four levels of logits come out.

    Batch ── encode ──> Encoded ── fuse ──> logits, once for each way of showing it

Encoding is nearly all the work and depends on one title or one photo alone, so equal ones stand in a batch once, and
vectors that are known already are not computed again. Before it: stacking.py made the batch. After it: paths.py turns
logits into paths. No torch here, so that an engine without torch can stand behind the same seam.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Vectors = npt.NDArray[np.float16]

WHOLE: tuple[tuple[bool, bool], ...] = ((True, True),)
"""Shows the fusion all there is."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a model sees of B listings: R titles and K photos to be encoded, and which of them each listing has.

    Args:
        ids, mask: int64 [R, T], padded; None for models that read photos alone.
        pixels: uint8 [K, px, px, 3]; None where there are none.
        text_rows, image_rows: int64 [B]: row of the listing's title and photo; -1 where it has none, or the model does
            not read it. Rows from R and from K on are those of `known_text` and `known_image`.
        known_text: float16 [T, D] of each title that was encoded before; T = 1 when pooled.
        known_image: float16 [N, D] of each photo that was encoded before.
        keep: vectors pass through half precision, as known ones did, and are given back in it.
    """

    ids: Ids | None
    mask: Ids | None
    pixels: npt.NDArray[np.uint8] | None
    text_rows: Ids
    image_rows: Ids
    known_text: Sequence[Vectors] = ()
    known_image: Sequence[Vectors] = ()
    keep: bool = False

    @classmethod
    def of(
        cls, ids: Ids | None, mask: Ids | None, pixels: npt.NDArray[np.uint8] | None, has_text: Flags, has_image: Flags
    ) -> Self:
        """Each listing with a title and a photo of its own.

        Args:
            ids, mask: of all B listings.
            pixels: of the K that have a photo, in batch order.
            has_text, has_image: bool [B].
        """
        if ids is not None and mask is not None:
            ids, mask = ids[has_text], mask[has_text]
        return cls(ids, mask, pixels, _rows(has_text), _rows(has_image))

    @property
    def has_text(self) -> Flags:
        """bool [B]."""
        return self.text_rows >= 0

    @property
    def has_image(self) -> Flags:
        """bool [B]."""
        return self.image_rows >= 0

    def __len__(self) -> int:
        return len(self.text_rows)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoders made of a batch. `text`, `text_mask` and `image` are the engine's own arrays, on its device.

    Args:
        text: float32 [B, T, D], zeros where there is no title; None for models that do not read titles.
        text_mask: bool [B, T]; None where titles are pooled.
        image: float32 [B, N, D], likewise.
        has_text, has_image: bool [B].
        new_text: float16 [R, T, D] of the titles encoded now, if `Batch.keep`.
        new_image: float16 [K, N, D], likewise.
    """

    text: Any
    text_mask: Any
    image: Any
    has_text: Flags
    has_image: Flags
    new_text: Vectors | None = None
    new_image: Vectors | None = None


class Engine(Protocol):
    """Runs one model on one device. One thread owns it: it is not called twice at once."""

    @property
    def name(self) -> str:
        """For example "eager-cpu"."""

    @property
    def precision(self) -> str:
        """ "fp32", "bf16" or "int8"."""

    @property
    def numerics(self) -> str:
        """What an encoder's vectors depend on besides its weights: the precision, and in int8 which graphs."""

    def encode(self, batch: Batch) -> Encoded:
        """Blocks until titles and photos are encoded; a row depends on nothing but its own title or photo."""

    def fuse(self, encoded: Encoded, shown: Sequence[tuple[bool, bool]] = WHOLE) -> list[list[npt.NDArray[Any]]]:
        """Blocks until the device has answered, once for each of `shown`: 4 × float32 [B, C] (a flat head: 1 ×).

        Args:
            shown: whether the fusion sees the title, and the photo.
        """


def logits(engine: Engine, batch: Batch) -> list[npt.NDArray[Any]]:
    """4 × float32 [B, C]; a row depends on nothing but its own listing."""
    return engine.fuse(engine.encode(batch))[0]


def padded(known: Sequence[Vectors], length: int, width: int) -> Vectors:
    """Known vectors as one array [J, L, D], zeros behind the shorter ones."""
    x_JLD = np.zeros((len(known), length, width), np.float16)
    for row, vectors_LD in enumerate(known):
        x_JLD[row, : len(vectors_LD)] = vectors_LD
    return x_JLD


def text_mask(batch: Batch, length: int) -> Flags:
    """bool [B, L]: where the tokens of each listing's title are; nowhere where it has none."""
    new = 0 if batch.mask is None else len(batch.mask)
    mask_XL = np.zeros((new + len(batch.known_text) + 1, length), np.bool_)  # the last row stands for no title
    if batch.mask is not None:
        mask_XL[:new, : batch.mask.shape[1]] = batch.mask
    for row, vectors_LD in enumerate(batch.known_text, new):
        mask_XL[row, : len(vectors_LD)] = True
    return mask_XL[batch.text_rows]


def _rows(has_B: Flags) -> Ids:
    return np.where(has_B, np.cumsum(has_B) - 1, -1)
