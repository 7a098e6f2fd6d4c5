"""How often scaled decoding of photos (photos.decode) gives the same path as whole decoding.

    python -m tests.benchmarks.scaled_agreement --encoders FOLDER [--count 2400] [--held 1000] [--photo-px 640] [--json]

Simulated listings whose photos are larger than what the network sees. Three models learn on the same listings: with
whole decoding, with scaled decoding, and again with whole decoding from another seed, which says how far apart two
models are that differ in nothing. New listings are then answered by each model as it learned, and by the first two with
the other way of decoding than they learned with. Target: 99.5 % equal paths between the first two.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mmcat import bundle as bundles
from mmcat.categorizer import Categorizer
from mmcat.engines.choice import choose
from mmcat.listing import Listing
from training.readers.shop import shop_dataset
from training.recipe import Recipe
from training.run import Options
from training.shop.shop import ShopConfig
from training.train import train

SMALL = ("fusion.members=1", "fusion.width=256", "fusion.epochs=10")  # of fashion_cpu: minutes on one core
Paths = list[tuple[str, ...]]


class Kept:
    """Photos and titles are encoded once for all models: their encoders are the same, frozen."""

    def __init__(self) -> None:
        self._items: dict[bytes, bytes] = {}

    def get(self, _kind: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._items.get(key) for key in keys]

    def put(self, items: Mapping[bytes, bytes]) -> None:
        self._items.update(items)


def answers(bundle: Path, scaled: bool, listings: Sequence[Listing], kept: Kept) -> Paths:
    """The path of each listing, its photo decoded in this way whatever the bundle says."""
    loaded = bundles.load(bundle)
    loaded = replace(loaded, preprocessing=replace(loaded.preprocessing, scaled_decode=scaled))
    engine, _ = choose(loaded, engine="eager", device="cpu", precision="fp32")
    model = Categorizer(loaded, engine)
    model.keep_features(kept)
    return [tuple(node.id for node in result.path) for result in model.categorize(listings)]


def equal(one: Paths, other: Paths) -> float:
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Paths with scaled decoding against paths with whole decoding.")
    parser.add_argument("--encoders", type=Path, required=True, help="folder of a ResNet50 and a text encoder")
    parser.add_argument("--recipe", default="fashion_cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--count", type=int, default=2_400, help="listings to learn from")
    parser.add_argument("--held", type=int, default=1_000, help="listings to answer")
    parser.add_argument("--photo-px", type=int, default=640, help="longer side of the photos")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)

    shop = ShopConfig()
    dataset = shop_dataset(shop, given.count, given.photo_px)
    held = shop_dataset(shop.demo(), given.held, given.photo_px)
    listings = [Listing(row.id, row.title, row.photo() if row.photo is not None else None) for row in held.rows]
    kept, found = Kept(), {}
    with TemporaryDirectory() as folder:
        for name, scaled, seed in (("whole", False, 0), ("scaled", True, 0), ("whole, another seed", False, 1)):
            recipe = Recipe.load(given.recipe, (*SMALL, *given.changes, f"photo.scaled_decode={str(scaled).lower()}"))
            out = Path(folder, name)
            train(
                dataset, recipe, out, encoders=given.encoders, cache=Path(folder, "features"), seed=seed,
                options=Options(models=("cross",)),
            )  # fmt: skip
            found[name] = answers(out / "cross", scaled, listings, kept)
            if seed == 0:
                found[f"{name}, served the other way"] = answers(out / "cross", not scaled, listings, kept)
    truth: Paths = [row.path for row in held.rows]
    shown = {
        "equal": {
            "learned and served scaled, against whole": equal(found["scaled"], found["whole"]),
            "learned whole, served scaled": equal(found["whole"], found["whole, served the other way"]),
            "learned scaled, served whole": equal(found["scaled"], found["scaled, served the other way"]),
            "learned and served whole, another seed": equal(found["whole"], found["whole, another seed"]),
        },
        "right": {name: equal(paths, truth) for name, paths in found.items()},
    }
    if given.json:
        print(json.dumps(shown))
        return
    for what, shares in shown.items():
        for name, share in shares.items():
            print(f"{what:<6} {share:>7.2%}  {name}")


if __name__ == "__main__":
    main()
