"""`mmcat bundle`: what a bundle says of itself, whether it is whole, how two of them differ; and int8 for one."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mmcat.cli.calibrate import calibrate
from mmcat.cli.texts import new_app, print_json

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A bundle, as training wrote it.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]

app = new_app()
app.command()(calibrate)
COMPARED = ("model", "preprocessing", "calibration", "split_fingerprint", "data_note", "label_note")


@app.callback()
def bundle() -> None:
    """What a bundle says of itself, whether it is whole, how two of them differ; and int8 for one.

    \b
    Examples:
      mmcat bundle show bundles/cross
      mmcat bundle verify bundles/cross
      mmcat bundle diff bundles-may/cross bundles-june/cross
      mmcat bundle calibrate bundles/cross listings/
    """


@app.command()
def show(folder: Folder, as_json: AsJson = False) -> None:
    """What bundle.json holds, after its sums were verified.

    \b
    Example:
      mmcat bundle show bundles/cross
    """
    from mmcat.bundle import read_manifest
    from mmcat.family import ModelConfig

    manifest, fingerprint = read_manifest(folder)
    if as_json:
        print_json({"fingerprint": fingerprint, **manifest})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("fingerprint", fingerprint)
    if why_not := ModelConfig.from_json(manifest["model"]).why_not_served:
        table.add_row("not for service", why_not)
    for name, value in _flat(manifest | {"reference": _sizes(manifest["reference"])}):
        table.add_row(name, _text(value))
    Console(markup=False, highlight=False).print(table)


@app.command()
def verify(folder: Folder) -> None:
    """Whether every byte is the one that was written and the model loads; exit code 1 and one sentence if not.

    \b
    Example:
      mmcat bundle verify bundles/cross
    """
    from mmcat.bundle import load
    from mmcat.engines.int8 import FILE, Quantized

    loaded = load(folder)
    print(f"{folder} is whole: {loaded.name}, {len(loaded.taxonomy)} paths, fingerprint {loaded.fingerprint}")
    if (folder / FILE).exists():
        quantized = Quantized.read(folder / FILE, loaded.fingerprint)
        print(f"{FILE} is of this bundle: {', '.join(quantized.graphs)}, {quantized.sample}")


@app.command()
def diff(
    one: Annotated[Path, typer.Argument(metavar="ONE", help="A bundle.")],
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Another bundle.")],
    as_json: AsJson = False,
) -> None:
    """What differs: configuration, paths of the taxonomy, and the figures side by side.

    \b
    Example:
      mmcat bundle diff bundles-may/cross bundles-june/cross
    """
    from mmcat.bundle import read_manifest

    found = _difference(read_manifest(one)[0], read_manifest(other)[0], _paths(one), _paths(other))
    if as_json:
        print_json(found)
        return
    _draw(found)


def _paths(folder: Path) -> dict[tuple[str, ...], str]:
    """Names by ids: a category that was only renamed is the same one."""
    from mmcat.taxonomy import Taxonomy

    paths = Taxonomy.load(folder / "taxonomy.tsv").paths
    return {tuple(node.id for node in path): " > ".join(node.name for node in path) for path in paths}


def _difference(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    one_paths: Mapping[tuple[str, ...], str],
    other_paths: Mapping[tuple[str, ...], str],
) -> dict[str, Any]:
    flat = [dict(_flat({name: manifest[name] for name in COMPARED})) for manifest in (one, other)]
    configuration = {
        name: [flat[0].get(name), flat[1].get(name)]
        for name in dict.fromkeys([*flat[0], *flat[1]])
        if flat[0].get(name) != flat[1].get(name)
    }
    figures = [dict(_flat(manifest["metrics"])) for manifest in (one, other)]
    return {
        "names": [one["name"], other["name"]],
        "configuration": configuration,
        "paths": {
            "added": [name for ids, name in other_paths.items() if ids not in one_paths],
            "removed": [name for ids, name in one_paths.items() if ids not in other_paths],
        },
        "metrics": {
            name: [figures[0].get(name), figures[1].get(name)] for name in dict.fromkeys([*figures[0], *figures[1]])
        },
    }


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names with dots; what is not a mapping stays in one piece."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _sizes(reference: Mapping[str, Any] | None) -> Any:
    """A reference in one screen: its 215 or 4,000 paths as a number."""
    return reference and {**reference, "paths": f"{len(reference['paths'])} answered"}


def _draw(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    for title in ("configuration", "metrics"):
        table = Table("", *found["names"], title=title, title_justify="left")
        for name, (one, other) in found[title].items():
            table.add_row(name, _text(one), _text(other))
        console.print(table if found[title] else f"{title}: the same")
    for title, paths in found["paths"].items():
        console.print(f"paths {title}: {len(paths)}")
        for path in paths:
            console.print(f"  {path}")
