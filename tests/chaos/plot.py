"""Draws curves below one another over one axis of minutes, with the moments of faults as lines; Pillow is enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

WIDTH: Final = 1100
HEIGHT: Final = 170
LEFT: Final = 70
TOP: Final = 26
BOTTOM: Final = 18
INK, GRID, CURVE, FAULT = "#222222", "#dddddd", "#1f5fa8", "#d9a0a0"

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One curve: (minute, value) in order of time."""

    title: str
    points: Sequence[Point]


def draw(panels: Sequence[Panel], faults: Sequence[tuple[float, str]], file: Path) -> None:
    """Write the panels as a picture."""
    image = Image.new("RGB", (WIDTH, HEIGHT * len(panels) + 24), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default()
    longest = max((minute for panel in panels for minute, _ in panel.points), default=1.0) or 1.0
    for number, panel in enumerate(panels):
        _panel(pen, font, panel, faults, longest, number * HEIGHT)
    said = f"minutes; red lines: {', '.join(sorted({name for _, name in faults}))}"
    pen.text((LEFT, HEIGHT * len(panels) + 4), said, INK, font)
    image.save(file)


def _panel(
    pen: ImageDraw.ImageDraw,
    font: "ImageFont.ImageFont | ImageFont.FreeTypeFont",
    panel: Panel,
    faults: Sequence[tuple[float, str]],
    longest: float,
    above: int,
) -> None:
    top = max((value for _, value in panel.points), default=1.0) * 1.1 or 1.0
    high, low = above + TOP, above + HEIGHT - BOTTOM

    def place(minute: float, value: float) -> Point:
        return LEFT + minute / longest * (WIDTH - LEFT - 10), low - value / top * (low - high)

    pen.text((LEFT, above + 8), panel.title, INK, font)
    for step in range(5):
        value = top * step / 4
        _, y = place(0, value)
        pen.line((LEFT, y, WIDTH - 10, y), GRID)
        pen.text((4, y - 6), f"{value:,.0f}", INK, font)
        x, _ = place(longest * step / 4, 0)
        pen.text((x - 8, low + 3), f"{longest * step / 4:.1f}", INK, font)
    for minute, _ in faults:
        x, _ = place(minute, 0)
        pen.line((x, high, x, low), FAULT)
    if len(panel.points) > 1:
        pen.line([place(*point) for point in panel.points], CURVE, 2)
