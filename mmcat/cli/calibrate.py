"""`mmcat bundle calibrate`: a bundle's encoders in int8, by real listings, in one more file of its folder."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcat.cli.predict_input import address_policy, read_sample
from mmcat.cli.texts import CommandError, print_json, say

if TYPE_CHECKING:
    from mmcat.bundle import LoadedBundle
    from mmcat.listing import Prepared

__all__ = ["calibrate"]


def calibrate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A bundle, as training wrote it.")],
    listings: Annotated[
        Path, typer.Argument(metavar="LISTINGS", help="A table (.tsv), or a folder with listings.tsv.")
    ],
    count: Annotated[int, typer.Option(min=16, help="Listings to calibrate on.")] = 300,
    judge: Annotated[int, typer.Option(min=16, help="Further ones to judge on; they are kept in the file.")] = 512,
    title_column: Annotated[str, typer.Option(help="Column of the table that holds the titles.")] = "title",
    photos: Annotated[Path | None, typer.Option(help="Folder or zip with PRODUCT_ID.jpg.")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="Private host or range that may be asked for photos.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Quantize the encoders to int8 on real listings, and say which engine would run the bundle on this machine.

    Writes FOLDER/int8.safetensors; the rest of the bundle and its fingerprint stay as they are. Give listings as the
    service will see them, best such that the model was not trained on; labels are not needed. The table is read as by
    `mmcat predict`. Takes minutes, and the extra `calibrate`; what it makes is served without it.

    \b
    Example:
      mmcat bundle calibrate bundles/cross listings/ --title-column hard_title
    """
    from mmcat.bundle import check_served, load
    from mmcat.cli.bundles import ENGINES, home
    from mmcat.engines import agreement, int8, quantize
    from mmcat.engines.choice import choose
    from mmcat.engines.eager import EagerEngine
    from mmcat.paths import PathIndex

    if (lacks := quantize.missing()) is not None:
        raise CommandError(f"nothing can be calibrated: {lacks}")
    table = listings / "listings.tsv" if listings.is_dir() else listings
    if not table.is_file():
        raise CommandError(f"there is no table {table}")
    loaded = load(folder)
    check_served(folder, loaded.config)
    usable = _prepared(loaded, table, count + judge, title_column, photos, allow or [])
    say(f"calibrating on {count} listings")
    graphs = quantize.quantize(loaded, usable[:count])
    say(f"answering {judge} others in float32")
    eager = EagerEngine(loaded.model, loaded.preprocessing, "cpu", "fp32")
    batches = agreement.stacked(loaded, usable[count:])
    sample = agreement.answered(eager, batches, PathIndex(loaded.taxonomy), "real")
    file = int8.write(folder, loaded.fingerprint, graphs, sample)
    say("judging each precision on them")
    engine, why = choose(loaded, device="cpu", cache=home() / ENGINES)
    if as_json:
        found = {"file": str(file), "bytes": file.stat().st_size, "engine": engine.name, "precision": engine.precision}
        print_json({**found, "why": why})
        return
    print(f"{file}: {file.stat().st_size / 1e6:.0f} MB")
    print(f"auto takes {engine.name} in {engine.precision} here: {why}")


def _prepared(
    loaded: "LoadedBundle", table: Path, count: int, title_column: str, photos: Path | None, allow: list[str]
) -> "list[Prepared]":
    """So many listings that have anything the model reads."""
    from mmcat.preparation import prepare

    config = loaded.config
    cut = partial(prepare, preprocessing=loaded.preprocessing, with_photo=config.reads_image)
    read = read_sample(table, title_column, photos, address_policy(allow), count, cut)
    usable = [one for one in read if (one.text and config.reads_text) or one.pixels is not None]
    if len(usable) < count:
        raise CommandError(
            f"{table} gave {len(usable)} listings that the model can read, and {count} are wanted:"
            " give more, or ask for fewer with --count and --judge"
        )
    return usable
