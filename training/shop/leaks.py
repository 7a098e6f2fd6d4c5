"""What could give the answer away besides content, and how much it does.

Boosted trees see everything about a listing but its words and the outline in its photo: colours, file, sizes, id,
address, time, order. The shop is honest where they hardly beat the answer "the largest path".

After shop.py and stream.py; used by check.py and the tests. Needs the extra `train` (scikit-learn).
"""

import io
from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.shop.shop import PhotoState, Shop, ShopConfig, ShopListing
from training.shop.stream import listing_event

Facts = Mapping[str, npt.NDArray[np.float64]]  # by family, [listings, facts]
_PX = 80  # enough for colours and areas, and quick
_COLOURS = 64  # four shades a channel
_LARGEST = 16


def side_facts(config: ShopConfig, count: int) -> tuple[Facts, npt.NDArray[np.int64]]:
    """Facts by family and the path's row for the first `count` listings; blocks for 2 ms each."""
    shop = Shop(config)
    rows, paths = [], []
    for order, listing in enumerate(shop.listings(count)):
        rows.append(_facts(shop, listing, order))
        paths.append(shop.taxonomy.index(listing.path))
    facts = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
    return facts, np.array(paths, np.int64)


def score(facts: npt.NDArray[np.float64], paths: npt.NDArray[np.int64], train: int) -> tuple[float, float]:
    """Accuracy of boosted trees on the listings from `train` on, and the share of the largest path among them."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = HistGradientBoostingClassifier(
        max_iter=12, max_leaf_nodes=8, learning_rate=0.1, min_samples_leaf=40, early_stopping=False, random_state=0
    )
    trees.fit(facts[:train], paths[:train])
    held = paths[train:]
    return float((trees.predict(facts[train:]) == held).mean()), Counter(held.tolist()).most_common(1)[0][1] / len(held)


def together(facts: Facts) -> npt.NDArray[np.float64]:
    """All families side by side."""
    return np.concatenate(list(facts.values()), axis=1)


def _facts(shop: Shop, listing: ShopListing, order: int) -> dict[str, list[float]]:
    photo = shop.photo_bytes(listing, _PX) if listing.photo_state is PhotoState.FINE else None
    width, height, colours = -1, -1, [-1.0] * (_COLOURS + _LARGEST)
    if photo is not None:
        with Image.open(io.BytesIO(photo)) as image:
            width, height = image.size
            bins = np.asarray(image.convert("RGB")).reshape(-1, 3) // 64 @ np.array([16, 4, 1])
        shares = np.bincount(bins, minlength=_COLOURS) / len(bins)
        colours = [*shares.tolist(), *np.sort(shares)[-_LARGEST:].tolist()]  # by colour, and by size of the share
    title, event = listing.title, listing_event(listing, "http://127.0.0.1/p")
    hangul = sum("가" <= character <= "힣" for character in title)
    length = len(photo or b"")
    return {
        "colours": colours,
        "file": [length, width, height, length / max(width * height, 1)],
        "title length": [len(title), len(title.split()), len(title.encode()), hangul, len(listing.brand)],
        "id": _digits(listing.product_id[1:]),
        "address": [*_digits(listing.photo_token), len(listing.photo_token)],
        "time and order": [order, order % 10, float(listing.registered_at[17:23]), len(event.value or b"")],
    }


def _digits(token: str) -> list[float]:
    return [float(int(digit, 16)) for digit in token.rjust(12, "0")]
