"""Plots as SVG text: curves on two axes, and values with their intervals. No plotting library: a few lines are enough
for these, stay sharp, weigh 3 kB, and follow the page's colours.

After the figures; before evaluation.py and the comparison, which place them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#2f6fde", "#d9772b", "#2f9e6e", "#a24bc4", "#8a8f98")
_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 300, 52, 12, 12, 44
_POINTS = 400  # of a curve: more than a screen shows
_STYLE = "font-family='system-ui, sans-serif' font-size='12' fill='currentColor'"


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot; `dots` draws its points as well, `dashed` marks a reference."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    dots: bool = False
    dashed: bool = False


def curves(lines: Sequence[Curve], x_label: str, y_label: str, y_top: float = 1.0) -> str:
    """Curves over 0 … 1 on the x axis and 0 … `y_top` on the y axis."""
    parts = [_frame(x_label, y_label, y_top)]
    for place, line in enumerate(lines):
        colour = COLOURS[-1] if line.dashed else COLOURS[place % (len(COLOURS) - 1)]
        points = [_at(x, y, y_top) for x, y in _thinned(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = " stroke-dasharray='5 4'" if line.dashed else ""
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'{dash}/>")
        if line.dots:
            parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{colour}'/>" for x, y in points]
        if len(lines) > 1:
            parts.append(_legend(place, line.name, colour, dash))
    return _svg(_W, _H, parts, f"{y_label} over {x_label}")


def intervals(rows: Sequence[tuple[str, float, float, float]], label: str) -> str:
    """A dot with its interval per row (name, value, low, high), on one axis that spans them all."""
    low, high = min((row[2] for row in rows), default=0.0), max((row[3] for row in rows), default=1.0)
    margin = 0.05 * (high - low) or 0.01
    low, high = low - margin, high + margin
    name_width = 8 + 7 * max((len(row[0]) for row in rows), default=0)
    width, height = name_width + 420, 26 * len(rows) + 44

    def across(value: float) -> float:
        return name_width + (value - low) / (high - low) * 400

    parts = []
    for tick in _ticks(low, high):
        x, bottom = across(tick), height - 36
        parts.append(f"<line x1='{x:.1f}' y1='4' x2='{x:.1f}' y2='{bottom}' stroke='currentColor' opacity='.15'/>")
        parts.append(f"<text x='{x:.1f}' y='{bottom + 16}' text-anchor='middle' {_STYLE}>{_number(tick)}</text>")
    for place, (name, value, lower, upper) in enumerate(rows):
        y = 18 + 26 * place
        ends = f"x1='{across(lower):.1f}' x2='{across(upper):.1f}'"
        parts.append(f"<text x='{name_width - 10}' y='{y + 4}' text-anchor='end' {_STYLE}>{escape(name)}</text>")
        parts.append(f"<line {ends} y1='{y}' y2='{y}' stroke='{COLOURS[0]}' stroke-width='2'/>")
        parts.append(f"<circle cx='{across(value):.1f}' cy='{y}' r='4.5' fill='{COLOURS[0]}'/>")
    parts.append(f"<text x='{name_width + 200}' y='{height - 4}' text-anchor='middle' {_STYLE}>{escape(label)}</text>")
    return _svg(width, height, parts, label)


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    opening = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' role='img'>"
    return "\n".join([opening, f"<title>{escape(title)}</title>", *parts, "</svg>"])


def _at(x: float, y: float, y_top: float) -> tuple[float, float]:
    height = _H - _TOP - _BOTTOM
    return _LEFT + x * (_W - _LEFT - _RIGHT), _TOP + (1 - min(y, y_top) / y_top) * height


def _frame(x_label: str, y_label: str, y_top: float) -> str:
    parts = []
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x, bottom = _at(tick, 0.0, y_top)
        parts.append(f"<line x1='{x:.1f}' y1='{_TOP}' x2='{x:.1f}' y2='{bottom}' stroke='currentColor' opacity='.12'/>")
        parts.append(f"<text x='{x:.1f}' y='{bottom + 17}' text-anchor='middle' {_STYLE}>{_number(tick)}</text>")
    for tick in _ticks(0.0, y_top):
        x, y = _at(0.0, tick, y_top)
        end = _W - _RIGHT
        parts.append(f"<line x1='{x}' y1='{y:.1f}' x2='{end}' y2='{y:.1f}' stroke='currentColor' opacity='.12'/>")
        parts.append(f"<text x='{x - 7}' y='{y + 4:.1f}' text-anchor='end' {_STYLE}>{_number(tick)}</text>")
    middle_x, middle_y = (_LEFT + _W - _RIGHT) / 2, (_TOP + _H - _BOTTOM) / 2
    parts.append(f"<text x='{middle_x}' y='{_H - 6}' text-anchor='middle' {_STYLE}>{escape(x_label)}</text>")
    turned = f"transform='rotate(-90 14 {middle_y})'"
    parts.append(f"<text x='14' y='{middle_y}' text-anchor='middle' {turned} {_STYLE}>{escape(y_label)}</text>")
    return "\n".join(parts)


def _legend(place: int, name: str, colour: str, dash: str) -> str:
    y = _TOP + 14 + 18 * place
    line = f"<line x1='{_LEFT + 10}' y1='{y}' x2='{_LEFT + 32}' y2='{y}' stroke='{colour}' stroke-width='2'{dash}/>"
    return f"{line}<text x='{_LEFT + 38}' y='{y + 4}' {_STYLE}>{escape(name)}</text>"


def _thinned(line: Curve) -> list[tuple[float, float]]:
    points = list(zip(line.xs, line.ys, strict=True))
    step = max(1, len(points) // _POINTS)
    return points[::step] + (points[-1:] if step > 1 else [])


def _ticks(low: float, high: float) -> list[float]:
    """Five or so round values from `low` to `high`."""
    raw = (high - low) / 7
    power = 1.0
    while power > raw:
        power /= 10
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = int(-(-low // step))
    return [value for number in range(first, first + 12) if (value := number * step) <= high + step * 1e-6]


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") or "0"
