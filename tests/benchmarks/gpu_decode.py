"""Would JPEGs better be unpacked on the GPU? nvJPEG (torchvision) and a resize there, against the CPU's cores.

    python -m tests.benchmarks.gpu_decode [--device cuda] [--side 224] [--batch 128] [--pairs 9] [--json]

`gpu` is `torchvision.io.decode_jpeg` of a batch on the device and an antialiased resize to 224 px beside it, from bytes
in memory to pixels on the device; `cpu` is mmcat.photos.decode on a thread a core, to pixels in memory. Photos are
square, drawn, `--side` px. What must be weighed: photos/s of each, the CPU that a photo still takes, and how far apart
the pixels are, which a model must see as it saw them in training. nvJPEG's time is taken from the model's on that
device. `--device cpu` shows that it runs, with the CPU's decoder in nvJPEG's place.
"""

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_jpeg

from mmcat.cli.benchmarks import parts
from mmcat.cli.benchmarks.intervals import ratio
from mmcat.photos import decode
from tests.benchmarks.intervals import rounds, show

PX = 224


def on_device(bodies: Sequence[bytes], device: str) -> Tensor:
    """uint8 [N, 3, PX, PX] on the device; square photos alone, whose one size needs no padding."""
    raw = [torch.frombuffer(bytearray(body), dtype=torch.uint8) for body in bodies]
    whole = decode_jpeg(raw, mode=ImageReadMode.RGB, device=device)
    small = [
        interpolate(one[None].float(), (PX, PX), mode="bilinear", antialias=True, align_corners=False) for one in whole
    ]
    pixels = torch.cat(small).round_().clamp_(0, 255).to(torch.uint8)
    if pixels.is_cuda:
        torch.cuda.synchronize(pixels.device)
    return pixels


def main() -> None:
    parser = argparse.ArgumentParser(description="JPEGs on the GPU against the CPU's cores.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side", type=int, default=PX, help="of the photos, px")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    (body,) = parts.photos((given.side,))
    bodies = [parts.numbered(body, number) for number in range(given.batch)]
    cpu_s: dict[str, list[float]] = {"gpu": [], "cpu": []}
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def gpu() -> None:
            begun = time.process_time()
            on_device(bodies, given.device)
            cpu_s["gpu"].append(time.process_time() - begun)

        def cpu() -> None:
            begun = time.process_time()
            list(pool.map(lambda one: decode(one, PX), bodies))
            cpu_s["cpu"].append(time.process_time() - begun)

        took = rounds({"gpu": gpu, "cpu": cpu}, given.pairs)
    ours = torch.from_numpy(decode(body, PX)).permute(2, 0, 1)
    apart = np.abs(on_device([body], given.device)[0].cpu().numpy().astype(int) - ours.numpy().astype(int))
    figures = {f"{name} photos/s": [given.batch / one for one in runs] for name, runs in took.items()}
    figures |= {f"{name} CPU ms a photo": [one / given.batch * 1e3 for one in runs] for name, runs in cpu_s.items()}
    figures |= {"pixels apart, most": [float(apart.max())], "pixels apart, mean": [float(apart.mean())]}
    show(figures, ratio(figures["gpu photos/s"], figures["cpu photos/s"]), as_json=given.json)


if __name__ == "__main__":
    main()
