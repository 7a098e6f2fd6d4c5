"""What a measurement found, as a table with bars for a terminal, or as JSON."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmcat.cli.benchmarks.intervals import Ratio

BAR = 30


@dataclass(frozen=True)
class Report:
    """Figures by name (unit in the name), and for the whole service: stages and what holds it up.

    Args:
        stage_seconds: seconds per listing that each stage worked.
        busy: mean busy share of each stage.
        line: names the bottleneck; "" where only one part was measured.
    """

    what: str
    figures: Mapping[str, Ratio]
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    busy: Mapping[str, float] = field(default_factory=dict)
    held: tuple[float, float] = (0.0, 0.0)
    line: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data, the machine included."""
        return {
            "what": self.what,
            "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()[0]},
            "figures": {
                name: {"median": one.median, "low": one.low, "high": one.high, "runs": one.pairs}
                for name, one in self.figures.items()
            },
            "stages": {
                stage: {"seconds_per_listing": self.stage_seconds.get(stage, 0.0), "busy_share": share}
                for stage, share in self.busy.items()
            },
            "held": {"most": self.held[0], "limit": self.held[1]},
            "bottleneck": self.line,
        }

    def as_text(self) -> str:
        """Lines for a terminal."""
        width = max(len(name) for name in (*self.figures, *self.busy))
        lines = [self.what]
        for name, one in self.figures.items():
            spread = f"95 % {number(one.low)} to {number(one.high)}, {one.pairs} runs" if one.pairs > 1 else "one run"
            lines.append(f"  {name:<{width}}  {number(one.median):>10}   {spread}")
        for stage, share in self.busy.items():
            each = f"{1_000 * self.stage_seconds.get(stage, 0.0):.3f} ms per listing"
            lines.append(f"  {stage:<{width}}  {share:>9.0%}   {bar(share)} {each}")
        if self.line:
            lines.append(f"  {self.line}")
        return "\n".join(lines)


def bar(share: float, width: int = BAR) -> str:
    """A share as a bar of `width` places."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "·" * (width - full)


def number(value: float) -> str:
    """Three digits that count, thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
