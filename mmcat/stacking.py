"""Prepared listings → one batch in which each different title and photo stands once, and what is known stands computed.

After preparation.py, text.py and features.py; before categorizer.py, which gives the batch to an engine.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mmcat.engines.base import Batch, Encoded, Ids, Vectors
from mmcat.errors import ModelError
from mmcat.family import ModelConfig
from mmcat.features import Features
from mmcat.listing import Prepared
from mmcat.photos import Pixels
from mmcat.text import Tokenizer


@dataclass(frozen=True, slots=True)
class Stack:
    """A batch, and whose its new rows are.

    Args:
        titles: of the R rows to be encoded.
        digests: of the K photos to be encoded; empty where nobody knows it.
    """

    batch: Batch
    titles: Sequence[str]
    digests: Sequence[bytes]

    def keep(self, encoded: Encoded, features: Features, pooled: bool) -> None:
        """Give what was encoded now to the store.

        Args:
            pooled: a title is one vector; else its tokens, of which the padding is not kept.
        """
        titles, photos = {}, {}
        if encoded.new_text is not None and self.batch.mask is not None:
            lengths = np.ones(len(self.titles), int) if pooled else self.batch.mask.sum(1)
            rows = zip(self.titles, encoded.new_text, lengths, strict=True)
            titles = {title: text_TD[:length] for title, text_TD, length in rows}
        if encoded.new_image is not None:
            photos = {one: image for one, image in zip(self.digests, encoded.new_image, strict=True) if one}
        features.keep(titles, photos)


def stack(
    prepared: Sequence[Prepared],
    config: ModelConfig,
    px: int,
    tokenizer: Tokenizer | None,
    features: Features | None = None,
) -> Stack:
    """The batch of these listings.

    Args:
        px: side of the photos.
        tokenizer: None for models that read photos alone.
        features: where vectors of titles are looked up; vectors of photos come with their listings. None: nothing is
            looked up and nothing kept.

    Raises:
        ModelError: a listing was prepared for another model.
    """
    titles = list(dict.fromkeys(one.text for one in prepared if one.text)) if tokenizer is not None else []
    known_titles = dict(zip(titles, features.titles(titles), strict=True)) if features is not None else {}
    known_text = {title: vectors for title, vectors in known_titles.items() if vectors is not None}
    new_titles = [title for title in titles if title not in known_text]
    ids, mask = tokenizer.encode(new_titles) if tokenizer is not None else (None, None)

    pixels, known_image = _photos(prepared, px) if config.reads_image else ({}, {})
    return Stack(
        Batch(
            ids=ids,
            mask=mask,
            pixels=np.stack(list(pixels.values())) if pixels else None,
            text_rows=_rows([one.text for one in prepared], [*new_titles, *known_text]),
            image_rows=_rows([_identity(one) for one in prepared], [*pixels, *known_image]),
            known_text=list(known_text.values()),
            known_image=list(known_image.values()),
            keep=features is not None,
        ),
        new_titles,
        [one if isinstance(one, bytes) else b"" for one in pixels],
    )


def _photos(prepared: Sequence[Prepared], px: int) -> tuple[dict[Hashable, Pixels], dict[Hashable, Vectors]]:
    """Pixels of the photos to be encoded, and vectors of the others, each once."""
    known = {_identity(one): one.seen.vectors for one in prepared if one.seen is not None}
    pixels: dict[Hashable, Pixels] = {}
    for one in prepared:
        if one.pixels is None:
            continue
        if one.pixels.shape != (px, px, 3) or one.pixels.dtype != np.uint8:
            raise ModelError(f"pixels {one.pixels.shape} {one.pixels.dtype} where this model takes uint8 {(px, px, 3)}")
        if _identity(one) not in known:
            pixels.setdefault(_identity(one), one.pixels)
    return pixels, known


def _identity(one: Prepared) -> Hashable:
    """Equal for listings with the same photo; None where there is none."""
    if one.seen is not None:
        return one.seen.digest
    return None if one.pixels is None else one.digest or id(one.pixels)


def _rows(wanted: Sequence[Hashable], there: Sequence[Hashable]) -> Ids:
    """Where each stands; -1: nowhere."""
    row_of = {what: row for row, what in enumerate(there)}
    return np.array([row_of.get(what, -1) for what in wanted], np.int64)
