"""`mmcat train`: a bundle from the simulated shop or from a folder of listings. `training` does it; this file asks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcat.cli.bundles import FEATURES, home
from mmcat.cli.interrupts import interruptible
from mmcat.cli.texts import CommandError, new_app, print_json, say

if TYPE_CHECKING:
    from training.progress import Progress
    from training.report import Report

SHOP = "shop"

app = new_app()


@app.command()
def train(
    data: Annotated[str, typer.Argument(metavar="shop|FOLDER", help="The simulated shop, or a folder of listings.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the bundles and report.json go.")],
    title_column: Annotated[str, typer.Option(help="Column of listings.tsv that holds the titles.")] = "title",
    encoders: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Pretrained encoders, for a folder.")] = None,
    recipe: Annotated[str, typer.Option(help="By name or file; default: shop_demo or fashion_cpu.")] = "",
    count: Annotated[int | None, typer.Option(min=100, help="Listings of the shop; default: the usual number.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split and the weights.")] = None,
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Do nothing where OUT holds bundles.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Fetch photos from addresses that are not public, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")] = False,
) -> None:
    """Train four models that share their encoders: cross-attention, concatenation, title only, photo only.

    A folder holds listings.tsv, .csv or .parquet (product_id, titles, level1 … level4) and photos.zip or photos/, or
    Kakao Arena's chunks; see docs/data-format.md and `mmcat data check`. The bundles OUT/cross, OUT/concat, OUT/text,
    OUT/image run everywhere without OUT's rest.

    \b
    Examples:
      mmcat train shop --out bundles
      mmcat train listings/ --title-column title --encoders weights/ --out bundles
    """
    if if_missing and (out / "cross" / "bundle.json").is_file():
        say(f"{out} holds bundles already")
        return
    if data != SHOP and not Path(data).exists():
        raise CommandError(f"there is no folder {data}; the simulated shop is called {SHOP}")
    from mmcat.cli.progress import StderrProgress

    with interruptible(), StderrProgress() as progress:
        if data == SHOP:
            report = _train_shop(out, recipe, count, seed, device, progress)
        else:
            report = _train_folder(
                Path(data), out, title_column, encoders, recipe, seed, device, allow_private, progress
            )
    accuracy = report.path_accuracy()
    if as_json:
        print_json({"path_accuracy": accuracy, "measured_on": report.measured_on, "seconds": dict(report.seconds)})
        return
    print(f"path accuracy on the part {report.measured_on}:")
    for name, value in sorted(accuracy.items(), key=lambda pair: -pair[1]):
        print(f"  {value:.3f}  {name}")
    print(f"bundles and report.json are in {out}; try: mmcat predict 'a title' --bundle {out / 'cross'}")


def _train_shop(
    out: Path, recipe: str, count: int | None, seed: int | None, device: str, progress: "Progress"
) -> "Report":
    from training.shop.shop import ShopConfig
    from training.train import SHOP_LISTINGS, train_shop

    return train_shop(
        out,
        seed=ShopConfig().seed if seed is None else seed,
        count=count or SHOP_LISTINGS,
        recipe=recipe or "shop_demo",
        cache=home() / FEATURES,
        progress=progress,
        device=device,
    )


def _train_folder(
    data: Path,
    out: Path,
    title_column: str,
    encoders: Path | None,
    recipe: str,
    seed: int | None,
    device: str,
    allow_private: bool,
    progress: "Progress",
) -> "Report":
    from training.train import train_folder

    return train_folder(
        data,
        out,
        title_column=title_column,
        encoders=encoders,
        recipe=recipe or "fashion_cpu",
        cache=home() / FEATURES,
        seed=seed or 0,
        allow_private=allow_private,
        progress=progress,
        device=device,
    )
