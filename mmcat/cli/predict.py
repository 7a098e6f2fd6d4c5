"""`mmcat predict`: one listing, or a table of them, through a bundle, without Kafka.

Stdout: a table for a person, JSON with `--json`; for a table of listings one line each (TSV, or JSON lines).
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmcat.cli.predict_input import address_policy, is_address, read_one, read_table
from mmcat.cli.texts import CommandError, new_app, print_json

if TYPE_CHECKING:
    from mmcat.categorizer import Categorizer
    from mmcat.listing import Listing, Result

COLUMNS = ("product_id", "probability", "decision", "image", "ids", "path")
EXPLAINED = ("safe_level", "text_share", "image_share")
CHUNK = 64
"""Listings of a table answered at once: a batch that both engines run at full speed."""

app = new_app()


@app.command(epilog="See also: mmcat train, which makes bundles.")
def predict(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TITLE] [PHOTO] | TABLE.tsv", help="A title, a photo (file or address), or a table."),
    ] = None,
    title: Annotated[str, typer.Option(help="The title, where it could be taken for a file.")] = "",
    bundle: Annotated[Path | None, typer.Option(help="Trained bundle; default: the setting, else the demo's.")] = None,
    top: Annotated[int, typer.Option(min=1, max=100, help="How many paths to show.")] = 3,
    explain: Annotated[bool, typer.Option("--explain", help="Say what the answer rests on, and what stands.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout; JSON lines for a table.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    engine: Annotated[
        str | None,
        typer.Option(help="eager (default; in int8 cpu), cpu, or auto; the last two make graphs first, once."),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or int8: model.precision.")] = "auto",
    allow: Annotated[list[str] | None, typer.Option(help="Private host or range that may be asked for photos.")] = None,
    title_column: Annotated[str, typer.Option(help="Column of a table that holds the titles.")] = "title",
    photos: Annotated[Path | None, typer.Option(help="Folder or zip with PRODUCT_ID.jpg for a table.")] = None,
) -> None:
    """Categorize a title, a photo, both, or every line of a table.

    A photo is a file or an http(s) address. A table has a header line and tab-separated columns: `product_id`, the
    title column, `brand`, `maker` and `model` where the bundle reads them, and `image_url` where photos are to be
    fetched; photos may also lie beside it in photos.zip.

    \b
    Examples:
      mmcat predict "나이키 남성 러닝화 270"
      mmcat predict "puma blue" shirt.jpg --bundle bundles/cross --top 5
      mmcat predict "puma blue" shirt.jpg --explain
      mmcat predict http://127.0.0.1:8088/7.jpg --allow 127.0.0.1/32 --json
      mmcat predict listings.tsv --title-column hard_title > answers.tsv
    """
    words = words or []
    policy = address_policy(allow or [])
    table = next((Path(word) for word in words if word.endswith(".tsv") and Path(word).is_file()), None)
    if table is not None:
        if len(words) > 1 or title:
            raise CommandError("a table stands alone: no title and no photo beside it")
        categorizer = _load(bundle, device, engine, precision, explain)
        if not as_json:
            print(*COLUMNS, *(EXPLAINED if explain else ()), sep="\t")
        for chunk in read_table(table, title_column, photos, policy, CHUNK, categorizer.prepare):
            for result in categorizer.categorize_prepared(chunk, top_k=top):
                _write_line(result, as_json)
        return
    listing = read_one(words, title, policy)
    categorizer = _load(bundle, device, engine, precision, explain)
    result = categorizer.categorize([listing], top_k=top)[0]
    if as_json:
        print_json({**_plain(result), "model": asdict(categorizer.info)})
        return
    shown = next((word for word in words if is_address(word) or Path(word).is_file()), None)
    _draw(result, listing, shown)


def _load(bundle: Path | None, device: str, engine: str | None, precision: str, explain: bool) -> "Categorizer":
    from mmcat.categorizer import Categorizer
    from mmcat.cli.bundles import ENGINES, find_bundle, home

    return Categorizer.load(
        find_bundle(bundle),
        device=device,
        engine=engine or ("cpu" if precision == "int8" else "eager"),
        precision=precision,
        evidence=explain,
        cache=home() / ENGINES,
    )


def _plain(result: "Result") -> dict[str, object]:
    """The result as JSON can hold it, under the names that results in Kafka have."""
    plain = asdict(result)
    del plain["evidence"]
    evidence = {"evidence": result.evidence.shares()} if result.evidence else {}
    return {"product_id": plain.pop("listing_id"), **plain, **evidence}


def _write_line(result: "Result", as_json: bool) -> None:
    if as_json:
        print(json.dumps(_plain(result), ensure_ascii=False))
        return
    ids = "/".join(node.id for node in result.path)
    names = " > ".join(node.name for node in result.path)
    shown = [result.listing_id, f"{result.probability:.4f}", result.decision, result.image, ids, names]
    if result.evidence:
        shown += [str(result.safe_level), *(f"{share:.4f}" for share in result.evidence.shares().values())]
    print(*shown, sep="\t")


def _draw(result: "Result", listing: "Listing", photo: str | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("path", overflow="fold")
    table.add_column("probability", justify="right")
    for path, probability in [(result.path, result.probability)] + [
        (c.path, c.probability) for c in result.alternatives
    ]:
        table.add_row(escape(" > ".join(node.name for node in path)), f"{probability:.3f}")
    console = Console(file=sys.stdout, highlight=False)
    if listing.title:
        console.print(f"title: {escape(listing.title)}")
    if photo is not None:
        console.print(f"photo {result.image.value}: {escape(photo)}")
    console.print(table)
    verdict = "stands" if result.reason is None else f"goes to a person ({result.reason})"
    console.print(f"{result.decision.value}: {verdict}; safe down to level {result.safe_level}")
    if result.evidence:
        shares = result.evidence.shares()
        console.print(
            f"the answer rests on the title for {shares['text']:.0%}, on the photo for {shares['image']:.0%}"
            f" (in log-probability: {result.evidence.text:+.2f} and {result.evidence.image:+.2f})"
        )
        console.print(escape(_levels(result)))


def _levels(result: "Result") -> str:
    """Each node of the path and whether the promise covers it."""
    safe = {node.level: "safe" if node.level <= result.safe_level else "-" for node in result.path}
    return "\n".join(
        f"level {node.level}  {node.probability:.3f}  {safe[node.level]:4}  {node.name}" for node in result.path
    )
