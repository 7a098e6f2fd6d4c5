"""Vectors of photos and titles, kept: what an encoder has seen once it need not see again.

A vector is a function of the photo's bytes (or of the text), the encoder's weights, and how both are prepared and
computed. All of that is in its key, so a kept vector is never stale, and a new fusion on the same frozen encoders finds
those of the model before it. Values are half precision as raw numbers. Where they are kept is the caller's `Store`.

After family.py, preparation.py and text.py; before stacking.py and categorizer.py.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mmcat.bundle import LoadedBundle
from mmcat.engines.base import Vectors
from mmcat.listing import PhotoVectors, Store

FORMAT = 1  # change it where photos are decoded, titles cut or vectors written otherwise: kept ones are not found then
_HALF = np.dtype("<f2")


class Features:
    """The vectors of one model on one engine.

    Args:
        fingerprints: of each encoder (`fingerprints`).
        cells, image_width: N and D of a photo's vectors.
        text_width: D of a title's.
    """

    def __init__(
        self, store: Store, fingerprints: Mapping[str, bytes], cells: int, image_width: int, text_width: int
    ) -> None:
        self._store, self._fingerprints = store, fingerprints
        self._cells, self._image_width, self._text_width = cells, image_width, text_width

    def photos(self, digests: Sequence[bytes]) -> list[PhotoVectors | None]:
        """Those of photos with these SHA-256 digests."""
        found = self._store.get("photo", [self._key("image", digest) for digest in digests])
        shape = (self._cells, self._image_width)
        return [
            None if (vectors := _read(value, self._image_width)) is None or vectors.shape != shape
            else PhotoVectors(digest, vectors)
            for digest, value in zip(digests, found, strict=True)
        ]  # fmt: skip

    def titles(self, titles: Sequence[str]) -> list[Vectors | None]:
        """Those of titles: float16 [T, D], T = 1 when pooled, else the tokens without padding."""
        found = self._store.get("title", [self._key("text", title.encode()) for title in titles])
        return [_read(value, self._text_width) for value in found]

    def keep(self, titles: Mapping[str, Vectors], photos: Mapping[bytes, Vectors]) -> None:
        """Keep these, but for what half precision cannot hold."""
        items = {self._key("text", title.encode()): vectors for title, vectors in titles.items()}
        items |= {self._key("image", digest): vectors for digest, vectors in photos.items()}
        finite = {key: vectors for key, vectors in items.items() if np.isfinite(vectors).all()}
        if finite:
            self._store.put({key: vectors.astype(_HALF).tobytes() for key, vectors in finite.items()})

    def _key(self, encoder: str, content: bytes) -> bytes:
        return hashlib.sha256(self._fingerprints[encoder] + content).digest()


def fingerprints(bundle: LoadedBundle, engine: str, numerics: str) -> dict[str, bytes]:
    """What decides the vectors of "text" and "image", as far as the model reads them; blocks for 1.2 s per GB.

    Args:
        engine, numerics: names of what computes them.
    """
    config, preprocessing = bundle.config.to_json(), bundle.preprocessing.to_json()
    common = [FORMAT, engine, numerics]
    found = {}
    if image := bundle.weights.encoder("image_encoder"):
        shape = [config[name] for name in ("resnet_strides", "image_layers", "px", "grid")]
        seen = [preprocessing[name] for name in ("px", "fit", "fill", "max_pixels", "mean", "std")]
        seen += ["scaled_decode"] * bundle.preprocessing.scaled_decode
        found["image"] = _digest([*common, "image", shape, seen], image)
    if bundle.tokenizer is not None and (text := bundle.weights.encoder("text_encoder")):
        shape = [config[name] for name in ("text_encoder", "text_pooling", "keys")]
        found["text"] = _digest([*common, "text", shape, bundle.tokenizer.definition], text)
    return found


def _digest(settings: object, state: Mapping[str, Tensor]) -> bytes:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _read(value: bytes | None, width: int) -> Vectors | None:
    if value is None or not value or len(value) % (width * _HALF.itemsize):
        return None
    return np.frombuffer(value, _HALF).reshape(-1, width)
