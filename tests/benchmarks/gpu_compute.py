"""How many listings a second a GPU computes when their pixels and tokens lie on it already, and how many it could.

    python -m tests.benchmarks.gpu_compute [--device cuda] [--engines eager,compiled] [--batches 128,512] [--pairs 9]
        [--small] [--json]

The model has the research code's shape: ResNet50 at 224 px, BERT-base, 30 tokens, 6 blocks, heads 57 / 552 / 3,190 /
404; weights and inputs are random; encoders in bf16, fusion in float32. `compiled` is mmcat.engines.compiled
(torch.compile, CUDA graphs), `tensorrt` the same through torch_tensorrt, which joins where it is installed, `eager` the
reference; all take turns, and pixels are normalised on the way. Target on an H100: compiled at least 10,000 listings/s.

`roofline` (Williams et al. 2009) is what the device would do if each convolution and matrix of weights took no longer
than its arithmetic or its memory traffic, whichever is longer, at the rates of a large matrix product and a large copy
here, and all else were free. It needs no network; `--device cpu --small` shows that it runs.
"""

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmcat.cli.benchmarks.intervals import median
from mmcat.engines.compiled import CompiledEngine
from mmcat.engines.eager import EagerEngine
from mmcat.errors import ModelError
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing
from tests.benchmarks.engine import BERT, SMALL_BERT
from tests.benchmarks.intervals import rounds

HEADS, TOKENS = (57, 552, 3_190, 404), 30
PX, SMALL_PX = 224, 32
SIDE, COPIED = 8_192, 2**30  # of the large matrix product; bytes of the large copy
SMALL_SIDE, SMALL_COPIED = 512, 2**24
PEAKS = 5  # tries of either; the quickest counts


def _tensorrt(model: CategoryModel, preprocessing: Preprocessing, device: str, precision: str) -> EagerEngine:
    importlib.import_module("torch_tensorrt")  # makes itself known to torch.compile
    return CompiledEngine(model, preprocessing, device, precision, backend="tensorrt")


ENGINES: dict[str, Callable[[CategoryModel, Preprocessing, str, str], EagerEngine]] = {
    "eager": EagerEngine,
    "compiled": CompiledEngine,
    **({"tensorrt": _tensorrt} if importlib.util.find_spec("torch_tensorrt") else {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="The model alone on a GPU, beside the roofline.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engines", default=",".join(ENGINES), help="several by commas")
    parser.add_argument("--batches", default="128,512", help="listings at once, several by commas")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="a tiny model: only to see that it runs")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    batches = [8] if given.small else [int(batch) for batch in given.batches.split(",")]
    found = measure(given.device, given.engines.split(","), batches, given.pairs, given.small)
    if given.json:
        print(json.dumps(found))
        return
    print(f"{found['device']}, {found['gflop']:.1f} GFLOP a listing")
    for batch, told in found["batches"].items():
        for name, one in told["listings_per_s"].items():
            print(
                f"batch {batch:>4}  {name:<9} {one['median']:>9,.0f} listings/s  {told['share'][name]:.0%} of roofline"
            )
        print(f"batch {batch:>4}  {'roofline':<9} {told['roofline']:>9,.0f} listings/s")


def measure(device: str, names: Sequence[str], batches: Sequence[int], pairs: int, small: bool) -> dict[str, Any]:
    """By batch: rates of each engine, that of the roofline, and their shares of it."""
    torch.manual_seed(0)
    px = SMALL_PX if small else PX
    config = ModelConfig(HEADS, text_encoder=SMALL_BERT if small else BERT, text_pooling="cls", px=px)
    preprocessing = Preprocessing(px=px, max_tokens=TOKENS)
    engines = {}
    for name in names:
        try:
            engines[name] = ENGINES[name](CategoryModel(config).eval(), preprocessing, device, "bf16")
        except ModelError as error:  # the others can still be measured
            print(f"{name} is left out: {error}", file=sys.stderr)
    reference = EagerEngine(CategoryModel(config).eval(), preprocessing, device, "bf16")  # its layers can be watched
    side, copied = (SMALL_SIDE, SMALL_COPIED) if small else (SIDE, COPIED)
    peaks = {dtype: flop_rate(device, dtype, side) for dtype in (torch.bfloat16, torch.float32)}
    traffic = byte_rate(device, copied)
    found: dict[str, Any] = {}
    for batch in batches:
        inputs = _inputs(config, batch, device)
        with torch.inference_mode():
            took = rounds({name: partial(_run, engine, *inputs) for name, engine in engines.items()}, pairs)
            work = layers(reference, partial(_run, reference, *inputs))
        roofline = batch / sum(max(flop / peaks[dtype], size / traffic) for dtype, flop, size in work)
        rates = {name: median([batch / one for one in seconds]) for name, seconds in took.items()}
        found[str(batch)] = {
            "listings_per_s": {name: asdict(rate) for name, rate in rates.items()},
            "share": {name: rate.median / roofline for name, rate in rates.items()},
            "roofline": roofline,
        }
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    gflop = sum(flop for _, flop, _ in work) / batches[-1] / 1e9
    return {"device": name, "gflop": gflop, "batches": found}


def _inputs(config: ModelConfig, batch: int, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dice = np.random.default_rng(0)
    ids_BT = torch.from_numpy(dice.integers(5, 500, (batch, TOKENS)))
    pixels_BXXC = torch.from_numpy(dice.integers(0, 256, (batch, config.px, config.px, 3), np.uint8))
    there_B = torch.ones(batch, dtype=torch.bool)
    return ids_BT.to(device), torch.ones_like(ids_BT).to(device), pixels_BXXC.to(device), there_B.to(device)


def _run(engine: EagerEngine, ids_BT: Tensor, mask_BT: Tensor, pixels_BXXC: Tensor, there_B: Tensor) -> None:
    """One batch; blocks until the device is done."""
    engine.answer(engine.read(ids_BT, mask_BT), engine.see(pixels_BXXC), there_B, there_B, None)
    _wait(ids_BT.device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ── Roofline ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def layers(engine: EagerEngine, run: Callable[[], None]) -> list[tuple[torch.dtype, float, float]]:
    """Of each convolution and matrix that `run` works with: what it computes in, its FLOP, and the bytes it must move.

    Attention's products of activations are left out: of 30 tokens they are less than a hundredth.
    """
    found: list[tuple[torch.dtype, float, float]] = []

    def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        numbers = given[0].numel() + output.numel() + weight.numel()
        found.append((weight.dtype, 2.0 * output.numel() * weight[0].numel(), numbers * weight.element_size()))

    hooks = [
        module.register_forward_hook(note)
        for module in engine.model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return found


def flop_rate(device: str, dtype: torch.dtype, side: int) -> float:
    """FLOP a second of a large matrix product."""
    one, other = torch.randn(2, side, side, device=device, dtype=dtype)
    return 2 * side**3 / _quickest(lambda: one @ other, torch.device(device))


def byte_rate(device: str, size: int) -> float:
    """Bytes read and written a second by a large copy."""
    one = torch.zeros(size, dtype=torch.uint8, device=device)
    other = torch.empty_like(one)
    return 2 * size / _quickest(lambda: other.copy_(one), torch.device(device))


def _quickest(run: Callable[[], object], device: torch.device) -> float:
    def whole() -> None:
        run()
        _wait(device)

    return min(rounds({"": whole}, PEAKS)[""])


if __name__ == "__main__":
    main()
