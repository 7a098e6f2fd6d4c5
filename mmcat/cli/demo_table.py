"""The demo's live table: the last listings with photo, path and probability, and a progress bar; or plain lines.

Drawn on stderr, so that stdout holds the summary alone. Where stderr is no terminal a line says every tenth.
"""

import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mmcat.cli.texts import say

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from mmcat.cli.demo_stream import Item

__all__ = ["LiveTable"]

ROWS = 14
FRAME_S = 0.2
"""Five frames a second: rich draws one in 8 ms, and the consumer needs the cores."""
MARKS = {"used": "[green]used[/]", "absent": "[dim]none[/]"}


class LiveTable:
    """A context manager; `add` each result as it comes."""

    def __init__(self, total: int, levels: int = 4) -> None:
        self._total = total
        self._levels = levels
        self._rows: deque[tuple[Item, dict[str, Any]]] = deque(maxlen=ROWS)
        self._done = 0
        self._right = 0
        self._start_s = time.monotonic()
        self._drawn_s = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._start_s = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._render(), refresh=True)
            self._live.stop()

    def add(self, item: "Item", result: dict[str, Any]) -> None:
        """Show one more result."""
        self._rows.append((item, result))
        self._done += 1
        self._right += tuple(node["id"] for node in result["path"]) == item.truth
        if self._live is None:
            if self._done % max(1, self._total // 10) == 0:
                say(f"  {self._done}/{self._total} listings, {self._rate():.0f}/s, {self._share():.0%} of paths right")
        elif time.monotonic() - self._drawn_s > FRAME_S:
            self._drawn_s = time.monotonic()
            self._live.update(self._render(), refresh=True)

    def _rate(self) -> float:
        return self._done / max(1e-9, time.monotonic() - self._start_s)

    def _share(self) -> float:
        return self._right / max(1, self._done)

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.markup import escape
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(expand=True, show_edge=False, pad_edge=False)
        table.add_column("", width=1)
        table.add_column("title", ratio=2, no_wrap=True, overflow="ellipsis")
        table.add_column("photo", width=11)
        table.add_column("path", ratio=3, no_wrap=True, overflow="ellipsis")
        table.add_column("prob", justify="right", width=5)
        for item, result in self._rows:
            right = tuple(node["id"] for node in result["path"]) == item.truth
            status = str(result["image"])
            table.add_row(
                "[green]✓[/]" if right else "[red]✗[/]",
                escape(item.title) if item.title else "[dim](no title)[/]",
                MARKS.get(status, f"[yellow]{status}[/]"),
                escape(" > ".join(node["name"] for node in result["path"])),
                f"{result['probability']:.2f}",
            )
        figures = f"{self._done}/{self._total} listings   {self._rate():.0f}/s   {self._share():.0%} of paths right"
        foot = Table.grid(expand=True, padding=(0, 2, 0, 0))
        foot.add_column(ratio=1)
        foot.add_column(no_wrap=True, justify="right")
        foot.add_row(ProgressBar(total=self._total, completed=self._done), figures)
        return Group(table, Text(), foot)
