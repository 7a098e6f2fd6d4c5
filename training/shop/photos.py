"""Photo specifications and their rendering: silhouettes among clutter, as a JPEG of the size asked for.

A `PhotoSpec` is drawn once per listing; `render` makes the same picture at any size, small for training (about 1 ms at
96 px) and several hundred px for the stream. Colours, place, clutter, light and file size are drawn without looking at
the category; the file is padded to its target with comment segments, so its length tells nothing either.

After silhouettes.py and draws.py; before shop.py. Decoding is mmcat.photos' work.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import cos, radians, sin, sqrt
from typing import cast

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageDraw

from training.shop.draws import Draws
from training.shop.silhouettes import Point, outline

Colour = tuple[int, int, int]
_QUALITIES = (80, 55, 30, 12)
_GRAIN_PX = 256
_SEGMENT_BYTES = 65_535  # the longest JPEG segment, its two length bytes included, its marker not
CORNERS = {
    "upper left": (0.27, 0.27),
    "upper right": (0.73, 0.27),
    "lower left": (0.27, 0.73),
    "lower right": (0.73, 0.73),
}
FULL_PX = 640  # the size at which `file_bytes` holds


@dataclass(frozen=True, slots=True)
class Blot:
    """A piece of clutter: an ellipse or a bar, in shares of the frame."""

    round: bool
    x: float
    y: float
    half_width: float
    half_height: float
    colour: Colour


@dataclass(frozen=True, slots=True)
class Thing:
    """A silhouette and how it lies, in shares of the frame.

    Args:
        silhouette: a name of silhouettes.SILHOUETTES.
        size: share of the frame that it covers.
        stretch: its width ÷ its own width, area kept.
        x, y: its middle.
    """

    silhouette: str
    size: float
    stretch: float
    turn_degrees: float
    mirrored: bool
    x: float
    y: float
    colour: Colour


@dataclass(frozen=True, slots=True)
class PhotoSpec:
    """Everything a photo shows, in shares of its frame, so that it can be rendered at any size.

    Args:
        things: the one that is sold, then others that are not.
        aspect: width ÷ height.
        file_bytes: length of the file at FULL_PX.
        grain_seed: where in the grain tile this photo starts.
    """

    things: tuple[Thing, ...]
    aspect: float
    ground: Colour
    ground_below: Colour
    blots: tuple[Blot, ...]
    grain: float
    grain_seed: int
    file_bytes: int


def draw_photo(
    draws: Draws,
    silhouette: str,
    difficulty: float,
    clutter: float,
    file_bytes: tuple[int, int],
    corners: Mapping[str, str] | None = None,
) -> PhotoSpec:
    """Draws a photo of this silhouette; nothing but the outline depends on it.

    Args:
        corners: silhouette by corner where there are several; the first is the one that is sold.
        difficulty: 0 … 1; turns, stretches and moves the silhouette and lowers its contrast.
        clutter: mean number of blots.
        file_bytes: smallest and largest file at FULL_PX.
    """
    ground = _ground(draws)
    colour = _contrasting(draws, ground, 110 - 60 * difficulty)
    size = draws.uniform(0.17, 0.22)
    aspect = draws.uniform(0.87, 1.15)
    stretch = 1 + draws.uniform(-0.25, 0.25) * difficulty
    room_x, room_y = _room(silhouette, size, aspect, stretch)
    off_centre = 0.3 + 0.7 * difficulty  # photographers centre what they sell
    thing = Thing(
        silhouette=silhouette,
        size=size,
        stretch=stretch,
        turn_degrees=draws.uniform(-14, 14) * difficulty,
        mirrored=draws.chance(0.5),
        x=0.5 + off_centre * draws.uniform(-room_x, room_x),
        y=0.5 + off_centre * draws.uniform(-room_y, room_y),
        colour=colour,
    )
    things = tuple(
        _in_corner(draws, thing, corner, name, ground, difficulty) for corner, name in (corners or {}).items()
    )
    return PhotoSpec(
        things=things or (thing,),
        aspect=aspect,
        ground=ground,
        ground_below=cast(Colour, tuple(min(255, max(0, part + draws.between(-25, 25))) for part in ground)),
        blots=tuple(_blot(draws) for _ in range(draws.between(0, round(2 * clutter)))),
        grain=draws.uniform(2, 5),
        grain_seed=draws.between(0, _GRAIN_PX * _GRAIN_PX - 1),
        file_bytes=draws.between(*file_bytes),
    )


def render(spec: PhotoSpec, px: int, target_bytes: int | None = None) -> bytes:
    """The photo as a JPEG.

    Args:
        px: the longer side.
        target_bytes: length of the file; None: `file_bytes` of the spec, brought to this size.

    Returns:
        A JPEG of exactly the target length.

    Raises:
        ValueError: no JPEG of this size is that small.
    """
    if target_bytes is None:
        share = px / FULL_PX  # a smaller photo takes more bytes a pixel
        target_bytes = round(spec.file_bytes * share**1.5 + 1_000 * (1 - share))
    pixels = _pixels(spec, px)
    for quality in _QUALITIES:
        jpeg = simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420")
        missing = target_bytes - len(jpeg)
        if missing == 0 or missing >= 4:
            return _padded(jpeg, missing)
    raise ValueError(f"no {px} px photo fits into {target_bytes} bytes")


def _pixels(spec: PhotoSpec, px: int) -> npt.NDArray[np.uint8]:
    width = px if spec.aspect >= 1 else round(px * spec.aspect)
    height = px if spec.aspect <= 1 else round(px / spec.aspect)
    over = 2 if px <= 256 else 1  # drawn larger and reduced, so that small photos have soft edges
    wide, high = width * over, height * over
    picture = Image.new("RGB", (wide, high), spec.ground)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, round(high * 0.62), wide, high), fill=spec.ground_below)
    for blot in spec.blots:
        corners = (
            (blot.x - blot.half_width) * wide,
            (blot.y - blot.half_height) * high,
            (blot.x + blot.half_width) * wide,
            (blot.y + blot.half_height) * high,
        )
        (pen.ellipse if blot.round else pen.rectangle)(corners, fill=blot.colour)
    for thing in spec.things:
        mask = Image.new("L", (wide, high))
        mask_pen = ImageDraw.Draw(mask)
        for filled, points in _placed(thing, wide, high):
            mask_pen.polygon(points, fill=255 if filled else 0)
        picture.paste(thing.colour, mask=mask)
    if over > 1:
        picture = picture.reduce(over)
    grain = _grain(spec, height, width)
    pixels: npt.NDArray[np.uint8] = np.clip(np.asarray(picture, np.int16) + grain[:, :, None], 0, 255).astype(np.uint8)
    return pixels


def _placed(thing: Thing, wide: int, high: int) -> list[tuple[bool, list[Point]]]:
    """The outline's polygons in pixels."""
    scale = sqrt(thing.size * wide * high)
    across, down = scale * sqrt(thing.stretch), scale / sqrt(thing.stretch)
    if thing.mirrored:
        across = -across
    cosine, sine = cos(radians(thing.turn_degrees)), sin(radians(thing.turn_degrees))
    x0, y0 = thing.x * wide, thing.y * high
    placed = []
    for filled, points in outline(thing.silhouette).parts:
        turned = [(x * across, y * down) for x, y in points]
        placed.append((filled, [(x0 + x * cosine - y * sine, y0 + x * sine + y * cosine) for x, y in turned]))
    return placed


@cache
def _grain_tile() -> npt.NDArray[np.float32]:
    """A square of standard normal noise, the same in every process."""
    return np.random.Generator(np.random.Philox(key=48)).standard_normal((_GRAIN_PX, _GRAIN_PX), np.float32)


def _grain(spec: PhotoSpec, height: int, width: int) -> npt.NDArray[np.int16]:
    row, column = divmod(spec.grain_seed, _GRAIN_PX)
    tile = (np.roll(_grain_tile(), (row, column), (0, 1)) * spec.grain).astype(np.int16)
    return np.tile(tile, (-(-height // _GRAIN_PX), -(-width // _GRAIN_PX)))[:height, :width]


def _padded(jpeg: bytes, missing: int) -> bytes:
    """Adds comment segments of `missing` bytes in all (0, or at least 4) behind the start marker."""
    segments = []
    while missing:
        length = min(missing, _SEGMENT_BYTES + 2)
        if 0 < missing - length < 4:
            length -= 4
        segments.append(b"\xff\xfe" + (length - 2).to_bytes(2, "big") + b"\x20" * (length - 4))
        missing -= length
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def _in_corner(draws: Draws, like: Thing, corner: str, silhouette: str, ground: Colour, difficulty: float) -> Thing:
    """A smaller thing in a corner of the frame, in a colour of its own."""
    x, y = CORNERS[corner]
    return Thing(
        silhouette=silhouette,
        size=like.size * 0.35,
        stretch=like.stretch,
        turn_degrees=draws.uniform(-14, 14) * difficulty,
        mirrored=draws.chance(0.5),
        x=x + draws.uniform(-0.03, 0.03),
        y=y + draws.uniform(-0.03, 0.03),
        colour=_contrasting(draws, ground, 110 - 60 * difficulty),
    )


def _room(silhouette: str, size: float, aspect: float, stretch: float) -> tuple[float, float]:
    """How far the silhouette's middle may lie from the frame's, in shares of width and height."""
    shape = outline(silhouette)
    half_width = shape.half_width * sqrt(size / aspect * stretch)
    half_height = shape.half_height * sqrt(size * aspect / stretch)
    return max(0.0, 0.47 - half_width), max(0.0, 0.47 - half_height)


def _colour(draws: Draws) -> Colour:
    return (draws.between(0, 255), draws.between(0, 255), draws.between(0, 255))


def _lightness(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _contrasting(draws: Draws, ground: Colour, contrast: float) -> Colour:
    """A colour darker than the ground by at least `contrast` of lightness (0 … 255)."""
    while True:
        colour = _colour(draws)
        if _lightness(ground) - _lightness(colour) >= contrast:
            return colour


def _ground(draws: Draws) -> Colour:
    """Light, as shop photos are: where dark things on light and light on dark are mixed, a ResNet50 from random
    weights learns no outlines within the demo's two minutes."""
    return (draws.between(185, 255), draws.between(185, 255), draws.between(185, 255))


def _blot(draws: Draws) -> Blot:
    return Blot(
        round=draws.chance(0.5),
        x=draws.uniform(),
        y=draws.uniform(),
        half_width=draws.uniform(0.02, 0.09),
        half_height=draws.uniform(0.02, 0.09),
        colour=_colour(draws),
    )
