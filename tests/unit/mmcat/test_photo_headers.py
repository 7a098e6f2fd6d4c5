"""A photo's structure is read before anything unpacks it; what is built to keep a decoder busy is refused."""

import io
import struct
import zlib

import pytest
import simplejpeg
from PIL import Image

from mmcat import photos
from mmcat.errors import PhotoError
from mmcat.photo_headers import MAX_BLOCKS, MAX_SCANS, PhotoHeader, read_header


def encoded(format_: str, size: tuple[int, int] = (80, 60), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (9, 9, 9)).save(buffer, format_, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


JPEG, PNG, GIF = encoded("JPEG"), encoded("PNG"), encoded("GIF")
GIF_BLOCKS_AT = 13 + 3 * (2 << (GIF[10] & 7))


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),  # the extended kind
    ],
)
def test_size_is_read_from_the_first_bytes(format_: str, options: dict[str, object]) -> None:
    assert read_header(encoded(format_, (80, 60), **options)) == PhotoHeader(format_, 80 * 60)


def many_jpeg_blocks(count: int) -> bytes:
    block = b"\xff\xe1" + struct.pack(">H", 18) + b"Exif\0\0" + b"x" * 10
    return JPEG[:2] + block * count + JPEG[2:]


def many_png_blocks(count: int) -> bytes:
    return PNG[:33] + png_chunk(b"abCd") * count + PNG[33:]


def many_gif_blocks(count: int) -> bytes:
    return GIF[:GIF_BLOCKS_AT] + b"\x21\xfe\x01c\0" * count + GIF[GIF_BLOCKS_AT:]


@pytest.mark.parametrize("build", [many_jpeg_blocks, many_png_blocks, many_gif_blocks])
def test_thousands_of_blocks_are_refused_and_hundreds_are_not(build: object) -> None:
    assert callable(build)
    assert photos.decode(build(MAX_BLOCKS - 100), 32).shape == (32, 32, 3)
    for count in (MAX_BLOCKS + 1, 100_000):
        with pytest.raises(PhotoError, match="blocks") as caught:
            photos.decode(build(count), 32)
        assert caught.value.code == "refused"


def with_scans(size: tuple[int, int], more: int) -> bytes:
    """A progressive JPEG whose last scan stands there `more` times again."""
    data = encoded("JPEG", size, progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * more + b"\xff\xd9"


@pytest.mark.parametrize(("size", "more"), [((80, 60), MAX_SCANS), ((8000, 6000), 10)])
def test_scans_without_end_are_refused_by_number_and_by_pixels(size: tuple[int, int], more: int) -> None:
    assert read_header(with_scans(size, 5)).format == "JPEG"
    with pytest.raises(PhotoError, match="scans") as caught:
        read_header(with_scans(size, more))
    assert caught.value.code == "refused"


def test_scans_of_one_component_each_are_counted_in_a_sequential_photo_too() -> None:
    scan_of_one = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"x" * 10
    before_pixels = JPEG[: JPEG.index(b"\xff\xda")]
    assert read_header(before_pixels + scan_of_one * MAX_SCANS).format == "JPEG"
    all_in_one_later = JPEG[len(before_pixels) : -2]
    for scans in (scan_of_one * (MAX_SCANS + 1), scan_of_one + all_in_one_later + scan_of_one * MAX_SCANS):
        with pytest.raises(PhotoError, match="scans"):
            read_header(before_pixels + scans)


def test_what_follows_the_only_scan_of_a_sequential_photo_is_not_read_by_a_decoder() -> None:
    scan = JPEG[JPEG.index(b"\xff\xda") : -2]
    repeated = JPEG[:-2] + scan * 10_000 + b"\xff\xd9"
    assert read_header(repeated) == PhotoHeader("JPEG", 80 * 60)
    with pytest.raises(ValueError, match="more than one scan"):
        simplejpeg.decode_jpeg(repeated)
    with pytest.raises(PhotoError, match="undecodable"):
        photos.decode(repeated, 32)


def test_scans_of_other_pictures_in_the_file_do_not_count() -> None:
    assert read_header(JPEG + with_scans((80, 60), MAX_SCANS)) == PhotoHeader("JPEG", 80 * 60)


def test_a_bomb_in_a_webp_is_refused_before_its_decoder_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("a library was asked"))
    small = encoded("WEBP", lossless=True)
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xfe\x3f\0\xfe\x3f\0"
    body = b"WEBP" + canvas + small[12:]
    with pytest.raises(PhotoError, match="refused"):
        photos.decode(b"RIFF" + struct.pack("<I", len(body)) + body, 32)


def test_run_lengths_in_a_bitmap_are_undecodable() -> None:
    data = bytearray(encoded("BMP"))
    data[30:34] = struct.pack("<I", 1)
    with pytest.raises(PhotoError, match="compressed bitmap"):
        photos.decode(bytes(data), 32)


@pytest.mark.parametrize("marker", [0x02, 0xC8, 0xF0])
def test_markers_on_which_decoders_disagree_are_undecodable(marker: int) -> None:
    with pytest.raises(PhotoError, match="reserved marker"):
        photos.decode(JPEG[:2] + bytes([0xFF, marker, 0, 4, 0, 0]) + JPEG[2:], 32)
