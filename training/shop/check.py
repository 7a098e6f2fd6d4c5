"""Prints what the shop promises, measured: `python -m training.shop.check [BUNDLES]`.

Always: shares of kinds and paths, and what boosted trees make of everything but content. With a folder of bundles (as
`mmcat train shop` writes it): path accuracy on demo listings by kind and model, photos at full size.
After leaks.py; nothing follows it. The figures of docs/decisions/0002-simulated-shop.md come from here.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path

from training.shop.leaks import score, side_facts, together
from training.shop.photos import FULL_PX
from training.shop.shop import Kind, Shop, ShopConfig, ShopListing

_MODELS = ("text", "image", "concat", "cross")
_BATCH = 50


def main() -> None:
    """Reads the command line and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m training.shop.check", description="What the simulated shop promises"
    )
    parser.add_argument("bundles", type=Path, nargs="?", help="folder with cross/, concat/, text/ and image/")
    parser.add_argument("--listings", type=int, default=6_000, help="for the leaks; a third of them is held out")
    parser.add_argument("--demo-listings", type=int, default=1_000, help="for the accuracy of bundles")
    wish = parser.parse_args()
    _print_shares(wish.listings)
    _print_leaks(wish.listings)
    if wish.bundles is not None:
        _print_accuracy(wish.bundles, wish.demo_listings)


def accuracy_by_kind(bundle: Path, listings: list[ShopListing], shop: Shop) -> dict[str, float]:
    """Path accuracy by kind and over all; blocks for about 30 ms a listing (rendering, decoding, the model)."""
    from mmcat.categorizer import Categorizer
    from mmcat.listing import Listing

    categorizer = Categorizer.load(bundle)
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(listings), _BATCH):
        part = listings[start : start + _BATCH]
        asked = [Listing(each.product_id, each.title, shop.photo_bytes(each, FULL_PX)) for each in part]
        for each, result in zip(part, categorizer.categorize(asked), strict=True):
            hit = tuple(node.id for node in result.path) == each.content_path
            right[each.kind].append(hit)
            right["all"].append(hit)
    return {name: sum(hits) / len(hits) for name, hits in sorted(right.items())}


def _print_shares(count: int) -> None:
    shop = Shop(ShopConfig(label_noise=0.0))
    kinds: Counter[Kind] = Counter()
    paths: Counter[tuple[str, ...]] = Counter()
    for listing in shop.listings(count):
        kinds[listing.kind] += 1
        paths[listing.path] += 1
    shares = ", ".join(f"{kind} {kinds[kind] / count:.2f}" for kind in Kind)
    print(f"{len(shop.taxonomy)} paths; kinds: {shares}")
    print(f"largest path {max(paths.values()) / count:.3f}, smallest {min(paths.values()) / count:.4f}")


def _print_leaks(count: int) -> None:
    facts, paths = side_facts(ShopConfig(label_noise=0.0), count)
    train = count * 2 // 3
    for name, family in {**facts, "together": together(facts)}.items():
        accuracy, largest = score(family, paths, train)
        print(f"boosted trees on {name:15} {accuracy:.3f} = {accuracy / largest:.2f} x largest path {largest:.3f}")


def _print_accuracy(bundles: Path, count: int) -> None:
    shop = Shop(ShopConfig().demo())
    listings = list(shop.listings(count))
    for name in _MODELS:
        found = accuracy_by_kind(bundles / name, listings, shop)
        print(f"{name:8}" + "  ".join(f"{kind} {accuracy:.3f}" for kind, accuracy in found.items()))


if __name__ == "__main__":
    main()
