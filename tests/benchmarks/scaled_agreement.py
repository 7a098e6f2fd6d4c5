"""How often scaled decoding of photos (photos.decode) gives the same path as whole decoding.

    python -m tests.benchmarks.scaled_agreement BUNDLE DATA [--title-column title] [--scaled-bundle BUNDLE]
        [--first 0] [--count 300] [--photo-px 640] [--json]

BUNDLE learned with whole decoding; it answers listings of the folder DATA twice, their photos decoded each way. With
`--scaled-bundle`, a model that learned the same with `photo.scaled_decode=true` answers each way, too. Photos are
enlarged to `--photo-px`, with grain as a camera leaves it: those that are smaller than what the network sees are never
scaled. Equal paths wanted: 99.5 %.
"""

import argparse
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmcat import bundle as bundles
from mmcat.categorizer import Categorizer
from mmcat.engines.choice import choose
from mmcat.listing import Listing
from training.readers.read import read_listings

GRAIN, QUALITY = 4, 85  # levels; as in mmcat.cli.benchmarks.parts
Paths = list[tuple[str, ...]]


def enlarged(photo: bytes, px: int, seed: int) -> bytes:
    """A JPEG of this photo whose longer side is `px`."""
    with Image.open(io.BytesIO(photo)) as image:
        scale = px / max(image.size)
        size = round(image.width * scale), round(image.height * scale)
        large = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(seed).normal(0, GRAIN, (*large.shape[:2], 1))
    body = io.BytesIO()
    Image.fromarray((large + grain).clip(0, 255).astype(np.uint8)).save(body, "JPEG", quality=QUALITY)
    return body.getvalue()


def answers(bundle: Path, listings: list[Listing], scaled: bool) -> Paths:
    """The path of each listing, its photo decoded in this way whatever the bundle says."""
    loaded = bundles.load(bundle)
    loaded = replace(loaded, preprocessing=replace(loaded.preprocessing, scaled_decode=scaled))
    engine, _ = choose(loaded, engine="eager", device="cpu", precision="fp32")
    return [tuple(node.id for node in result.path) for result in Categorizer(loaded, engine).categorize(listings)]


def equal(one: Paths, other: Paths) -> float:
    """Share of listings with the same path."""
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Paths with scaled decoding against paths with whole decoding.")
    parser.add_argument("bundle", type=Path, help="learned with whole decoding")
    parser.add_argument("data", type=Path, help="folder of listings")
    parser.add_argument("--title-column", default="title")
    parser.add_argument("--scaled-bundle", type=Path, help="learned with scaled decoding")
    parser.add_argument("--first", type=int, default=0, help="the first listing that is asked")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--photo-px", type=int, default=640, help="longer side of the photos")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)

    rows = read_listings(given.data, given.title_column).rows
    listings = [
        Listing(row.id, row.title, enlarged(row.photo(), given.photo_px, number))
        for number in range(given.first, min(given.first + given.count, len(rows)))
        if (row := rows[number]).photo is not None
    ]
    whole = answers(given.bundle, listings, scaled=False)
    found = {"learned whole, served scaled": equal(whole, answers(given.bundle, listings, scaled=True))}
    if given.scaled_bundle is not None:
        scaled = answers(given.scaled_bundle, listings, scaled=True)
        found["learned and served scaled, against whole"] = equal(scaled, whole)
        found["learned scaled, served whole"] = equal(scaled, answers(given.scaled_bundle, listings, scaled=False))
    if given.json:
        print(json.dumps({"listings": len(listings), "equal": found}))
        return
    for name, share in found.items():
        print(f"{share:>7.2%} of {len(listings)} paths equal: {name}")


if __name__ == "__main__":
    main()
