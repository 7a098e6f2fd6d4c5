"""What the demo shows: listings of the simulated shop, or a held part of real listings, with their truth and photos.

Of real listings it shows the validation part `calibrate`, on which no weight and no epoch was chosen; the test part
only when asked, because every look at it counts (training.ledger).

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
from mmcat.cli.texts import CommandError

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
    data: Path,
    title_column: str,
    encoders: str | None,
    recipe: str,
    listings: int,
    bundles: Path | None,
    *,
    final: bool = False,
    allow_private: bool = False,
) -> Source:
    """Real listings: trains on one part of them, shows another (`listings` of it; 0: all).

    Args:
        final: show the test part, and write the look down; else the part `calibrate`.
        allow_private: whether photos may be fetched from addresses that are not public.
    """
    from training.readers.folder import read_folder
    from training.readers.tables import table_path
    from training.recipe import Recipe

    dataset = read_folder(data, title_column, cache=home() / FEATURES, allow_private=allow_private)
    if bundles is None:
        facts = {
            "listings": _sha256(table_path(data)),
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

        return _held(dataset, Report.read(folder), listings, folder, "test" if final else "calibrate")

    return Source(f"the listings of {data}", folder, train, show)


def _held(dataset: "Dataset", report: "Report", listings: int, bundles: Path, part: str) -> Shown:
    """A held part of real listings, thinned evenly where fewer are asked for, and its first listing once more."""
    whole = _rows_of(dataset, report, part)
    rows = [dataset.rows[number] for number in _thinned(whole, listings)]
    photos = {f"{place}.jpg": row for place, row in enumerate(rows)}
    names = [name if row.photo is not None else None for name, row in photos.items()]
    items = [Item(row.id, row.title, name, row.path) for row, name in zip(rows, names, strict=True)]
    deleted = Item(f"{items[0].product_id}-deleted", items[0].title, items[0].photo, items[0].truth)

    def photo(name: str) -> bytes | None:
        return photos[name].photo_bytes() if name in photos else None

    def compare(device: str) -> dict[str, Any]:
        if part != "test":  # the report's figures are the test part's
            return {"part": part, "baseline_accuracy": baselines(bundles, items, photo, device)}
        figures = report.path_accuracy()
        plain = {name.removeprefix("plain "): value for name, value in figures.items() if name.startswith("plain ")}
        all_shown = len(rows) == len(whole)
        ours = {name: figures[name] for name in BASELINES} if all_shown else baselines(bundles, items, photo, device)
        return {"part": part, "baseline_accuracy": ours, "plain_accuracy": plain, "plain_rows": len(whole)}

    return Shown([*items, deleted], photo, compare)


def _rows_of(dataset: "Dataset", report: "Report", part: str) -> list[int]:
    """Row numbers of a part of the split that the bundles were trained by; a look at the test part is written down."""
    from training.ledger import note_test_look
    from training.splits import frozen_split, split_file

    split = frozen_split(dataset, home() / FEATURES, report.seed, report.shares)
    if split.fingerprint != report.split_fingerprint:
        raise CommandError(f"{report.folder} was trained by another split of these listings: train it again")
    if part == "test":
        note_test_look(
            split_file(dataset, home() / FEATURES, report.seed, report.shares),
            split_fingerprint=split.fingerprint,
            recipe=report.recipe,
            model=f"{dataset.name}-cross",
            purpose="mmcat demo --final",
        )
    rows: list[int] = split.rows(part, dataset).tolist()
    if not rows:
        raise CommandError(f"{dataset.name} has too few listings: the part {part} of the split is empty")
    return rows


def _thinned(rows: Sequence[int], count: int) -> Sequence[int]:
    if not count or count >= len(rows):
        return rows
    return [rows[place * len(rows) // count] for place in range(count)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _contents(encoders: str | None) -> list[tuple[str, int]]:
    """Names and sizes of the files in a folder, or the name on a hub: enough to tell other encoders from these."""
    if encoders is None:
        return []
    folder = Path(encoders)
    if not folder.is_dir():
        return [(encoders, 0)]
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted((file.relative_to(folder).as_posix(), file.stat().st_size) for file in files)
