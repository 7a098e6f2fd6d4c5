"""A bundle's README.md, its model card (Mitchell et al. 2019): what it was made from, what it is worth, where it ends.

Written from the same facts as bundle.json, so the two cannot disagree. After reference.py; before bundle.py, which
writes it. Pure text.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmcat.family import ModelConfig
from mmcat.taxonomy import Taxonomy

_WITHHELD = {"image": "photo withheld", "text": "title withheld"}
_APART = ("level_accuracy", "withheld", "by_training_rows")


def model_card(manifest: Mapping[str, Any], taxonomy: Taxonomy) -> str:
    """Markdown.

    Args:
        manifest: what bundle.json holds. Of its metrics, `level_accuracy` (a value per level), `withheld` (path
            accuracy by modality) and `by_training_rows` (label, rows, path accuracy) get tables of their own.
    """
    config = ModelConfig.from_json(manifest["model"])
    given = config.given_photo_width
    photos = f"{config.px} px" if given is None else f"photo vectors of width {given} that came with the data"
    lines = [
        f"# {manifest['name']}",
        "",
        f"Puts a listing in one of {len(taxonomy)} category paths. Reads: {config.modality}"
        f" ({config.fusion} fusion, {config.blocks} blocks, {config.heads} heads, {photos}).",
        "",
        f"- Created: {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(manifest['created_ms'] / 1000))} UTC",
        f"- Data and its licence: {manifest['data_note'] or 'not stated'}",
        f"- Labels: {manifest['label_note'] or 'nothing is known of their errors'}",
        f"- Split: {manifest['split_fingerprint'] or 'none'}",
        *_promise(manifest["calibration"]),
        "",
        "## Figures",
        "",
        *_figures(manifest["metrics"]),
        "## Use",
        "",
        _use(config),
        "",
        "## Limits",
        "",
        *_limits(config, manifest["reference"]),
        "",
    ]
    return "\n".join(lines)


def _promise(calibration: Mapping[str, Any]) -> Iterator[str]:
    yield f"- Temperatures: {json.dumps(calibration['temperatures'])}"
    yield (
        f"- Promise: with {calibration['confidence']:.0%} confidence at most {calibration['error_rate']:.1%} of claimed"
        " nodes are not on the true path"
    )
    yield f"- Claimed from a probability of: {json.dumps(calibration['thresholds'])} (above 1: never)"


def _figures(metrics: Mapping[str, Any]) -> Iterator[str]:
    plain = [(name, json.dumps(value, ensure_ascii=False)) for name, value in metrics.items() if name not in _APART]
    yield from _table(("figure", "value"), plain)
    levels = enumerate(metrics.get("level_accuracy") or (), start=1)
    yield from _table(("level", "accuracy, on rows that have it"), [(str(n), _share(value)) for n, value in levels])
    withheld = (metrics.get("withheld") or {}).items()
    yield from _table(("what it saw", "path accuracy"), [(_WITHHELD.get(n, n), _share(value)) for n, value in withheld])
    sizes = metrics.get("by_training_rows") or ()
    yield from _table(
        ("training rows of the true path", "rows measured", "path accuracy"),
        [(str(label), f"{rows:,}", _share(value)) for label, rows, value in sizes],
    )


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        yield f"| {' | '.join(header)} |"
        yield "|" + " --- |" * len(header)
        yield from (f"| {' | '.join(row)} |" for row in rows)
        yield ""


def _share(value: float | None) -> str:
    return "no rows" if value is None else f"{value:.3f}"


def _use(config: ModelConfig) -> str:
    if config.why_not_served is not None:
        return "`mmcat evaluate FOLDER --data DATA`, on data that brings such photo vectors."
    return (
        "`mmcat predict --bundle FOLDER --title … --photo …`, or in Python"
        " `Categorizer.load(FOLDER).categorize([Listing(id, title=…, image=…)])`."
    )


def _limits(config: ModelConfig, reference: Mapping[str, Any] | None) -> Iterator[str]:
    if config.why_not_served is not None:
        yield f"- Not for service: {config.why_not_served}."
    yield "- It knows the paths of its taxonomy only: a new category needs a new model."
    yield "- Its probabilities hold for listings like those it was calibrated on; the promise is an average over them."
    if config.modality == "image":
        yield "- It reads photos alone: a listing without one gets the most common path and goes to review."
    elif config.modality == "text":
        yield "- It reads titles alone and does not look at photos."
    if reference is None:
        yield "- It holds no histograms of its answers, so drift cannot be told from it."
    else:
        yield (
            f"- Drift is told against the {sum(reference['probabilities']):,} answers of the calibration part"
            " (bundle.json, reference)."
        )
