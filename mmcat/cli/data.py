"""`mmcat data check`: prints what `training.check` finds in a folder of listings."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mmcat.cli.bundles import FEATURES, home
from mmcat.cli.interrupts import interruptible
from mmcat.cli.texts import new_app, print_json

app = new_app()


@app.callback()
def data() -> None:
    """Look at listings before training on them.

    \b
    Example:
      mmcat data check listings/
    """


@app.command()
def check(
    path: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of listings, or of Kakao Arena's chunks.")],
    title_column: Annotated[str, typer.Option(help="Column that holds the titles.")] = "title",
    all_photos: Annotated[bool, typer.Option("--all", help="Look at every photo; default: at 500 of them.")] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Fetch photos from addresses that are not public, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Say what is wrong with the data: columns, bad rows, repeated ids, photos, labels, paths, skew.

    Exit code 1 where a training run would be refused; warnings and notes alone exit 0. FOLDER may also be one chunk
    file. The format is docs/data-format.md.

    \b
    Examples:
      mmcat data check listings/
      mmcat data check listings/ --title-column hard_title --all --json
    """
    from mmcat.cli.progress import StderrProgress
    from training.check import check_data

    with interruptible(), StderrProgress() as progress:
        checked = check_data(
            path,
            title_column,
            cache=home() / FEATURES,
            all_photos=all_photos,
            allow_private=allow_private,
            progress=progress,
        )
    if as_json:
        print_json({**asdict(checked), "refused": checked.refused})
    else:
        print(f"{checked.source}: {checked.listings:,} listings, {checked.paths:,} paths")
        for finding in checked.findings:
            print(f"{finding.severity}: {finding.text}")
            for example in finding.examples:
                print(f"    {example}")
    if checked.refused:
        raise typer.Exit(1)
