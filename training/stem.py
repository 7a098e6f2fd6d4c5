"""What the frozen blocks of the image encoder make of every photo, once, and the blocks after them on top of it.

ResNet50's 16 bottleneck blocks are counted from the last. The encoder is run once over all rows; the output of the last
frozen block (and of layer3, where the encoder's vector is made of it too) is kept in half precision in a feature store:
64 kB a photo of 128 px where layer4's last block is tuned.

After features.py; before tune.py.
"""

import copy
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmcat.model import CategoryModel, ImageEncoder
from mmcat.normalisation import Normalisation
from mmcat.photos import Pixels
from mmcat.preparation import Preprocessing
from training.data import Dataset
from training.features import fingerprint, photo_settings, pixels
from training.order import Rows
from training.progress import Progress
from training.store import Block, Features, Layout, stored
from training.task import Arguments

_STAGES = {"layer1": 3, "layer2": 4, "layer3": 6, "layer4": 3}  # bottleneck blocks of each
_PHOTOS = 32  # rows per run of the encoder, as in features.py


class _Recall(nn.Module):
    """Stands where a frozen part stood: gives what that part gave for these rows, whatever it is given now."""

    kept: Tensor

    def forward(self, _: Tensor) -> Tensor:
        return self.kept


@dataclass(frozen=True)
class Stem:
    """Kept outputs of frozen blocks, and an encoder that goes on from them.

    Args:
        kept: one place for each photo, in which the outputs lie one after the other.
        shapes: of these outputs, [Y, Y, C] each, by the module's name inside the trunk.
        encoder: with its frozen part replaced by what is kept.
        tail: the blocks that are tuned.
    """

    kept: Features
    shapes: dict[str, torch.Size]
    encoder: nn.Module
    tail: nn.ModuleList

    def take(self, rows: Rows) -> Arguments:
        """Arguments "kept0", … for these rows, float32 [B, Y, Y, C]; zeros where a listing has no photo."""
        kept_B1W, _, _ = self.kept.take(rows)
        shapes = self.shapes.values()
        outputs = torch.split(kept_B1W[:, 0], [math.prod(shape) for shape in shapes], dim=1)
        parted = zip(outputs, shapes, strict=True)
        return {f"kept{place}": out_BW.reshape(-1, *shape) for place, (out_BW, shape) in enumerate(parted)}

    def finish(self, kept: Sequence[Tensor]) -> Tensor:
        """Runs the tail; gives what `CategoryModel.encode_image` would: [B, N, D]."""
        for name, value in zip(self.shapes, kept, strict=True):
            recall = self.encoder.get_submodule(f"trunk.{name}")
            assert isinstance(recall, _Recall)  # noqa: S101  `onto` put it there
            recall.kept = value.permute(0, 3, 1, 2)  # channels-last without a copy
        image_BND: Tensor = self.encoder(kept[0])
        return image_BND

    def onto(self, encoder: ImageEncoder) -> "Stem":
        """The same kept outputs, to go on with the blocks of this encoder: tuning them tunes it."""
        blocks = _tail_names(list(self.shapes))
        return replace(self, encoder=_without_stem(encoder, list(self.shapes), blocks), tail=_modules(encoder, blocks))


def make_stem(
    dataset: Dataset, model: CategoryModel, preprocessing: Preprocessing, blocks: int, folder: Path, progress: Progress
) -> Stem:
    """Computes what is kept, or finds it in `folder`; blocks for a minute per 2,000 photos of 128 px and core.

    Args:
        blocks: to be tuned, 1 to 9.

    Raises:
        DataError: not enough disk.
    """
    encoder = model.image_encoder
    assert encoder is not None  # noqa: S101  the caller builds models that read photos
    names = _kept_names(blocks, "layer3" in model.config.image_layers)
    device = next(encoder.parameters()).device
    encoder.eval().to(memory_format=torch.channels_last)
    normalisation = Normalisation(preprocessing).to(device)
    blank_1XXC = np.zeros((1, preprocessing.px, preprocessing.px, 3), np.uint8)

    with torch.inference_mode(), _outputs(encoder, names) as seen:

        def run(pixels_KXXC: Pixels) -> dict[str, Tensor]:
            encoder(normalisation(torch.from_numpy(pixels_KXXC).to(device)))
            return {name: seen[name].permute(0, 2, 3, 1) for name in names}

        def compute(rows: range) -> Block:
            pixels_KXXC, have = pixels(dataset.rows[rows.start : rows.stop], preprocessing)
            runs = have.astype(np.int32)[:, None]
            if not have.any():
                return np.zeros((0, layout.width), layout.dtype), runs
            outputs = [out_KYYC.flatten(1) for out_KYYC in run(pixels_KXXC).values()]
            return torch.cat(outputs, dim=1).half().cpu().numpy(), runs

        shapes = {name: out_1YYC.shape[1:] for name, out_1YYC in run(blank_1XXC).items()}
        width = sum(map(math.prod, shapes.values()))
        layout = Layout(len(dataset), width, len(dataset), np.dtype(np.float16), block=_PHOTOS)
        place = folder / f"stem-{_key(dataset, encoder, names, preprocessing)}-{layout.dtype.name}"
        kept = stored(place, layout, compute, progress, "photos up to the tuned blocks")
    return Stem(kept, shapes, encoder, nn.ModuleList())


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


def _tail_names(kept: Sequence[str]) -> list[str]:
    names = _block_names()
    stage, _, block = kept[-1].partition(".")
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


@contextmanager
def _outputs(encoder: ImageEncoder, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """What these modules of the trunk gave in the encoder's last run, by their names."""
    seen: dict[str, Tensor] = {}
    hooks = [
        encoder.trunk.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name in names
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _key(dataset: Dataset, encoder: ImageEncoder, names: Sequence[str], preprocessing: Preprocessing) -> str:
    facts = (fingerprint(encoder), *names, photo_settings(preprocessing))
    digest = hashlib.sha256(repr(facts).encode())
    for row in dataset.rows:
        digest.update(hashlib.sha256(row.photo_bytes() or b"").digest())
    return digest.hexdigest()[:24]
