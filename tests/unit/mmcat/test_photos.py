"""Photos of every kind a shop sends become the pixels one expects, and bombs are refused by their header."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from mmcat import photos
from mmcat.errors import PhotoError

Pixels = npt.NDArray[np.uint8]


def _picture(width: int = 80, height: int = 60) -> Pixels:
    """A smooth picture whose corners differ: lossy formats keep it, and a wrong turn shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - (x + y) / 2], axis=2).astype(np.uint8)


def _encode(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def _reference(pixels: Pixels, px: int) -> Pixels:
    """Pad to a white square by torchvision's own resize."""
    height, width = pixels.shape[:2]
    scale = px / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    small = tv.resize(torch.from_numpy(pixels).permute(2, 0, 1), size, antialias=True).permute(1, 2, 0).numpy()
    square = np.full((px, px, 3), 255, np.uint8)
    top, left = (px - size[0]) // 2, (px - size[1]) // 2
    square[top : top + size[0], left : left + size[1]] = small
    return square


def _distance(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize(
    ("format_", "options", "most"),
    [
        ("PNG", {}, 0.0),
        ("BMP", {}, 0.0),
        ("WEBP", {"lossless": True}, 0.0),
        ("JPEG", {"quality": 95}, 2.0),
        ("JPEG", {"quality": 95, "progressive": True}, 2.0),
        ("JPEG", {"quality": 95, "subsampling": 0, "optimize": True}, 2.0),
        ("WEBP", {"quality": 95}, 3.0),
        ("AVIF", {"quality": 95}, 3.0),
    ],
)
@pytest.mark.parametrize("px", [32, 48, 128])
def test_every_format_gives_the_same_picture(format_: str, options: dict[str, object], most: float, px: int) -> None:
    if format_ not in Image.registered_extensions().values():
        pytest.skip(f"this Pillow has no {format_}")
    picture = _picture()
    decoded = photos.decode(_encode(Image.fromarray(picture), format_, **options), px)
    assert decoded.shape == (px, px, 3)
    assert decoded.dtype == np.uint8
    assert decoded.flags["C_CONTIGUOUS"]
    assert _distance(decoded, _reference(picture, px)) <= most


def test_real_shop_photos_are_within_one_level_of_pillow_and_torchvision(test_data: Path) -> None:
    files = sorted((test_data / "photos_large").glob("*.jpg"))
    assert len(files) == 30
    for file in files:
        full = np.array(Image.open(file).convert("RGB"))
        assert np.abs(photos.decode(file.read_bytes(), 224).astype(int) - _reference(full, 224)).max() <= 1


def test_plain_jpegs_take_the_fast_road(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    real = simplejpeg.decode_jpeg

    def decode_jpeg(data: bytes, colorspace: str, **least: int) -> Pixels:
        taken.append(colorspace)
        pixels: Pixels = real(data, colorspace, **least)
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode_jpeg)
    for mode, options in [("RGB", {}), ("RGB", {"progressive": True}), ("L", {})]:
        photos.decode(_encode(Image.fromarray(_picture()).convert(mode), "JPEG", **options), 32)
    assert taken == ["RGB"] * 3


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_on_both_roads(format_: str, orientation: int) -> None:
    turn = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    stored = Image.fromarray(_picture())
    for step in turn:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"lossless": True} if format_ == "WEBP" else {"quality": 95}
    decoded = photos.decode(_encode(stored, format_, exif=exif.tobytes(), **options), 40)
    assert _distance(decoded, _reference(_picture(), 40)) < 2.5


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"subsampling": 0}),
        ("RGB", {"progressive": True}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
def test_scaled_decoding_shows_the_same_photo(
    mode: str, options: dict[str, object], orientation: int, fit: photos.Fit
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(_picture(800, 600)).convert(mode)
    data = _encode(picture, "JPEG", quality=95, exif=exif.tobytes(), **options)
    whole, scaled = (photos.decode(data, 96, fit, scaled=scaled) for scaled in (False, True))
    assert _distance(scaled, whole) < 1


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "BMP"])
def test_scaled_decoding_changes_jpegs_alone(format_: str) -> None:
    data = _encode(Image.fromarray(_picture(800, 600)), format_)
    assert np.array_equal(photos.decode(data, 96, scaled=True), photos.decode(data, 96))


def test_scaled_decoding_is_close_on_real_shop_photos(test_data: Path) -> None:
    for file in sorted((test_data / "photos_large").glob("*.jpg")):
        data = file.read_bytes()
        assert _distance(photos.decode(data, 224, scaled=True), photos.decode(data, 224)) < 4


def test_transparency_lies_on_white() -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[:10] = (255, 0, 0, 255)  # below: black, fully transparent
    for image in (Image.fromarray(pixels), Image.fromarray(pixels).quantize(4)):
        decoded = photos.decode(_encode(image, "PNG"), 20)
        assert decoded[2, 10].tolist() == [255, 0, 0]
        assert decoded[17, 10].tolist() == [255, 255, 255]
    grey = Image.fromarray(pixels).convert("LA")
    assert photos.decode(_encode(grey, "PNG"), 20)[17, 10].tolist() == [255, 255, 255]


def test_the_fill_is_used_for_padding_and_under_transparency() -> None:
    clear = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    assert (photos.decode(_encode(clear, "PNG"), 20, fill=7) == 7).all()


def test_a_palette_gif_gives_its_first_frame() -> None:
    frames = [Image.new("P", (10, 10), index) for index in (1, 2)]
    for frame in frames:
        frame.putpalette([0, 0, 0, 200, 10, 20, 0, 255, 0])
    data = _encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert photos.decode(data, 8)[4, 4].tolist() == [200, 10, 20]


def test_cmyk_jpegs_are_decoded() -> None:
    data = _encode(Image.fromarray(_picture()).convert("CMYK"), "JPEG", quality=95)
    assert _distance(photos.decode(data, 48), _reference(_picture(), 48)) < 6


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(64, 0)
    decoded = photos.decode(_encode(Image.fromarray(ramp), "PNG"), 64)
    assert _distance(decoded[:, :, 0], (ramp >> 8).astype(np.uint8)) < 1


def test_crop_shows_the_centre_square() -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (10, 200, 30)
    decoded = photos.decode(_encode(Image.fromarray(wide), "PNG"), 20, fit="crop")
    assert (decoded == (10, 200, 30)).all()


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (33, 31)])
def test_any_shape_fits(fit: photos.Fit, size: tuple[int, int]) -> None:
    assert photos.decode(_encode(Image.new("RGB", size), "PNG"), 32, fit).shape == (32, 32, 3)


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 5_001), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def unpacked(*_: object) -> None:
        raise AssertionError("the bomb was unpacked")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", unpacked)
    with pytest.raises(PhotoError) as caught:
        photos.decode(_png_header(*size), 32)
    assert caught.value.code == "refused"


def test_a_jpeg_bomb_is_refused_before_simplejpeg_unpacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _encode(Image.fromarray(_picture(80, 60)), "JPEG")
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("the bomb was unpacked"))
    for scaled in (False, True):  # by the pixels it holds, not by those that would be unpacked
        with pytest.raises(PhotoError, match="refused"):
            photos.decode(data, 32, max_pixels=80 * 60 - 1, scaled=scaled)


def test_exactly_the_limit_is_decoded() -> None:
    assert photos.decode(_encode(Image.new("L", (80, 60)), "JPEG"), 32, max_pixels=80 * 60).shape == (32, 32, 3)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_truncated_photo_is_undecodable(format_: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = _encode(Image.fromarray(noise), format_)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(PhotoError) as caught:
            photos.decode(data[: int(len(data) * share)], 32)
        assert caught.value.code == "undecodable"


def test_a_jpeg_with_rubbish_that_pillow_survives_is_decoded() -> None:
    data = _encode(Image.fromarray(_picture()), "JPEG", quality=95)
    assert _distance(photos.decode(data + b"tail", 48), _reference(_picture(), 48)) < 2


@pytest.mark.parametrize("data", [b"", b"\x00", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0", b"II*\x00" + b"\0" * 64])
def test_what_is_no_photo_is_undecodable(data: bytes) -> None:
    with pytest.raises(PhotoError, match="undecodable"):
        photos.decode(data, 32)


@pytest.mark.parametrize("kind", [RuntimeError, SyntaxError, ZeroDivisionError, struct.error, MemoryError, UserWarning])
def test_whatever_a_decoder_trips_over_is_undecodable(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow's decoders raise such things on damaged files; which file raises which differs by version.
    def trip(*_: object) -> None:
        raise kind("tripped")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", trip)
    with pytest.raises(PhotoError, match="undecodable"):
        photos.decode(_encode(Image.new("RGB", (8, 8)), "PNG"), 32)
