"""What `mmcat replay --diff` shows: sums as tables, each change as a line of a file. After `consumer.replay_diff`."""

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcat.cli.texts import CommandError

if TYPE_CHECKING:
    from consumer.replay_diff import Answer, Change

__all__ = ["change_file", "draw_changes"]

COLUMNS = ("product_id", "change", *(f"{side}_{what}" for side in ("old", "new")
           for what in ("ids", "path", "probability", "decision", "image")))  # fmt: skip
ROWS = 30
"""Pairs of categories shown; --json has them all."""


@contextmanager
def change_file(file: Path | None) -> "Iterator[Callable[[Change], None] | None]":
    """Give what writes a change as a line of tab-separated values; None without a file."""
    if file is None:
        yield None
        return
    try:
        lines = file.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror}") from None
    with lines:
        writer = csv.writer(lines, "excel-tab", lineterminator="\n")
        writer.writerow(COLUMNS)
        yield lambda one: writer.writerow((one.product_id, one.kind, *_cells(one.old), *_cells(one.new)))


def _cells(answer: "Answer | None") -> tuple[str | float, ...]:
    if answer is None:
        return ("",) * 5
    return "/".join(answer.ids), " > ".join(answer.names), answer.probability, answer.decision, answer.image


def draw_changes(found: Mapping[str, Any]) -> None:
    """Print the sums of `Changes.summary`."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    kinds = ", ".join(f"{found[name]} {name}" for name in ("same", "changed", "new", "deleted"))
    console.print(f"{found['compared']} answers compared: {kinds}; {found['decision_changed']} decided otherwise")
    levels = Table("level", "compared", "changed", "share", title="held answers that change", title_justify="left")
    for one in found["levels"]:
        share = "" if one["share"] is None else f"{one['share']:.1%}"
        levels.add_row(str(one["level"]), str(one["compared"]), str(one["changed"]), share)
    console.print(levels)
    moves = Table("from", "to", "answers", "of", "for example", title="by main category", title_justify="left")
    for one in found["categories"][:ROWS]:
        example = one["examples"][0]
        shown = f"{example['product_id']}: {example['from'] or 'none'} → {example['to'] or 'deleted'}"
        moves.add_row(_name(one["from"]), _name(one["to"]), str(one["answers"]), str(one["of"]), shown)
    if found["categories"]:
        console.print(moves)
    if (more := len(found["categories"]) - ROWS) > 0:
        console.print(f"and {more} more pairs: --json has them all")


def _name(category: Mapping[str, str] | None) -> str:
    return "none" if category is None else category["name"]
