"""Photos: the same picture at every size, the file as long as asked, the same area for every thing."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmcat.photos import decode
from training.shop.draws import Draws, key_of
from training.shop.photos import FULL_PX, PhotoSpec, draw_photo, render
from training.shop.silhouettes import SILHOUETTES

KEY = key_of("photos")


def spec(index: int, silhouette: str = "shoe", difficulty: float = 0.4) -> PhotoSpec:
    return draw_photo(Draws(KEY, index), silhouette, difficulty, 1.5, (60_000, 120_000))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SILHOUETTES), st.sampled_from([64, 96, 160]))
def test_a_small_photo_decodes_and_is_as_long_as_its_specification_says(index: int, silhouette: str, px: int) -> None:
    drawn = spec(index, silhouette)
    jpeg = render(drawn, px)
    assert decode(jpeg, 48).shape == (48, 48, 3)
    twin = render(replace(drawn, things=(replace(drawn.things[0], silhouette="box"),)), px)
    assert len(twin) == len(jpeg)


@pytest.mark.parametrize("index", range(8))
def test_a_full_photo_has_the_size_of_a_real_one(index: int) -> None:
    drawn = spec(index)
    jpeg = render(drawn, FULL_PX)
    assert len(jpeg) == drawn.file_bytes
    assert 60_000 <= len(jpeg) <= 120_000
    with Image.open(io.BytesIO(jpeg)) as image:
        image.load()
        assert max(image.size) == FULL_PX


@pytest.mark.parametrize("target", [70_000, 200_000, 100_001])
def test_any_length_from_the_smallest_on_can_be_asked_for(target: int) -> None:
    jpeg = render(spec(1), 320, target)
    assert len(jpeg) == target
    assert decode(jpeg, 48).shape == (48, 48, 3)


def test_a_length_that_no_photo_has_is_refused() -> None:
    with pytest.raises(ValueError, match="fits"):
        render(spec(1), 320, 500)


@pytest.mark.parametrize("silhouette", SILHOUETTES)
def test_small_and_full_renderings_show_the_same_picture(silhouette: str) -> None:
    drawn = spec(3, silhouette)
    small, full = (decode(render(drawn, px), 48).astype(float) for px in (96, FULL_PX))
    other = decode(render(spec(4, silhouette), 96), 48).astype(float)
    assert np.abs(small - full).mean() < 10
    assert np.abs(small - other).mean() > 20


@pytest.mark.parametrize("silhouette", SILHOUETTES)
def test_every_thing_covers_the_share_that_was_drawn(silhouette: str) -> None:
    black, white = (0, 0, 0), (255, 255, 255)
    for index in range(5):
        drawn = spec(index, silhouette)
        thing = replace(drawn.things[0], colour=black)
        drawn = replace(drawn, things=(thing,), ground=white, ground_below=white, blots=(), grain=0.0, aspect=1.0)
        with Image.open(io.BytesIO(render(drawn, 240))) as image:
            covered = 1 - np.asarray(image.convert("L")).mean() / 255
        assert covered == pytest.approx(thing.size, rel=0.05)


def test_nothing_but_the_outline_and_its_room_depends_on_the_thing() -> None:
    shoe, guitar = spec(9, "shoe"), spec(9, "guitar")
    (thing,), (other,) = shoe.things, guitar.things
    assert replace(shoe, things=(replace(thing, silhouette="guitar", x=other.x, y=other.y),)) == guitar


def test_of_several_things_each_lies_in_its_corner() -> None:
    corners = {"lower right": "shoe", "upper left": "guitar"}
    drawn = draw_photo(Draws(KEY, 5), "shoe", 0.4, 0.0, (60_000, 120_000), corners)
    assert [thing.silhouette for thing in drawn.things] == ["shoe", "guitar"]
    with Image.open(io.BytesIO(render(replace(drawn, grain=0.0), 240))) as image:
        dark = np.asarray(image.convert("L")).astype(float) < 150
    quarter = {name: dark[rows, columns].mean() for name, (rows, columns) in {
        "upper left": (slice(0, 120), slice(0, 120)), "upper right": (slice(0, 120), slice(120, None)),
        "lower left": (slice(120, None), slice(0, 120)), "lower right": (slice(120, None), slice(120, None)),
    }.items()}  # fmt: skip
    assert min(quarter["upper left"], quarter["lower right"]) > 0.1
    assert max(quarter["upper right"], quarter["lower left"]) < 0.05
