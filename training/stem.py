"""What the frozen blocks of the image encoder make of every photo, once, and the blocks after them on top of it.

ResNet50's 16 bottleneck blocks are counted from the last. The encoder is run once over all rows; the output of the last
frozen block (and of layer3, where the encoder's vector is made of it too) is kept in half precision on disk: 64 kB a
photo of 128 px where layer4's last block is tuned.

After features.py; before tune.py.
"""

import copy
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mmcat.model import CategoryModel, ImageEncoder
from mmcat.normalisation import Normalisation
from mmcat.preparation import Preprocessing
from training.data import Dataset
from training.features import fingerprint, pixels
from training.order import Rows
from training.progress import Progress, chunks
from training.task import Arguments

_STAGES = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}  # bottleneck blocks of each
_PHOTOS = 32


class _Recall(nn.Module):
    """Stands where a frozen part stood: gives what that part gave for these rows, whatever it is given now."""

    kept: Tensor

    def forward(self, _: Tensor) -> Tensor:
        return self.kept


@dataclass(frozen=True)
class Stem:
    """Kept outputs of frozen blocks, and an encoder that goes on from them.

    Args:
        kept: by the module's name inside the trunk, float16 [N, Y, Y, C], memory-mapped.
        encoder: with its frozen part replaced by what is kept.
        tail: the blocks that are tuned.
    """

    kept: dict[str, npt.NDArray[np.float16]]
    encoder: nn.Module
    tail: nn.ModuleList

    def take(self, rows: Rows) -> Arguments:
        """Arguments "kept0", … for these rows, float16 [B, Y, Y, C]."""
        return {f"kept{place}": torch.from_numpy(values[rows]) for place, values in enumerate(self.kept.values())}

    def finish(self, kept: Sequence[Tensor]) -> Tensor:
        """Runs the tail; gives what `CategoryModel.encode_image` would: [B, N, D]."""
        for name, value in zip(self.kept, kept, strict=True):
            recall = self.encoder.get_submodule(f"trunk.{name}")
            assert isinstance(recall, _Recall)  # noqa: S101  `onto` put it there
            recall.kept = value.float().permute(0, 3, 1, 2)  # channels-last without a copy
        image_BND: Tensor = self.encoder(kept[0])
        return image_BND

    def onto(self, encoder: ImageEncoder) -> "Stem":
        """The same kept outputs, to go on with the blocks of this encoder: tuning them tunes it."""
        blocks = _tail_names(self.kept)
        return replace(self, encoder=_without_stem(encoder, list(self.kept), blocks), tail=_modules(encoder, blocks))


def make_stem(
    dataset: Dataset, model: CategoryModel, preprocessing: Preprocessing, blocks: int, folder: Path, progress: Progress
) -> Stem:
    """Computes what is kept, or finds it in `folder`; blocks for a minute per 2,000 photos of 128 px and core.

    Args:
        blocks: to be tuned, 1 to 9.
    """
    encoder = model.image_encoder
    assert encoder is not None  # noqa: S101  the caller builds models that read photos
    names = _kept_names(blocks, "layer3" in model.config.image_layers)
    key = _key(dataset, encoder, preprocessing)
    paths = {name: folder / f"stem-{name.replace('.', '-')}-{key}.npy" for name in names}
    if not all(path.exists() for path in paths.values()):
        _compute(dataset, encoder, preprocessing, paths, progress)
    kept = {name: np.load(path, mmap_mode="r") for name, path in paths.items()}
    return Stem(kept, encoder, nn.ModuleList())


def last_blocks(encoder: ImageEncoder, count: int) -> nn.ModuleList:
    """The encoder's last `count` bottleneck blocks."""
    return _modules(encoder, _block_names()[-count:])


def _block_names() -> list[str]:
    return [f"{stage}.{block}" for stage, count in _STAGES.items() for block in range(count)]


def _kept_names(blocks: int, with_layer3: bool) -> list[str]:
    """Modules of the trunk whose output is kept; a stage that is frozen whole is kept as a stage."""
    last = _block_names()[-blocks - 1]
    stage, block = last.split(".")
    whole = stage if int(block) == _STAGES[stage] - 1 else last
    return ["layer3", whole] if with_layer3 and stage == "layer4" else [whole]


def _tail_names(kept: dict[str, Any]) -> list[str]:
    names = _block_names()
    stage, _, block = list(kept)[-1].partition(".")
    return names[names.index(f"{stage}.{block or _STAGES[stage] - 1}") + 1 :]


def _modules(encoder: ImageEncoder, names: Sequence[str]) -> nn.ModuleList:
    return nn.ModuleList(encoder.trunk.get_submodule(name) for name in names)


def _without_stem(encoder: ImageEncoder, kept: Sequence[str], tail: Sequence[str]) -> nn.Module:
    """An encoder that shares the tail's modules, recalls what is kept and does nothing before it."""
    bare = copy.deepcopy(encoder)
    for name in tail:
        bare.trunk.set_submodule(name, encoder.trunk.get_submodule(name))
    frozen = ["conv1", "bn1", "relu", "maxpool"]
    for stage, count in _STAGES.items():
        blocks = [f"{stage}.{block}" for block in range(count)]
        frozen += [stage] if not set(blocks) & set(tail) else [name for name in blocks if name not in tail]
    for name in frozen:
        bare.trunk.set_submodule(name, _Recall() if name in kept else nn.Identity())
    return bare


def _compute(
    dataset: Dataset, encoder: ImageEncoder, preprocessing: Preprocessing, paths: dict[str, Path], progress: Progress
) -> None:
    """Runs the frozen encoder once; a run that dies half-way leaves nothing."""
    device = next(encoder.parameters()).device
    encoder.eval().to(memory_format=torch.channels_last)
    normalisation = Normalisation(preprocessing).to(device)
    beside = {name: path.with_name(f".{path.name}.{os.getpid()}") for name, path in paths.items()}
    seen: dict[str, Tensor] = {}
    files: dict[str, np.memmap[Any, np.dtype[np.float16]]] = {}
    hooks = [
        encoder.trunk.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name in paths
    ]
    next(iter(paths.values())).parent.mkdir(parents=True, exist_ok=True)
    try:
        with torch.inference_mode():
            for rows in chunks(range(len(dataset)), _PHOTOS, progress, "photos up to the tuned blocks"):
                pixels_BXXC, there = pixels([dataset.rows[row] for row in rows], preprocessing)
                if not there.any():
                    continue
                encoder(normalisation(torch.from_numpy(pixels_BXXC).to(device)))
                for name, out_BCYY in seen.items():
                    out_BYYC = out_BCYY.permute(0, 2, 3, 1).half().cpu().numpy()
                    if name not in files:
                        shape = (len(dataset), *out_BYYC.shape[1:])
                        files[name] = np.lib.format.open_memmap(beside[name], "w+", np.float16, shape)
                    files[name][np.array(rows)[there]] = out_BYYC
        for name, values in files.items():
            values.flush()
            beside[name].replace(paths[name])
    finally:
        for hook in hooks:
            hook.remove()
        for path in beside.values():
            path.unlink(missing_ok=True)


def _key(dataset: Dataset, encoder: ImageEncoder, preprocessing: Preprocessing) -> str:
    facts = (fingerprint(encoder), preprocessing.px, preprocessing.fit, preprocessing.fill, preprocessing.max_pixels)
    digest = hashlib.sha256(repr(facts).encode())
    for row in dataset.rows:
        digest.update(hashlib.sha256(row.photo_bytes() or b"").digest())
    return digest.hexdigest()[:24]
