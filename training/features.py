"""What frozen encoders make of every listing, computed once and kept on disk.

    rows ─ prepare (the same road as serving) ─> encoder ─> store of text places, store of photo places

A store is named by what it depends on: the contents (titles, photos), the encoder's weights, the preprocessing and what
ran the encoder; a change of any of them is another store, and nothing is ever stale or mixed. How it lies on disk is
store.py's.

After splits.py and the encoders; before fusion.py, which trains on them. Encoders run in eval mode, without gradients.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mmcat.errors import PhotoError
from mmcat.listing import Listing
from mmcat.model import CategoryModel
from mmcat.photos import Pixels, decode
from mmcat.preparation import Preprocessing, listing_text, photo
from mmcat.text import Tokenizer
from training.data import Dataset, Row, Skipped
from training.errors import DataError
from training.photo_encoder import PhotoEncoder
from training.progress import Progress
from training.store import Block, Features, Layout, stored
from training.views import augmented

__all__ = [
    "OF_TEXT",
    "FeatureCache",
    "Features",
    "fingerprint",
    "lost_photos",
    "photo_settings",
    "pixels",
    "titles",
]

Array = npt.NDArray[Any]
OF_TEXT = ("max_tokens", "text_fields")
"""Parts of Preprocessing that photos do not see; they see all others."""
_FORMAT = 3  # change it where the way of computing changes
_PHOTOS, _TITLES = 32, 64  # rows per run of the encoder: larger is no faster on a CPU
_TITLE_BLOCK = 64 * _TITLES  # rows that are sorted by length and written together


def fingerprint(encoder: nn.Module) -> str:
    """SHA-256 hex of an encoder's weights and of the strides that its weights do not show."""
    digest = hashlib.sha256()
    for name, value in encoder.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    strides = [tuple(module.stride) for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    digest.update(repr(strides).encode())
    return digest.hexdigest()


def photo_settings(preprocessing: Preprocessing) -> str:
    """What photos see of a preprocessing, as JSON."""
    return json.dumps({name: value for name, value in preprocessing.to_json().items() if name not in OF_TEXT})


def titles(dataset: Dataset, preprocessing: Preprocessing) -> list[str]:
    """The texts as serving sees them, all in memory."""
    return [_text(row, preprocessing) for row in dataset.rows]


def pixels(rows: Sequence[Row], preprocessing: Preprocessing) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Photos as serving sees them: uint8 [K, px, px, 3] of the K rows with a usable one, and bool [len(rows)]."""
    found = [photo(Listing(row.id, image=row.photo_bytes()), preprocessing)[0] for row in rows]
    there = np.array([one is not None for one in found], np.bool_)
    px = preprocessing.px
    stacked = np.stack([one for one in found if one is not None]) if there.any() else np.zeros((0, px, px, 3), np.uint8)
    return stacked, there


def lost_photos(dataset: Dataset, image: Features, preprocessing: Preprocessing) -> list[Skipped]:
    """The photos that rows name and that `image` lacks, and why; blocks for as long as it takes to decode these."""
    lines = dataset.rows.numbers("line")
    lost = np.flatnonzero(dataset.rows.with_photo & ~image.there).tolist()
    return [Skipped(int(lines[row]), "image", _why_lost(dataset.rows[row], preprocessing)) for row in lost]


class FeatureCache:
    """Computes features, or finds them where they were computed before.

    Args:
        folder: made when needed.
        dtype: of the files, "fp16" or "fp32".
    """

    def __init__(self, folder: Path, dtype: str = "fp32") -> None:
        self._folder, self._dtype = folder, np.dtype(np.float16 if dtype == "fp16" else np.float32)

    def text(
        self,
        dataset: Dataset,
        model: CategoryModel,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing,
        progress: Progress,
    ) -> Features:
        """Title vectors of all rows; blocks for a minute per 30,000 short titles and core unless cached."""
        device, width = _ready(model), model.config.text_width

        def compute(rows: range) -> Block:
            texts = [_text(row, preprocessing) for row in dataset.rows[rows.start : rows.stop]]
            runs = [np.zeros((0, width), np.float32)] * len(texts)
            # By length: a run of the encoder is as long as its longest title.
            order = sorted((row for row, text in enumerate(texts) if text), key=lambda row: len(texts[row]))
            for start in range(0, len(order), _TITLES):
                some = order[start : start + _TITLES]
                encoded = _encode_titles(model, tokenizer, [texts[row] for row in some], device)
                for row, run_TD in zip(some, encoded, strict=True):
                    runs[row] = run_TD
            return np.concatenate(runs), np.array([[len(run_TD)] for run_TD in runs], np.int32)

        facts = (fingerprint(_not_none(model.text_encoder)), model.config.text_pooling, model.config.keys)
        digest, tokens = _started("text", facts), 0
        for seen in _token_bytes(dataset, tokenizer, preprocessing):
            digest.update(hashlib.sha256(seen).digest())
            tokens += len(seen) // 8
        with torch.inference_mode():
            pooled = len(_encode_titles(model, tokenizer, ["a title"], device)[0]) == 1
            layout = Layout(len(dataset), width, len(dataset) if pooled else tokens, self._dtype, block=_TITLE_BLOCK)
            return stored(self._place("text", digest.hexdigest()), layout, compute, progress, "title features")

    def image(
        self,
        dataset: Dataset,
        model: CategoryModel,
        preprocessing: Preprocessing,
        progress: Progress,
        views: int = 1,
    ) -> Features:
        """Photo vectors of all rows; blocks for a minute per 2,000 photos of 128 px, core and view unless cached.

        Args:
            views: of each photo (training.views); 1: as it is.

        Raises:
            DataError: the data brings vectors of its own and the model makes them of photos, or the reverse, or they
                are of another width than the model reads.
        """
        if (brings := dataset.given_photo_width) != (reads := model.config.given_photo_width):
            raise DataError(f"{dataset.name} brings {_kind(brings)}, and this model reads {_kind(reads)}")
        if dataset.photo_vectors is not None:
            return dataset.photo_vectors
        width = model.config.image_width
        _ready(model)
        encode = PhotoEncoder(model, preprocessing, len(dataset) * views)

        def compute(rows: range) -> Block:
            some = dataset.rows[rows.start : rows.stop]
            pixels_KXXC, have = pixels(some, preprocessing)
            ids = [row.id for row, has in zip(some, have, strict=True) if has]
            runs = np.zeros((len(some), views), np.int32)
            if not ids:
                return np.zeros((0, width), np.float32), runs
            seen = (_seen(pixels_KXXC, ids, view) for view in range(views))
            image_KVND = np.stack([encode(one) for one in seen], axis=1)
            runs[have] = image_KVND.shape[2]
            return image_KVND.reshape(-1, width), runs

        shape = (model.config.image_layers, model.config.grid)
        ran_by = () if encode.name == "torch" else (encode.name,)
        facts = (fingerprint(_not_none(model.image_encoder)), *shape, photo_settings(preprocessing), views, *ran_by)
        digest = _started("image", facts)
        for row in dataset.rows:
            content = hashlib.sha256(row.photo_bytes() or b"").digest()
            digest.update(content + (row.id.encode() if views > 1 else b""))
        with torch.inference_mode():
            cells = encode.cells()
            layout = Layout(len(dataset), width, len(dataset) * views * cells, self._dtype, views, block=_PHOTOS)
            return stored(self._place("image", digest.hexdigest()), layout, compute, progress, "photo features")

    def _place(self, kind: str, digest: str) -> Path:
        return self._folder / f"{kind}-{digest[:24]}-{self._dtype.name}"


def _encode_titles(
    model: CategoryModel, tokenizer: Tokenizer, texts: Sequence[str], device: torch.device
) -> list[npt.NDArray[np.float32]]:
    """Each title's places [T, D]: one where the model pools, else one for each token that is not padding."""
    ids_BT, mask_BT = tokenizer.encode(texts)
    text_BTD = model.encode_text(torch.from_numpy(ids_BT).to(device), torch.from_numpy(mask_BT).to(device))
    lengths_B = mask_BT.sum(1) if text_BTD.shape[1] == mask_BT.shape[1] else np.ones(len(texts), np.int64)
    return [run_TD[:length] for run_TD, length in zip(text_BTD.float().cpu().numpy(), lengths_B, strict=True)]


def _seen(pixels_KXXC: Pixels, ids: Sequence[str], view: int) -> Pixels:
    if view == 0:
        return pixels_KXXC
    return np.stack([augmented(one, id_, view) for one, id_ in zip(pixels_KXXC, ids, strict=True)])


def _why_lost(row: Row, preprocessing: Preprocessing) -> str:
    assert row.photo is not None  # noqa: S101  the caller looks at rows that name one
    try:
        decode(row.photo(), preprocessing.px, max_pixels=preprocessing.max_pixels)
    except PhotoError as error:
        return f"{row.id}: {error}"
    return f"{row.id}: photo could not be read when its features were made"


def _kind(width: int | None) -> str:
    return "photos" if width is None else f"photo vectors of width {width}"


def _text(row: Row, preprocessing: Preprocessing) -> str:
    listing = Listing(row.id, title=row.title, brand=row.brand, maker=row.maker, model=row.model)
    return listing_text(listing, preprocessing.text_fields)


def _ready(model: CategoryModel) -> torch.device:
    """Eval mode (dropout off, running statistics), channels-last; gives the model's device."""
    model.eval()
    if model.image_encoder is not None:
        model.image_encoder.to(memory_format=torch.channels_last)
    return next(model.parameters()).device


def _not_none(encoder: nn.Module | None) -> nn.Module:
    assert encoder is not None  # noqa: S101  the callers build their models with it
    return encoder


def _token_bytes(dataset: Dataset, tokenizer: Tokenizer, preprocessing: Preprocessing) -> Iterator[bytes]:
    """What the encoder will see of each title: covers the text, the tokenizer and where it cuts."""
    for start in range(0, len(dataset), 1_000):
        texts = [_text(row, preprocessing) for row in dataset.rows[start : start + 1_000]]
        ids_BT, mask_BT = tokenizer.encode(texts)
        yield from (ids_T[mask_T == 1].tobytes() for ids_T, mask_T in zip(ids_BT, mask_BT, strict=True))


def _started(kind: str, facts: Sequence[object]) -> "hashlib._Hash":
    return hashlib.sha256(f"{_FORMAT}\t{kind}\t{tuple(facts)}".encode())
