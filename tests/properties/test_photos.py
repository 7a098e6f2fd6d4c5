"""Any bytes end in pixels of the right shape or in a PhotoError: nothing else, whatever a stranger sends."""

import contextlib
import io
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmcat import photos
from mmcat.errors import PhotoError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


@cache
def _whole(format_: str, mode: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 31, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format_, exif=exif.tobytes())
    return buffer.getvalue()


def _decodes_or_refuses(data: bytes, px: int, fit: photos.Fit) -> None:
    for scaled in (False, True):
        with contextlib.suppress(PhotoError):
            pixels = photos.decode(data, px, fit, max_pixels=100_000, scaled=scaled)
            assert pixels.shape == (px, px, 3)
            assert pixels.dtype == np.uint8


@settings(deadline=None)  # a shared machine's clock proves nothing here
@given(st.binary(max_size=400), st.integers(1, 40), st.sampled_from(["pad", "crop"]))
def test_any_bytes(data: bytes, px: int, fit: photos.Fit) -> None:
    _decodes_or_refuses(data, px, fit)


@settings(deadline=None)
@given(st.data())
def test_damaged_photos_of_every_format(data: st.DataObject) -> None:
    format_ = data.draw(st.sampled_from(FORMATS))
    body = bytearray(_whole(format_, data.draw(st.sampled_from(["RGB", "L"] if format_ != "WEBP" else ["RGB"]))))
    for _ in range(data.draw(st.integers(0, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(body)), st.integers(0, len(body))))
    inserted = data.draw(st.binary(max_size=8))
    at = data.draw(st.integers(0, cut))
    _decodes_or_refuses(bytes(body[:at]) + inserted + bytes(body[at:cut]), 24, "pad")


@settings(deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 300), st.sampled_from(["pad", "crop"]))
def test_scaled_decoding_gives_at_least_what_is_wanted_and_no_more_than_there_is(
    width: int, height: int, px: int, fit: photos.Fit
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (90, 90, 90)).save(buffer, "JPEG")
    unpacked: list[tuple[int, int]] = []

    def decode_jpeg(*given: Any, **least: int) -> photos.Pixels:
        pixels: photos.Pixels = simplejpeg_decode(*given, **least)
        unpacked.append(pixels.shape[:2])
        return pixels

    simplejpeg_decode = simplejpeg.decode_jpeg
    with mock.patch.object(simplejpeg, "decode_jpeg", decode_jpeg):
        square = photos.decode(buffer.getvalue(), px, fit, fill=90, scaled=True)
    [(rows, columns)] = unpacked
    scale = px / (max(width, height) if fit == "pad" else min(width, height))
    assert min(height, round(height * scale)) <= rows <= height
    assert min(width, round(width * scale)) <= columns <= width
    assert np.abs(square.astype(int) - 90).max() <= 1


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64), st.sampled_from(["pad", "crop"]))
def test_every_size_of_photo_fits_every_size_of_network(width: int, height: int, px: int, fit: photos.Fit) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (0, 0, 0)).save(buffer, "BMP")
    pixels = photos.decode(buffer.getvalue(), px, fit)
    assert pixels.shape == (px, px, 3)
    shown = (pixels == 0).all(axis=2)
    assert shown.any()
    if fit == "crop" or width == height:
        assert shown.all()


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_reduced_and_enlarged_photos_have_pillows_pixels(width: int, height: int, px: int, seed: int) -> None:
    """Both round twice, by half a level at most: in noise, which photos are not, they may be 2 levels apart."""
    noise = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "BMP")
    square = photos.decode(buffer.getvalue(), px).astype(int)
    scale = px / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (px - size[0]) // 2, (px - size[1]) // 2
    pillow = np.asarray(noise.resize(size, Image.Resampling.BILINEAR))
    assert np.abs(square[top : top + size[1], left : left + size[0]] - pillow).max() <= 2
