"""What the demo shows: listings of the simulated shop, or the held part of real listings, with their truth and photos.

A source knows its items and photos, how to train on the rest, and where its trained bundles are kept. Before the demo's
other parts; knows nothing of Kafka.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcat.cli.bundles import demo_folder
from mmcat.cli.demo_stream import Item
from mmcat.cli.demo_summary import baselines

if TYPE_CHECKING:
    from training.progress import Progress

__all__ = ["Source", "shop_source"]

PHOTO_PX = 320
"""About 30 kB a photo, 160 a second on a core; at 640 px the host would draw 29 a second and be what is measured."""
KEPT_PHOTOS = 2048


@dataclass(frozen=True)
class Source:
    """Listings to send.

    Args:
        name: for a person.
        items: those that stay, and a last one that is deleted again.
        photo: bytes by name, None where the host has none.
        bundles: folder of the trained bundles; `train` makes them where they are not there.
        train: writes the bundles into a folder; blocks for minutes.
        compare: takes a device, gives figures of other models on the same items; blocks.
    """

    name: str
    items: list[Item]
    photo: Callable[[str], bytes | None]
    bundles: Path
    train: "Callable[[Path, Progress], None]"
    compare: Callable[[str], Mapping[str, Any]]

    @property
    def trained(self) -> bool:
        """Whether there is nothing left to train."""
        return (self.bundles / "cross" / "bundle.json").is_file()


def shop_source(listings: int, recipe: str, bundles: Path | None) -> Source:
    """Listings of the simulated shop that no training has seen.

    Args:
        bundles: trained before, elsewhere; None: by the recipe, once.
    """
    from training.recipe import Recipe
    from training.shop.photo_host import shop_photos
    from training.shop.shop import Shop, ShopConfig

    config = ShopConfig()
    shop = Shop(config.demo())
    items = [
        Item(each.product_id, each.title, f"{each.photo_token}.jpg" if each.photo_token else None, each.content_path)
        for each in shop.listings(listings + 1)
    ]
    photo = lru_cache(KEPT_PHOTOS)(shop_photos(shop, PHOTO_PX))
    if bundles is None:
        facts = {"shop": str(config), "recipe": Recipe.load(recipe).model_dump(mode="json")}
        bundles = demo_folder("shop", facts)

    def train(out: Path, progress: "Progress") -> None:
        from training.train import train_shop

        train_shop(config, Recipe.load(recipe), out, progress)

    compare = partial(_compare_bundles, bundles, items[:-1], photo)
    return Source("the simulated shop", items, photo, bundles, train, compare)


def _compare_bundles(
    bundles: Path, items: list[Item], photo: Callable[[str], bytes | None], device: str
) -> dict[str, Any]:
    return {"baseline_accuracy": baselines(bundles, items, photo, device)}
