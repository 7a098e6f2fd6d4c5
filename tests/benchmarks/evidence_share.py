"""Whether the evidence names the modality that decides: fresh listings of the simulated shop that one modality decides.

    mmcat train shop --out bundles
    python -m tests.benchmarks.evidence_share bundles/cross [--listings 1500] [--json]

Target: the larger Shapley share (mmcat/evidence.py) is that of the deciding modality in at least 95 % of them.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from mmcat.categorizer import Categorizer
from mmcat.listing import Listing
from training.shop.shop import Kind, PhotoState, Shop, ShopConfig

FRESH_FROM = 10_000_000  # index of the first listing: none that was trained on
BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description="The evidence against who decides.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--listings", type=int, default=1_500, help="of all kinds; those that both decide are left out")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    right, count = shares(Categorizer.load(given.bundle, device="cpu", evidence=True), given.listings)
    if given.json:
        print(json.dumps({kind: {"right": right[kind], "of": count[kind]} for kind in count}))
        return
    for kind in sorted(count):
        print(f"{kind} decides: the larger share is its own in {right[kind]} of {count[kind]}")
    print(f"together {right.total() / count.total():.3f}")


def shares(categorizer: Categorizer, listings: int) -> tuple[Counter[str], Counter[str]]:
    """Right ones and all, by who decides."""
    shop = Shop(ShopConfig())
    drawn = [
        (one.kind, Listing(one.product_id, title=one.title, image=shop.photo_bytes(one)))
        for one in shop.listings(listings, FRESH_FROM)
        if one.kind is not Kind.BOTH and one.photo_state is PhotoState.FINE
    ]
    right: Counter[str] = Counter()
    for start in range(0, len(drawn), BATCH):
        part = drawn[start : start + BATCH]
        for (kind, _), result in zip(part, categorizer.categorize([one for _, one in part]), strict=True):
            assert result.evidence is not None
            right[kind] += (result.evidence.text > result.evidence.image) == (kind is Kind.TEXT)
    return right, Counter(kind for kind, _ in drawn)


if __name__ == "__main__":
    main()
