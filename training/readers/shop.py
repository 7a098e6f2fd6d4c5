"""The simulated shop as a training Dataset.

After training.shop; before splits.py. Photos are rendered small, at twice what the network sees, when they are first
asked for, and then kept: training asks for each several times, and 8,000 take 40 MB.
"""

from collections.abc import Callable

from training.data import Dataset, Row
from training.shop.shop import PhotoState, Shop, ShopConfig, ShopListing

PHOTO_PX = 96  # for a network of 48 px; rendering and decoding take 1.5 ms
_NOTE = "{count} simulated listings (training.shop, seed {seed}, split {split}); free of any rights"


def shop_dataset(config: ShopConfig, count: int, photo_px: int = PHOTO_PX, start: int = 0) -> Dataset:
    """Listings start … start + count - 1 of this shop, with the path that their seller recorded.

    Photos that the host would not have are absent here; broken ones are given as they are.
    """
    shop = Shop(config)
    rows = [
        Row(listing.product_id, listing.title, listing.path, group="", photo=_photo_of(shop, listing, photo_px))
        for listing in shop.listings(count, start)
    ]
    note = _NOTE.format(count=count, seed=config.seed, split=config.split)
    return Dataset(f"shop-{config.split}", shop.taxonomy, rows, note)


def _photo_of(shop: Shop, listing: ShopListing, px: int) -> Callable[[], bytes] | None:
    if listing.photo is None or listing.photo_state is PhotoState.DEAD:
        return None
    kept: list[bytes] = []

    def photo() -> bytes:
        if not kept:
            kept.append(shop.photo_bytes(listing, px) or b"")
        return kept[0]

    return photo
