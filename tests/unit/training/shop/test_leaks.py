"""Nothing but content gives the answer away: boosted trees on everything else hardly beat the largest path."""

import io
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier

from training.shop.shop import Shop, ShopConfig, ShopListing
from training.shop.stream import listing_event

TRAIN, TEST, PX = 4_000, 2_000, 80
MOST = 1.2  # times the share of the largest path


def _digits(token: str) -> list[float]:
    return [int(digit, 16) for digit in token.rjust(12, "0")[-12:]]


def _features(shop: Shop, listing: ShopListing, order: int) -> dict[str, list[float]]:
    """All that a model could see without reading the title or knowing what is drawn."""
    photo = shop.photo_bytes(listing, PX)
    width, height, histogram = -1, -1, np.full(64, -1.0)
    if photo is not None and listing.photo_state == "fine":
        with Image.open(io.BytesIO(photo)) as image:
            width, height = image.size
            bins = np.asarray(image.convert("RGB")).reshape(-1, 3) // 64 @ np.array([16, 4, 1])
            histogram = np.sort(np.bincount(bins, minlength=64) / len(bins))  # shares of colours, whichever they are
            histogram = np.concatenate([histogram[-16:], np.bincount(bins, minlength=64) / len(bins)])
    else:
        histogram = np.full(80, -1.0)
    title, event = listing.title, listing_event(listing, "http://127.0.0.1/p")
    hangul = sum("가" <= character <= "힣" for character in title)
    return {
        "histogram": histogram.tolist(),
        "file": [len(photo or b""), width, height, len(photo or b"") / max(width * height, 1)],
        "title": [len(title), len(title.split()), len(title.encode()), hangul, len(listing.brand)],
        "id": _digits(listing.product_id[1:]),
        "address": [*_digits(listing.photo_token), len(listing.photo_token)],
        "order": [order, order % 10, float(listing.registered_at[17:23]), len(event.value or b"")],
    }


@pytest.fixture(scope="module")
def measured() -> tuple[dict[str, npt.NDArray[np.float64]], npt.NDArray[np.int64]]:
    """Features by family and the path's row."""
    shop = Shop(ShopConfig(label_noise=0.0))
    listings = list(shop.listings(TRAIN + TEST))
    rows = [_features(shop, listing, order) for order, listing in enumerate(listings)]
    paths = np.array([shop.taxonomy.index(listing.path) for listing in listings])
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}, paths


def _score(features: npt.NDArray[np.float64], paths: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Accuracy of boosted trees on later listings, and the share of the largest path among them."""
    trees = HistGradientBoostingClassifier(
        max_iter=12, max_leaf_nodes=8, learning_rate=0.1, min_samples_leaf=40, random_state=0
    )
    trees.fit(features[:TRAIN], paths[:TRAIN])
    accuracy = float((trees.predict(features[TRAIN:]) == paths[TRAIN:]).mean())
    return accuracy, Counter(paths[TRAIN:].tolist()).most_common(1)[0][1] / TEST


Measured = tuple[dict[str, npt.NDArray[np.float64]], npt.NDArray[np.int64]]


@pytest.mark.parametrize("family", ["histogram", "file", "title", "id", "address", "order"])
def test_no_family_of_side_facts_tells_the_path(measured: Measured, family: str) -> None:
    features, paths = measured
    accuracy, majority = _score(features[family], paths)
    print(f"{family}: {accuracy:.3f}, largest path {majority:.3f}")
    assert accuracy <= MOST * majority


def test_all_side_facts_together_do_not_tell_the_path(measured: Measured) -> None:
    features, paths = measured
    accuracy, majority = _score(np.concatenate(list(features.values()), axis=1), paths)
    print(f"together: {accuracy:.3f}, largest path {majority:.3f}")
    assert accuracy <= MOST * majority


def test_the_trees_would_find_a_leak(measured: Measured) -> None:
    """The instrument works: a trace of the answer among the side facts is found."""
    features, paths = measured
    leaky = np.concatenate([features["title"], (paths % 5)[:, None]], axis=1)
    accuracy, majority = _score(leaky, paths)
    assert accuracy > MOST * majority
