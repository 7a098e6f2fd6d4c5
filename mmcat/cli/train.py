"""`mmcat train`: a bundle from the simulated shop or from a folder of listings. `training` does it; this file asks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcat.cli.bundles import FEATURES, home
from mmcat.cli.interrupts import interruptible
from mmcat.cli.texts import CommandError, new_app, print_json, say

if TYPE_CHECKING:
    from training.report import Report

SHOP = "shop"

app = new_app()


@app.command()
def train(
    data: Annotated[str, typer.Argument(metavar="shop|FOLDER", help="The simulated shop, or a folder of listings.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the bundles and report.json go.")],
    title_column: Annotated[str, typer.Option(help="Column of listings.tsv that holds the titles.")] = "title",
    encoders: Annotated[
        str | None, typer.Option(metavar="FOLDER|NAME", help="Pretrained encoders, for a folder.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="By name or file; default: shop_demo or fashion_cpu.")] = "",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: --set fusion.lr=0.0005.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Of text, image, concat, cross, flat: only this one.")
    ] = None,
    load: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Take the encoders of the bundles text and image there.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=100, help="Listings of the shop; default: the usual number.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split and the weights.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run into OUT was stopped.")] = False,
    track: Annotated[
        list[str] | None, typer.Option(metavar="tensorboard|mlflow", help="Where curves go besides OUT/logs.")
    ] = None,
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
      mmcat train listings/ --encoders weights/ --out bundles --only cross --set fusion.blocks=4 --resume
    """
    if if_missing and (out / "cross" / "bundle.json").is_file():
        say(f"{out} holds bundles already")
        return
    if data != SHOP and not Path(data).exists():
        raise CommandError(f"there is no folder {data}; the simulated shop is called {SHOP}")
    from mmcat.cli.progress import StderrProgress
    from training.recipe import Recipe
    from training.run import MODELS, Options
    from training.shop.shop import ShopConfig
    from training.train import SHOP_LISTINGS, train_folder, train_shop

    values = Recipe.load(recipe or ("shop_demo" if data == SHOP else "fashion_cpu"), changes or ())
    options = Options(tuple(only or MODELS), load, resume, None, tuple(track or ()), device)
    with interruptible(), StderrProgress() as progress:
        cache = home() / FEATURES
        if data == SHOP:
            report = train_shop(
                out, seed=ShopConfig().seed if seed is None else seed, count=count or SHOP_LISTINGS, recipe=values,
                cache=cache, progress=progress, options=options,
            )  # fmt: skip
        else:
            report = train_folder(
                Path(data), out, title_column=title_column, encoders=encoders, recipe=values, cache=cache,
                allow_private=allow_private, seed=seed or 0, progress=progress, options=options,
            )  # fmt: skip
    _tell(report, out, as_json)


def _tell(report: "Report", out: Path, as_json: bool) -> None:
    accuracy = report.path_accuracy()
    if as_json:
        print_json({"path_accuracy": accuracy, "measured_on": report.measured_on, "seconds": dict(report.seconds)})
        return
    print(f"path accuracy on the part {report.measured_on}:")
    for name, value in sorted(accuracy.items(), key=lambda pair: -pair[1]):
        print(f"  {value:.3f}  {name}")
    made = (out / name for name in ("cross", "concat", "flat", "text", "image") if name in report.models)
    served = (folder for folder in made if _is_served(folder))
    hint = next((f"; try: mmcat predict 'a title' --bundle {folder}" for folder in served), "")
    print(f"bundles and report.json are in {out}{hint}")


def _is_served(folder: Path) -> bool:
    from mmcat.bundle import read_manifest
    from mmcat.family import ModelConfig

    return ModelConfig.from_json(read_manifest(folder)[0]["model"]).why_not_served is None
