"""The outlines of the things the shop sells: what the photo tells, and all it tells.

Each silhouette is a list of polygons in a box of any unit, y downwards; "-" parts are holes. All are scaled to the same
area (photos.py), because boosted trees on a colour histogram would otherwise read the thing from how much of the photo
it fills. Twelve things: a ResNet50 from random weights learns a dozen upright silhouettes within the demo's two minutes
and not two dozen.

Before photos.py.
"""

from dataclasses import dataclass
from functools import cache
from math import cos, pi, sin, sqrt

from PIL import Image, ImageDraw

Point = tuple[float, float]
_RASTER_PX = 256  # for measuring areas: the error is below 1 %


@dataclass(frozen=True, slots=True)
class Outline:
    """Polygons of one silhouette, centred on the middle of their box and scaled to area 1; holes cut what is before."""

    parts: tuple[tuple[bool, tuple[Point, ...]], ...]  # (filled, points)
    half_width: float
    half_height: float


def _ellipse(x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 2.0) -> list[Point]:
    """Points of an arc from start·pi to stop·pi."""
    steps = 28
    angles = [pi * (start + (stop - start) * step / steps) for step in range(steps + 1)]
    return [(x + rx * cos(angle), y + ry * sin(angle)) for angle in angles]


def _points(text: str) -> list[Point]:
    """Reads "x,y x,y …"."""
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


def _box(x0: float, y0: float, x1: float, y1: float) -> list[Point]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _ring(x: float, y: float, rx: float, ry: float, width: float, start: float, stop: float) -> list[Point]:
    return _ellipse(x, y, rx, ry, start, stop) + _ellipse(x, y, rx - width, ry - width, stop, start)


_SHAPES: dict[str, list[tuple[str, list[Point]]]] = {
    "box": [("+", _box(0, 0, 10, 9)), ("-", _box(4.4, 0, 5.6, 2.6)), ("-", _box(0, 2.9, 10, 3.3))],
    "shoe": [
        ("+", _points("0,2 0.4,0.3 3.2,0.3 4.2,1.6 6.8,2.9 9.4,3.4 10,4.4 10,5.2 0,5.2")),
        ("+", _box(-0.1, 5.2, 10.2, 6)),
    ],
    "shirt": [
        (
            "+",
            _points(
                "3.6,0.3 4.4,1 5.6,1 6.4,0.3 8,0.9 10,3.4 8.5,4.6 7.5,3.5 7.5,10 2.5,10 2.5,3.5 1.5,4.6 0,3.4 2,0.9"
            ),
        )
    ],
    "trousers": [("+", _points("2.4,0 7.6,0 8.6,10 5.9,10 5,3 4.1,10 1.4,10"))],
    "bag": [("+", _points("1,4 9,4 10,10 0,10")), ("+", _ring(5, 4.2, 2.9, 3.6, 0.8, 1, 2))],
    "bottle": [
        ("+", _box(4, 0, 6, 1.2)),
        ("+", _points("4.2,1.2 5.8,1.2 5.8,2.4 7.1,4 7.1,10 2.9,10 2.9,4 4.2,2.4")),
    ],
    "chair": [
        ("+", _box(2, 0, 3.3, 10)),
        ("+", _box(2, 0.2, 3.3, 5)),
        ("+", _box(2, 4.9, 8, 6.4)),
        ("+", _box(6.8, 6.2, 8, 10)),
    ],
    "dress": [("+", _points("3.6,0 4.4,1.4 5.6,1.4 6.4,0 6.9,2 6.1,4.2 9.3,10 0.7,10 3.9,4.2 3.1,2"))],
    "cap": [("+", _ellipse(4.6, 5, 3.9, 4.2, 1, 2)), ("+", _points("0.7,5 8.5,5 11.4,6.2 11.2,6.8 0.7,6"))],
    "mug": [("+", _box(1, 1, 7, 9)), ("+", _ring(7, 5, 3, 2.9, 1, 1.5, 2.5))],
    "lamp": [
        ("+", _points("3.4,0 6.6,0 8.8,4.6 1.2,4.6")),
        ("+", _box(4.5, 4.6, 5.5, 9)),
        ("+", _ellipse(5, 9.4, 2.6, 1)),
    ],
    "umbrella": [
        ("+", _ellipse(5, 5, 5, 4.6, 1, 2)),
        ("+", _box(4.6, 5, 5.4, 9)),
        ("+", _ring(5.9, 8.8, 1.3, 1.5, 0.75, 0, 1)),
    ],
    "guitar": [
        ("+", _ellipse(5, 8.6, 2.6, 2.2)),
        ("+", _ellipse(5, 6, 1.9, 1.7)),
        ("-", _ellipse(5, 7.1, 0.7, 0.7)),
        ("+", _box(4.55, 0.6, 5.45, 5.6)),
        ("+", _box(4.1, 0, 5.9, 1.3)),
    ],
}

SILHOUETTES = tuple(_SHAPES)


@cache
def outline(name: str) -> Outline:
    """The silhouette of this name with area 1, centred on (0, 0)."""
    parts = _SHAPES[name]
    xs = [x for _, points in parts for x, _ in points]
    ys = [y for _, points in parts for _, y in points]
    x0, y0, width, height = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    unit = _RASTER_PX / max(width, height)
    raster = Image.new("L", (_RASTER_PX + 1, _RASTER_PX + 1))
    pen = ImageDraw.Draw(raster)
    for sign, points in parts:
        pen.polygon([((x - x0) * unit, (y - y0) * unit) for x, y in points], fill=int(sign == "+"))
    scale = unit / sqrt(sum(raster.tobytes()))
    middle_x, middle_y = x0 + width / 2, y0 + height / 2
    scaled = tuple(
        (sign == "+", tuple(((x - middle_x) * scale, (y - middle_y) * scale) for x, y in points))
        for sign, points in parts
    )
    return Outline(scaled, width * scale / 2, height * scale / 2)
