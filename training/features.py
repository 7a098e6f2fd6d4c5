"""What frozen encoders make of every listing, computed once and kept on disk.

    rows ─ prepare (the same road as serving) ─> encoder ─> text float [N, D], image float [N, D]

A file is named by what it depends on: the contents (titles, photos), the encoder's weights and the preprocessing; a
change of any of them is another file, and nothing is ever stale. Files are memory-mapped: they may exceed memory.

After splits.py and the encoders; before fusion.py, which trains on them. Encoders run in eval mode, without gradients.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mmcat.listing import Listing
from mmcat.model import CategoryModel
from mmcat.photos import Pixels
from mmcat.preparation import Preprocessing, listing_text, photo
from mmcat.text import Tokenizer
from training.data import Dataset, Row
from training.progress import Progress, chunks

Array = npt.NDArray[Any]
_FORMAT = 1  # change it where the way of computing changes
_OF_TEXT = ("max_tokens", "text_fields")  # parts of Preprocessing that photos do not see
_PHOTOS, _TITLES = 32, 64  # rows per run of the encoder: larger is no faster on a CPU


@dataclass(frozen=True, slots=True)
class Features:
    """Vectors of one modality, one per row and view; rows without it hold zeros.

    Args:
        vectors: [N, D], fp16 or fp32, memory-mapped.
        there: bool [N]; False where the listing has no title, no photo, or one that cannot be decoded.
    """

    vectors: Array
    there: npt.NDArray[np.bool_]

    @property
    def views(self) -> int:
        """How many augmented views there are of each row; 0 is the one that serving sees."""
        return 1

    def take(self, rows: npt.NDArray[np.int64], view: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors float32 [B, 1, D], which of their places are real bool [B, 1], which rows have any bool [B]."""
        x_BLD = torch.from_numpy(self.vectors[rows].astype(np.float32)).unsqueeze(1)
        return x_BLD, torch.ones(x_BLD.shape[:2], dtype=torch.bool), torch.from_numpy(self.there[rows])


def fingerprint(encoder: nn.Module) -> str:
    """SHA-256 hex of an encoder's weights and of the strides that its weights do not show."""
    digest = hashlib.sha256()
    for name, value in encoder.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    strides = [tuple(module.stride) for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    digest.update(repr(strides).encode())
    return digest.hexdigest()


def titles(dataset: Dataset, preprocessing: Preprocessing) -> list[str]:
    """The texts as serving sees them."""
    return [
        listing_text(
            Listing(row.id, title=row.title, brand=row.brand, maker=row.maker, model=row.model),
            preprocessing.text_fields,
        )
        for row in dataset.rows
    ]


def pixels(rows: Sequence[Row], preprocessing: Preprocessing) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Photos as serving sees them: uint8 [K, px, px, 3] of the K rows that have one, and bool [len(rows)]."""
    found = []
    for row in rows:
        image = row.photo() if row.photo is not None else None
        found.append(photo(Listing(row.id, image=image), preprocessing)[0])
    there = np.array([one is not None for one in found], np.bool_)
    px = preprocessing.px
    stacked = np.stack([one for one in found if one is not None]) if there.any() else np.zeros((0, px, px, 3), np.uint8)
    return stacked, there


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
        texts = titles(dataset, preprocessing)
        device = _ready(model)

        def compute(vectors: Array, there: npt.NDArray[np.bool_]) -> None:
            there[:] = [bool(text) for text in texts]
            # By length: a batch is as long as its longest title.
            order = sorted(np.flatnonzero(there), key=lambda row: len(texts[row]))
            for rows in chunks(order, _TITLES, progress, "title features"):
                ids_BT, mask_BT = tokenizer.encode([texts[row] for row in rows])
                text_BTD = model.encode_text(torch.from_numpy(ids_BT).to(device), torch.from_numpy(mask_BT).to(device))
                vectors[rows] = text_BTD[:, 0].float().cpu().numpy()

        facts = (fingerprint(_not_none(model.text_encoder)), model.config.text_pooling)
        key = _key("text", _token_bytes(texts, tokenizer), facts)
        return self._get(f"text-{key}", len(texts), model.config.text_width, compute)

    def image(
        self, dataset: Dataset, model: CategoryModel, preprocessing: Preprocessing, progress: Progress
    ) -> Features:
        """Photo vectors of all rows; blocks for a minute per 2,000 photos of 128 px and core unless cached."""
        device = _ready(model)
        mean_C11 = torch.tensor(preprocessing.mean, device=device).view(3, 1, 1) * 255
        std_C11 = torch.tensor(preprocessing.std, device=device).view(3, 1, 1) * 255

        def compute(vectors: Array, there: npt.NDArray[np.bool_]) -> None:
            for rows in chunks(range(len(dataset)), _PHOTOS, progress, "photo features"):
                pixels_BXXC, have = pixels([dataset.rows[row] for row in rows], preprocessing)
                at = np.array(rows)[have]
                there[at] = True
                if len(at):
                    pixels_BCXX = torch.from_numpy(pixels_BXXC).to(device).permute(0, 3, 1, 2)  # channels-last as it is
                    image_BND = model.encode_image((pixels_BCXX.float() - mean_C11) / std_C11)
                    vectors[at] = image_BND[:, 0].float().cpu().numpy()

        contents = (row.photo() if row.photo is not None else b"" for row in dataset.rows)
        settings = {name: value for name, value in preprocessing.to_json().items() if name not in _OF_TEXT}
        facts = (fingerprint(_not_none(model.image_encoder)), model.config.image_layers, json.dumps(settings))
        return self._get(f"image-{_key('image', contents, facts)}", len(dataset), model.config.image_width, compute)

    def _get(
        self, name: str, rows: int, width: int, compute: Callable[[Array, npt.NDArray[np.bool_]], None]
    ) -> Features:
        """Opens the pair of files, made first where they are not there; a run that dies half-way leaves none."""
        vectors_path = self._folder / f"{name}-{self._dtype.name}.npy"
        there_path = vectors_path.with_suffix(".there.npy")
        if not vectors_path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            beside = self._folder / f".{name}.{os.getpid()}.npy"
            try:
                vectors = np.lib.format.open_memmap(beside, mode="w+", dtype=self._dtype, shape=(rows, width))
                there = np.zeros(rows, np.bool_)
                with torch.inference_mode():
                    compute(vectors, there)
                vectors.flush()
                np.save(there_path, there)
                beside.replace(vectors_path)
            finally:
                beside.unlink(missing_ok=True)
        return Features(np.load(vectors_path, mmap_mode="r"), np.load(there_path))


def _ready(model: CategoryModel) -> torch.device:
    """Eval mode (dropout off, running statistics), channels-last; gives the model's device."""
    model.eval()
    if model.image_encoder is not None:
        model.image_encoder.to(memory_format=torch.channels_last)
    return next(model.parameters()).device


def _not_none(encoder: nn.Module | None) -> nn.Module:
    assert encoder is not None  # noqa: S101  the callers build their models with it
    return encoder


def _token_bytes(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[bytes]:
    """What the encoder will see of each title: covers the text, the tokenizer and where it cuts."""
    for start in range(0, len(texts), 1_000):
        ids_BT, mask_BT = tokenizer.encode(texts[start : start + 1_000])
        yield from (ids_T[mask_T == 1].tobytes() for ids_T, mask_T in zip(ids_BT, mask_BT, strict=True))


def _key(kind: str, contents: Iterator[bytes], facts: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{_FORMAT}\t{kind}\t{facts}".encode())
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:24]
