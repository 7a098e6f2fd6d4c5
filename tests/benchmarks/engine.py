"""How much quicker the CPU engine answers than eager PyTorch in float32, the whole seed-shaped model.

    python -m tests.benchmarks.engine [--listings 32] [--pairs 9] [--tokens 30] [--small] [--json]

The model has the research code's shape: ResNet50 at 224 px, BERT-base, 30 tokens, 6 blocks, heads 57 / 552 / 3,190 /
404; weights are random, every listing has a title and a photo, decoded and tokenized already. `fp32` and, where the
CPU has it, `bf16` are mmcat.engines.cpu, and so is `int8`, where the extra `calibrate` is installed: calibrated on
random listings, so it says how fast int8 is and nothing of its answers. `eager` is mmcat.engines.eager (channels-last,
float32) at batches of 4, 8, 16 and 32, of which the quickest in a first look is the peer; `default` is PyTorch as it
comes: default layout, batches of 32. All take turns; ratios are medians over pairs with a 95 % bootstrap interval.
`--small` is for seeing that it runs.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcat.cli.benchmarks.intervals import ratio
from mmcat.engines import graphs, quantize
from mmcat.engines.base import Batch, Engine, logits
from mmcat.engines.cpu import CpuEngine
from mmcat.engines.eager import EagerEngine
from mmcat.engines.int8 import Quantized, Sample
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing
from mmcat.weights import Weights
from tests.benchmarks.intervals import best, rounds

BATCHES, DEFAULT = (4, 8, 16, 32), 32
BERT: dict[str, Any] = {
    "model_type": "bert", "vocab_size": 42_000, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3_072, "max_position_embeddings": 512,
}  # fmt: skip
SMALL_BERT = BERT | {"vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
LOOKS = 2  # of each batch size, to find eager's best
CALIBRATED = 8  # random listings: the ranges that they give are as good as any


def main() -> None:
    parser = argparse.ArgumentParser(description="The CPU engine against eager PyTorch.")
    parser.add_argument("--listings", type=int, default=32, help="of each turn; the engine takes them as one batch")
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="a tiny model: only to see that it runs")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(4 if given.small else given.listings, given.tokens, 2 if given.small else given.pairs, given.small)
    if given.json:
        print(json.dumps(found, default=asdict))
        return
    for name, rate in found["listings_per_s"].items():
        print(f"{name:<22} {rate:>8.2f} listings/s")
    for precision, engine in found["engines"].items():
        for name in ("over_eager", "over_default"):
            print(f"{precision} {name.replace('_', ' ')}: {engine[name]}")
        print(
            f"{precision} ready in {engine['start_s']:.1f} s; largest difference of a logit {engine['difference']:.1e}"
        )


def measure(listings: int, tokens: int, pairs: int, small: bool) -> dict[str, Any]:
    """Rates, and of each precision: ratios, seconds to make or find its graphs, how far the logits are apart."""
    torch.manual_seed(0)
    bert, px = (SMALL_BERT, 64) if small else (BERT, 224)
    config = ModelConfig((57, 552, 3_190, 404), text_encoder=bert, text_pooling="cls", px=px)
    model = CategoryModel(config).eval().requires_grad_(False)
    preprocessing = Preprocessing(px=px, max_tokens=tokens)
    batch = drawn(config, listings, tokens, bert["vocab_size"])
    engines, start_s = _engines(model, preprocessing, drawn(config, CALIBRATED, tokens, bert["vocab_size"], seed=1))
    default = as_it_comes(CategoryModel(config).eval().requires_grad_(False), preprocessing, batch)
    channels_last = EagerEngine(model, preprocessing, "cpu", "fp32")
    eager = {f"eager, batch {size}": _chunks(channels_last, batch, size) for size in BATCHES}
    peer = best(rounds(eager, LOOKS))
    runs = {name: partial(logits, engine, batch) for name, engine in engines.items()}
    took = rounds({**runs, peer: eager[peer], "default": default}, pairs)
    expected = logits(channels_last, batch)
    return {
        "threads": torch.get_num_threads(),
        "listings_per_s": {name: listings / float(np.median(seconds)) for name, seconds in took.items()},
        "engines": {
            name: {
                "over_eager": ratio(took[peer], took[name]),
                "over_default": ratio(took["default"], took[name]),
                "start_s": start_s[name],
                "difference": max(
                    float(np.abs(ours - theirs).max()) for ours, theirs in zip(run(), expected, strict=True)
                ),
            }
            for name, run in runs.items()
        },
    }


def _engines(
    model: CategoryModel, preprocessing: Preprocessing, calibrated: Batch
) -> tuple[dict[str, CpuEngine], dict[str, float]]:
    """By precision, and the seconds until each was there: the first makes the graphs, the others find them."""
    engines, start_s = {}, {}
    quantized = None if quantize.missing() else _quantized(model, preprocessing, calibrated)
    there = {"fp32": True, "bf16": graphs.has_bf16(), "int8": quantized is not None}
    with tempfile.TemporaryDirectory(prefix="mmcat-benchmark-") as cache:
        for precision in (one for one, can in there.items() if can):
            started = time.perf_counter()
            engines[precision] = CpuEngine.load(
                Weights.of(model),
                preprocessing,
                torch.get_num_threads(),
                Path(cache) / "engine",
                precision,
                quantized if precision == "int8" else None,
            )
            start_s[precision] = time.perf_counter() - started
    return engines, start_s


def _quantized(model: CategoryModel, preprocessing: Preprocessing, batch: Batch) -> Quantized:
    assert batch.ids is not None
    assert batch.mask is not None
    assert batch.pixels is not None
    inputs = {
        "text": [{"ids_KT": ids[None], "mask_KT": mask[None]} for ids, mask in zip(batch.ids, batch.mask, strict=True)],
        "image": [{"pixels_KXXC": pixels[None]} for pixels in batch.pixels],
    }
    nothing = Sample("real", (), np.zeros(0, np.int64), np.zeros(0, np.float32))
    return Quantized(quantize.quantized_parts(model, preprocessing, inputs), nothing, "")


def drawn(config: ModelConfig, listings: int, tokens: int, vocabulary: int, seed: int = 0) -> Batch:
    dice, there = np.random.default_rng(seed), np.ones(listings, np.bool_)
    ids = dice.integers(5, vocabulary, (listings, tokens))
    pixels = dice.integers(0, 256, (listings, config.px, config.px, 3), np.uint8)
    return Batch.of(ids, np.ones_like(ids), pixels, there, there)


def _cut(batch: Batch, size: int) -> list[Batch]:
    assert batch.ids is not None
    assert batch.mask is not None
    assert batch.pixels is not None
    parts = [slice(start, start + size) for start in range(0, len(batch), size)]
    return [
        Batch.of(batch.ids[part], batch.mask[part], batch.pixels[part], batch.has_text[part], batch.has_image[part])
        for part in parts
    ]


def _chunks(engine: Engine, batch: Batch, size: int) -> Callable[[], object]:
    chunks = _cut(batch, size)
    return lambda: [logits(engine, chunk) for chunk in chunks]


def as_it_comes(model: CategoryModel, preprocessing: Preprocessing, batch: Batch) -> Callable[[], object]:
    """The model called as one would without thinking of layouts."""
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (preprocessing.mean, preprocessing.std))

    def run() -> object:
        found = []
        with torch.inference_mode():
            for chunk in _cut(batch, DEFAULT):
                assert chunk.ids is not None
                assert chunk.mask is not None
                assert chunk.pixels is not None
                pixels_BCXX = torch.from_numpy(chunk.pixels).permute(0, 3, 1, 2).contiguous()
                ids_BT, mask_BT = torch.from_numpy(chunk.ids), torch.from_numpy(chunk.mask)
                found.append(model(ids_BT, mask_BT, (pixels_BCXX.float() - mean) / std))
        return found

    return run


if __name__ == "__main__":
    main()
