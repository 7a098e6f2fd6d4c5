"""The simulated shop as a training Dataset.

After training.shop; before splits.py. Photos are rendered small, at twice what the network sees, when they are first
asked for, and then kept: training asks for each several times, and 8,000 take 40 MB.
"""

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache

import yaml
from pydantic import TypeAdapter, ValidationError

from training.data import Dataset, Row
from training.errors import RecipeError
from training.rows import Draft
from training.shop.shop import PhotoState, Shop, ShopConfig

PHOTO_PX = 96  # for a network of 48 px; rendering and decoding take 1.5 ms
_KEPT = 50_000  # photos, 250 MB: all of the usual shop, and a bound for larger ones
_NOTE = "{count} simulated listings (training.shop, seed {seed}, split {split}); free of any rights"


def shop_config(changes: Sequence[str]) -> ShopConfig:
    """The shop's training listings, with these of its parameters ("things=4") changed.

    Raises:
        RecipeError: no such parameter, or no such value.
    """
    known = [field.name for field in fields(ShopConfig)]
    given = {}
    for name, _, value in (change.partition("=") for change in changes):
        if name not in known:
            raise RecipeError(f"the shop has no {name}: it has {', '.join(known)}")
        given[name] = yaml.safe_load(value)
    try:
        return TypeAdapter(ShopConfig).validate_python(given)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise RecipeError(f"the shop cannot be so: {where + ': ' if where else ''}{problem['msg']}") from error


def shop_dataset(config: ShopConfig, count: int, photo_px: int = PHOTO_PX, start: int = 0) -> Dataset:
    """Listings start … start + count - 1 of this shop, with the path that their seller recorded.

    Photos that the host would not have are absent here; broken ones are given as they are.
    """
    shop = Shop(config)
    draft = Draft(None, shop.taxonomy)
    for listing in shop.listings(count, start):
        row = Row(listing.product_id, listing.title, listing.path, group="", brand=listing.brand)
        has_photo = listing.photo is not None and listing.photo_state is not PhotoState.DEAD
        draft.add(row, photo=str(listing.index) if has_photo else None, line=listing.index)

    @lru_cache(_KEPT)
    def photo(index: str) -> bytes:
        return shop.photo_bytes(shop.listing(int(index)), photo_px) or b""

    rows, taxonomy, _ = draft.finish("", photo)
    note = _NOTE.format(count=count, seed=config.seed, split=config.split)
    return Dataset(f"shop-{config.split}", taxonomy or shop.taxonomy, rows, note)
