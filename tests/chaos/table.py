"""The trials as the table of docs/reliability.md, between its two marks; everything else of the page is left alone."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos.records import TrialRecord
from tests.chaos.rows import ROWS

BEGIN: Final = "<!-- trials: written by `make chaos` -->"
END: Final = "<!-- end of trials -->"
HEAD: Final = (
    "| fault | mode | trials | strikes | events | lost | twice | seconds to recover: median (most) | broken |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def write_table(page: Path, trials: Sequence[TrialRecord]) -> None:
    """Put the table of these trials into the page."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{render(trials)}{END}{after}", encoding="utf-8")


def render(trials: Sequence[TrialRecord]) -> str:
    """A line per fault and mode, in the order of the matrix."""
    lines = []
    for row in ROWS.values():
        found: dict[str, list[TrialRecord]] = {}
        for one in trials:
            if one.row == row.name:
                found.setdefault(one.mode, []).append(one)
        lines += [_line(row.name, mode, found.get(mode, [])) for mode in row.modes]
    return HEAD + "".join(lines)


def _line(name: str, mode: str, trials: Sequence[TrialRecord]) -> str:
    if not trials:
        return f"| {name} | {mode.replace('_', ' ')} | 0 | | | | | | not run |\n"
    struck = [one for one in trials if one.struck]
    total = {what: sum(getattr(one, what) for one in struck) for what in ("events", "losses", "duplicates")}
    times = [one.recovered_s for one in struck if one.recovered_s is not None]
    recovered = f"{statistics.median(times):.1f} ({max(times):.1f})" if times else "-"
    broken = sum(bool(one.objections) for one in struck)
    said = f"in {broken} trials" if broken else "none"
    cells = [name, mode.replace("_", " "), len(trials), len(struck), *total.values(), recovered, said]
    return "| " + " | ".join(map(str, cells)) + " |\n"
