"""Photo bytes to a 224 px square, per core, against Pillow's full decode and bilinear reduction.

    python -m tests.benchmarks.decode [--scaled] [--folder FOLDER] [--pairs 9] [--json]

Square JPEGs of 600 to 1,100 px, drawn, or the JPEGs of a folder (their pixels are not compared where they are not
square). Target: at least 2.2 of Pillow's rate, and no pixel more than 1 apart; with `--scaled` (photos.decode) 2.9.
"""

import argparse
import io
import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmcat.cli.benchmarks import parts
from mmcat.cli.benchmarks.intervals import median, ratio
from mmcat.photos import decode

PX, REPEATS = 224, 4


def pillow(body: bytes) -> npt.NDArray[np.uint8]:
    """The peer."""
    with Image.open(io.BytesIO(body)) as image:
        return np.asarray(image.convert("RGB").resize((PX, PX), Image.Resampling.BILINEAR))


def pillow_rate(bodies: list[bytes]) -> float:
    """Photos a second of CPU."""
    begun = time.thread_time()
    for body in bodies:
        pillow(body)
    return len(bodies) / (time.thread_time() - begun)


def square(body: bytes) -> bool:
    with Image.open(io.BytesIO(body)) as image:
        return image.width == image.height


def most_apart(body: bytes, scaled: bool) -> int:
    """Levels, of the pixel that differs most."""
    return int(np.abs(decode(body, PX, scaled=scaled).astype(int) - pillow(body)).max())


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode against Pillow.")
    parser.add_argument("--scaled", action="store_true", help="unpack JPEGs near the size that is wanted")
    parser.add_argument("--folder", type=Path, help="of JPEGs, in place of drawn ones")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    bodies = parts.photos() if given.folder is None else [file.read_bytes() for file in given.folder.glob("*.jpg")]
    apart = max((most_apart(body, given.scaled) for body in bodies if square(body)), default=0)
    rates: dict[str, list[float]] = {"mmcat": [], "pillow": []}
    for pair in range(given.pairs):
        for name in rates if pair % 2 else reversed(rates):
            measure = partial(parts.decode, scaled=given.scaled) if name == "mmcat" else pillow_rate
            rates[name].append(measure(bodies * REPEATS))
    share = ratio(rates["mmcat"], rates["pillow"])
    if given.json:
        print(
            json.dumps(
                {name: asdict(median(one)) for name, one in rates.items()}
                | {"ratio": asdict(share), "most_apart": apart}
            )
        )
        return
    for name, one in rates.items():
        print(f"{name:<8} {median(one).median:>6.0f} photos/s and core")
    print(f"ratio    {share}")
    print(f"pixels at most {apart} apart")


if __name__ == "__main__":
    main()
