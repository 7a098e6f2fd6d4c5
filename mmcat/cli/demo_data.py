"""What the demo shows: listings of the simulated shop, or the held part of real listings, with their truth and photos.

A source knows where its trained bundles are kept and how to make them; once they are there it says what is to be sent.
Before the demo's other parts; knows nothing of Kafka.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcat.cli.bundles import FEATURES, demo_folder, home
from mmcat.cli.demo_stream import Item
from mmcat.cli.demo_summary import BASELINES, baselines

if TYPE_CHECKING:
    from training.data import Dataset
    from training.progress import Progress
    from training.report import Report

__all__ = ["Shown", "Source", "folder_source", "shop_source"]

PHOTO_PX = 320
"""About 30 kB a photo, 160 a second on a core; at 640 px the host would draw 29 a second and be what is measured."""
KEPT_PHOTOS = 2048

Photo = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Shown:
    """What is sent.

    Args:
        items: those that stay, and a last one that is deleted again.
        photo: bytes by name, None where the host has none.
        compare: takes a device, gives figures of other models on the items that stay; blocks.
    """

    items: list[Item]
    photo: Photo
    compare: Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Source:
    """Where listings come from.

    Args:
        name: for a person.
        bundles: folder of the trained bundles.
        train: writes the bundles into a folder; blocks for minutes.
        open: what is to be sent; called when the bundles are there.
    """

    name: str
    bundles: Path
    train: "Callable[[Path, Progress], object]"
    open: Callable[[], Shown]

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
    if bundles is None:
        bundles = demo_folder("shop", {"shop": str(config), "recipe": Recipe.load(recipe).model_dump(mode="json")})
    folder = bundles

    def train(out: Path, progress: "Progress") -> None:
        from training.train import train_shop

        cache = home() / FEATURES
        train_shop(out, config=config, seed=config.seed, recipe=recipe, cache=cache, progress=progress)

    def show() -> Shown:
        shop = Shop(config.demo())
        items = [
            Item(
                each.product_id, each.title, f"{each.photo_token}.jpg" if each.photo_token else None, each.content_path
            )
            for each in shop.listings(listings + 1)
        ]
        photo = lru_cache(KEPT_PHOTOS)(shop_photos(shop, PHOTO_PX))
        compare = partial(baselines, folder, items[:-1], photo)
        return Shown(items, photo, lambda device: {"baseline_accuracy": compare(device)})

    return Source("the simulated shop", folder, train, show)


def folder_source(
    data: Path, title_column: str, encoders: str | None, recipe: str, listings: int, bundles: Path | None
) -> Source:
    """Real listings: trains on one part of them, shows the held part (`listings` of it; 0: all)."""
    from training.readers.folder import read_folder
    from training.recipe import Recipe

    dataset = read_folder(data, title_column)
    if bundles is None:
        facts = {
            "listings": hashlib.sha256((data / "listings.tsv").read_bytes()).hexdigest(),
            "title_column": title_column,
            "encoders": _contents(encoders),
            "recipe": Recipe.load(recipe).model_dump(mode="json"),
        }
        bundles = demo_folder("data", facts)
    folder = bundles

    def train(out: Path, progress: "Progress") -> None:
        from training.train import train as run

        cache = home() / FEATURES
        run(dataset, Recipe.load(recipe), out, encoders=encoders, cache=cache, progress=progress)

    def show() -> Shown:
        from training.report import Report

        return _held(dataset, Report.read(folder), listings, folder)

    return Source(f"the listings of {data}", folder, train, show)


def _held(dataset: "Dataset", report: "Report", listings: int, bundles: Path) -> Shown:
    """The held part of real listings, thinned evenly where fewer are asked for, and its first listing once more."""
    held = _thinned([id_ for id_, _ in report.held], listings)
    rows = {row.id: row for row in dataset.rows}
    photos = {f"{place}.jpg": rows[id_].photo for place, id_ in enumerate(held)}
    names = [name if photo is not None else None for name, photo in photos.items()]
    items = [Item(id_, rows[id_].title, name, rows[id_].path) for id_, name in zip(held, names, strict=True)]
    deleted = Item(f"{items[0].product_id}-deleted", items[0].title, items[0].photo, items[0].truth)

    def photo(name: str) -> bytes | None:
        found = photos.get(name)
        return None if found is None else found()

    def compare(device: str) -> dict[str, Any]:
        figures = report.path_accuracy()
        plain = {name.removeprefix("plain "): value for name, value in figures.items() if name.startswith("plain ")}
        whole = len(held) == len(report.held)
        ours = {name: figures[name] for name in BASELINES} if whole else baselines(bundles, items, photo, device)
        return {"baseline_accuracy": ours, "plain_accuracy": plain, "plain_rows": len(report.held)}

    return Shown([*items, deleted], photo, compare)


def _thinned(ids: Sequence[str], count: int) -> list[str]:
    if not count or count >= len(ids):
        return list(ids)
    return [ids[place * len(ids) // count] for place in range(count)]


def _contents(encoders: str | None) -> list[tuple[str, int]]:
    """Names and sizes of the files in a folder, or the name on a hub: enough to tell other encoders from these."""
    if encoders is None:
        return []
    folder = Path(encoders)
    if not folder.is_dir():
        return [(encoders, 0)]
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted((file.relative_to(folder).as_posix(), file.stat().st_size) for file in files)
