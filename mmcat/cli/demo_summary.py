"""The demo's figures at the end: what came out against the truth, beside the baselines on the same listings.

Before this: `demo_stream`, which has every outcome. The names of the figures are a contract: other programs read them.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcat.cli.demo_stream import Item, Outcomes

__all__ = ["baselines", "draw", "percentile", "summarize"]

BASELINES = ("text", "image", "concat")
CHUNK = 64


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed (nearest rank); nan of nothing."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)] if ascending else math.nan


def accuracy(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> float:
    """Share of pairs (answered ids, true ids) that are equal: the whole path, the stop included."""
    hits = [tuple(answer) == tuple(truth) for answer, truth in pairs]
    return sum(hits) / len(hits) if hits else math.nan


def baselines(
    bundles: Path, items: Sequence["Item"], photo: Callable[[str], bytes | None], device: str
) -> dict[str, float]:
    """Path accuracy of the bundles beside `cross` on the same listings with the same photos; blocks.

    Args:
        bundles: folder with a bundle for each name of `BASELINES`; one that is not there has no figure.
        photo: bytes of a photo by its name.
    """
    from mmcat.categorizer import Categorizer
    from mmcat.listing import Listing

    right = {name: 0 for name in BASELINES if (bundles / name).is_dir()}
    models = {name: Categorizer.load(bundles / name, device=device) for name in right}
    for start in range(0, len(items), CHUNK):
        chunk = items[start : start + CHUNK]
        listings = [
            Listing(item.product_id, title=item.title, image=None if item.photo is None else photo(item.photo))
            for item in chunk
        ]
        for name, model in models.items():
            results = model.categorize(listings, top_k=1)
            pairs = zip(results, chunk, strict=True)
            right[name] += sum(tuple(node.id for node in result.path) == item.truth for result, item in pairs)
    return {name: round(hits / len(items), 4) for name, hits in right.items()}


def summarize(outcomes: "Outcomes", items: Sequence["Item"], cached: int) -> dict[str, Any]:
    """The figures that the stream gives; the rest (baselines, seconds, names of the parts) is the demo's to add.

    Args:
        items: all listings sent; the last was deleted again, so it is not among `listings`.
        cached: products that the view holds a result of.
    """
    stay = items[:-1]
    pairs = [
        ([node["id"] for node in outcomes.results[item.product_id]["path"]], item.truth)
        for item in stay
        if item.product_id in outcomes.results
    ]
    latencies = outcomes.latencies_ms
    return {
        "events": outcomes.events,
        "listings": len(stay),
        "categorized": len(outcomes.results),
        "tombstones": len(outcomes.tombstones),
        "dead_lettered": len(outcomes.dead_letters),
        "cached": cached,
        "path_accuracy": round(accuracy(pairs), 4),
        "baseline_accuracy": {},
        "image": dict(sorted(Counter(str(result["image"]) for result in outcomes.results.values()).items())),
        "latency_ms": {"p50": round(percentile(latencies, 0.50), 1), "p99": round(percentile(latencies, 0.99), 1)},
        "listings_per_second": round(len(outcomes.results) / max(1e-9, outcomes.seconds), 1),
    }


def draw(summary: Mapping[str, Any]) -> None:
    """Show the summary to a person, on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("path accuracy", f"[bold]{summary['path_accuracy']:.3f}[/] photo and title, cross-attention")
    for name, value in summary["baseline_accuracy"].items():
        table.add_row("", f"{value:.3f} {name}")
    for name, value in summary.get("plain_accuracy", {}).items():
        table.add_row("", f"{value:.3f} {name.replace('_', ' ')}, plain model")
    for name, value in summary.items():
        if not name.endswith("_accuracy"):
            table.add_row(name.replace("_", " "), _words(value))
    Console().print(table)


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return str(value)
