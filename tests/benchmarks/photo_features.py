"""How much quicker photo features are computed on a CPU than by the best eager PyTorch, float32.

    python -m tests.benchmarks.photo_features [--px 128] [--photos 64] [--pairs 9] [--small] [--json]

The encoder is that of the recipes: ResNet50 with the means of layer3 and layer4. `features` is what training does
(training.photo_encoder); `eager` is channels-last PyTorch at batches of 8, 16, 32 and 64, of which the quickest in a
first look is the peer; `folded` is eager with BatchNorm folded into the convolutions. Photos are decoded already. All
take turns; ratios are medians over pairs with a 95 % bootstrap interval. `--small` is for seeing that it runs.
"""

import argparse
import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck

from mmcat.cli.benchmarks.intervals import ratio
from mmcat.engines.graphs import PhotoPart
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.photos import Pixels
from mmcat.preparation import Preprocessing
from tests.benchmarks.intervals import best, rounds
from training.photo_encoder import FEW, PhotoEncoder

BATCHES, BLOCK = (8, 16, 32, 64), 32
LOOKS = 2  # of each batch size, to find eager's best


def main() -> None:
    parser = argparse.ArgumentParser(description="Photo features on a CPU against eager PyTorch.")
    parser.add_argument("--px", type=int, default=128)
    parser.add_argument("--photos", type=int, default=64, help="of each turn")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="few and small photos: only to see that it runs")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.small:
        given.px, given.photos, given.pairs = 32, 8, 2
    found = measure(given.px, given.photos, given.pairs)
    if given.json:
        print(json.dumps(found, default=asdict))
        return
    for name, rate in found["photos_per_s"].items():
        print(f"{name:<22} {rate:>8.1f} photos/s")
    for name in ("over_eager", "over_folded"):
        print(f"features {name.replace('_', ' ')}: {found[name]}")
    print(f"largest difference {found['difference']:.1e} of values up to {found['largest']:.1f}")


def measure(px: int, photos: int, pairs: int) -> dict[str, Any]:
    """Rates, ratios, and how far the vectors are apart."""
    model = CategoryModel(ModelConfig((1, 1, 1, 1), modality="image", image_layers="layer3+layer4", px=px)).eval()
    model.requires_grad_(False).to(memory_format=torch.channels_last)
    preprocessing = Preprocessing(px=px)
    pixels = np.random.default_rng(0).integers(0, 256, (photos, px, px, 3), np.uint8)
    encode = PhotoEncoder(model, preprocessing, photos=FEW)
    eager = {f"eager, batch {size}": _batches(PhotoPart(model, preprocessing), pixels, size) for size in BATCHES}
    peer = best(rounds(eager, LOOKS))
    folded = _batches(PhotoPart(_folded(model), preprocessing), pixels, int(peer.split()[-1]))

    def features() -> np.ndarray:
        return np.concatenate([encode(pixels[start : start + BLOCK]) for start in range(0, photos, BLOCK)])

    took = rounds({"features": features, peer: eager[peer], "folded": folded}, pairs)
    expected, seen = eager[peer](), features()
    return {
        "ran_by": encode.name,
        "px": px,
        "threads": torch.get_num_threads(),
        "photos_per_s": {name: photos / float(np.median(seconds)) for name, seconds in took.items()},
        "over_eager": ratio(took[peer], took["features"]),
        "over_folded": ratio(took["folded"], took["features"]),
        "difference": float(np.abs(expected - seen).max()),
        "largest": float(np.abs(expected).max()),
    }


def _batches(part: PhotoPart, pixels: Pixels, size: int) -> Callable[[], np.ndarray]:
    part.eval()

    def run() -> np.ndarray:
        with torch.inference_mode():
            parts = [part(torch.from_numpy(pixels[start : start + size])) for start in range(0, len(pixels), size)]
            return torch.cat(parts).numpy()

    return run


def _folded(model: CategoryModel) -> CategoryModel:
    """A copy whose convolutions hold what BatchNorm did after them."""
    model = copy.deepcopy(model)
    assert model.image_encoder is not None
    trunk = model.image_encoder.trunk
    _fold(trunk, "conv1", "bn1")
    for block in trunk.modules():
        if isinstance(block, Bottleneck):
            for place in ("1", "2", "3"):
                _fold(block, f"conv{place}", f"bn{place}")
            if block.downsample is not None:
                _fold(block.downsample, "0", "1")
    return model.to(memory_format=torch.channels_last)


def _fold(parent: nn.Module, convolution: str, norm: str) -> None:
    first, second = parent.get_submodule(convolution), parent.get_submodule(norm)
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.BatchNorm2d)
    joined = fuse_conv_bn_eval(first, second)
    parent.set_submodule(convolution, joined)
    parent.set_submodule(norm, nn.Identity())


if __name__ == "__main__":
    main()
