"""An AVIF is judged by what its streams unpack to, wherever they lie in the file and whatever it states.

Every forgery is a file that Pillow decodes: with a limit that admits it it goes through.
"""

import contextlib
import io
import struct

import numpy as np
import pytest
from PIL import Image, features

from mmcat import photos
from mmcat.avif_header import MAX_BOXES, MAX_PICTURES, MAX_UNITS, avif_pixels
from mmcat.errors import PhotoError
from mmcat.photo_headers import read_header

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")

SIZE = WIDTH, HEIGHT = 80, 60
PIXELS = WIDTH * HEIGHT
ROUNDED = 128 * 64  # what frames of that size may have that say it themselves


def picture(mode: str = "RGB", seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 4), np.uint8)
    return Image.fromarray(noise).convert(mode)


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "AVIF", **options)
    return buffer.getvalue()


PLAIN = encoded(picture())
ANIMATED = encoded(picture(), save_all=True, append_images=[picture(seed=1), picture(seed=2)])
STREAM = PLAIN[PLAIN.index(b"mdat") + 4 :]


def stating(data: bytes, width: int, height: int) -> bytes:
    """The same with other sizes in every box that states one."""
    for kind, at in ((b"ispe", 8), (b"tkhd", 80)):
        size = struct.pack(">II" if kind == b"ispe" else ">HxxHxx", width, height)
        place = data.find(kind)
        while place >= 0:
            start = place + (92 if kind == b"tkhd" and data[place + 4] else at)
            data = data[:start] + size + data[start + 8 :]
            place = data.find(kind, place + 1)
    return data


def box(kind: bytes, *parts: bytes, full: bytes = b"") -> bytes:
    content = full + b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def items(streams: list[bytes], *, where: str = "mdat", kinds: tuple[bytes, ...] = (b"av01",)) -> bytes:
    """A file of its own writing around streams; the first is the picture.

    Args:
        kinds: of the items, the last also of those that follow.
        where: "mdat" (one piece, 32 bits), "pieces" (of ten bytes), "far" (64 bits, in a box of that kind) or "idat".
    """
    start = PLAIN.index(b"iprp") - 4
    properties = PLAIN[start : start + struct.unpack_from(">I", PLAIN, start)[0]]
    content = b"".join(streams)
    step = 10 if where == "pieces" else 10**9

    def whole(origin: int) -> bytes:
        rows, at = [], origin
        for number, stream in enumerate(streams, 1):
            cuts = [(at + cut, min(step, len(stream) - cut)) for cut in range(0, len(stream), step)]
            form = ">QQ" if where == "far" else ">II"
            method = struct.pack(">H", 1) if where == "idat" else b""
            row = struct.pack(">H", number) + method + struct.pack(">HH", 0, len(cuts))
            rows.append(row + b"".join(struct.pack(form, *cut) for cut in cuts))
            at += len(stream)
        sizes = b"\x88\0" if where == "far" else b"\x44\0"
        version = b"\1\0\0\0" if where == "idat" else b"\0\0\0\0"
        known = [*kinds, *[kinds[-1]] * len(rows)]
        named = [
            box(b"infe", struct.pack(">HH", number, 0) + known[number - 1] + b"\0", full=b"\2\0\0\0")
            for number in range(1, len(rows) + 1)
        ]
        inside = [
            box(b"hdlr", bytes(4), b"pict", bytes(13), full=bytes(4)),
            box(b"pitm", b"\0\1", full=bytes(4)),
            box(b"iloc", sizes, struct.pack(">H", len(rows)), *rows, full=version),
            box(b"iinf", struct.pack(">H", len(rows)), *named, full=bytes(4)),
            *([box(b"idat", content)] if where == "idat" else []),
            properties,
        ]
        head = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf") + box(b"meta", *inside, full=bytes(4))
        if where == "far":
            return head + struct.pack(">I4sQ", 1, b"mdat", 16 + len(content)) + content
        return head if where == "idat" else head + box(b"mdat", content)

    return whole(0) if where == "idat" else whole(len(whole(0)) - len(content))


def written(*fields: tuple[int, int]) -> bytes:
    """Numbers of so many bits each, one after the other."""
    bits = "".join(f"{number:0{width}b}" for number, width in fields)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


SIZE_FIELDS = ((11, 4), (9, 4), (4000 - 1, 12), (600 - 1, 10))


def refused(data: bytes, most: int) -> None:
    """It goes through with room for all its pixels, and with room for less no library is asked."""
    assert photos.decode(data, 32, max_pixels=avif_pixels(data)).shape == (32, 32, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", lambda *_, **__: pytest.fail("a library was asked"))
        with pytest.raises(PhotoError) as caught:
            photos.decode(data, 32, max_pixels=most)
        assert caught.value.code == "refused"


def test_pixels_are_those_of_the_stream_and_alpha_is_a_picture_too() -> None:
    assert avif_pixels(PLAIN) == PIXELS
    assert avif_pixels(encoded(picture("L"))) == PIXELS
    assert avif_pixels(encoded(picture("RGBA"))) == 2 * PIXELS
    assert avif_pixels(ANIMATED) == 2 * ROUNDED  # of the still picture and of the track


@pytest.mark.parametrize("data", [PLAIN, ANIMATED, encoded(picture("RGBA"))], ids=["still", "animated", "alpha"])
def test_a_small_stated_size_hides_nothing(data: bytes) -> None:
    refused(stating(data, 16, 12), PIXELS - 1)


def test_a_large_stated_size_counts() -> None:
    assert avif_pixels(stating(PLAIN, 3000, 2000)) == 6_000_000
    refused(stating(PLAIN, 800, 600), 479_999)


@pytest.mark.parametrize("where", ["mdat", "pieces", "far", "idat"])
def test_a_stream_is_found_wherever_it_lies(where: str) -> None:
    data = stating(items([STREAM], where=where), 16, 12)
    assert avif_pixels(data) == PIXELS
    refused(data, PIXELS - 1)


@pytest.mark.parametrize("where", ["mdat", "pieces", "idat"])
@pytest.mark.parametrize(("flags", "form"), [(0, ">HH"), (1, ">II")])
def test_a_grid_of_tiles_states_a_size_too(where: str, flags: int, form: str) -> None:
    grid = bytes([0, flags, 1, 0]) + struct.pack(form, 3000, 2000)
    assert avif_pixels(items([grid, STREAM, STREAM], where=where, kinds=(b"grid", b"av01"))) == 6_000_000


def test_every_item_counts_and_so_does_a_frame_that_is_never_shown() -> None:
    assert avif_pixels(items([STREAM] * 3)) == 3 * PIXELS
    header, frame = STREAM[: STREAM.index(b"\x32")], STREAM[STREAM.index(b"\x32") :]
    refused(items([header + 4 * frame]), 4 * PIXELS - 1)


def test_a_picture_without_a_size_of_its_own_counts_as_the_largest() -> None:
    header, frame = STREAM[: STREAM.index(b"\x32")], STREAM[STREAM.index(b"\x32") :]
    assert avif_pixels(items([STREAM, frame])) == 2 * PIXELS
    large = written((0, 3), (1, 1), (1, 1), (5, 5), *SIZE_FIELDS)
    assert avif_pixels(items([STREAM + bytes([0x0A, len(large)]) + large, frame])) == PIXELS + 4000 * 600
    assert avif_pixels(items([header + bytes([0x0A, len(large)]) + large + frame])) == 4000 * 600


TIMING = ((1, 1), (1, 32), (30, 32), (1, 1), (0b00101, 5))  # the last: how many ticks a picture takes, minus one
POINT = ((0, 12), (5, 5))
HIGH_POINT = ((0, 12), (8, 5), (1, 1))


@pytest.mark.parametrize(
    "fields",
    [
        ((0, 1), (0, 1), (0, 5), *POINT),
        ((0, 1), (0, 1), (1, 5), *HIGH_POINT, *POINT),
        ((0, 1), (1, 1), (1, 5), *POINT, (0, 1), *HIGH_POINT, (1, 1), (9, 4)),
        (*TIMING, (0, 1), (0, 1), (0, 5), *POINT),
        (*TIMING, (1, 1), (9, 5), (1, 32), (9, 5), (9, 5), (0, 1), (0, 5), *POINT, (1, 1), (7, 10), (7, 10), (1, 1)),
        (*TIMING, (1, 1), (9, 5), (1, 32), (9, 5), (9, 5), (1, 1), (0, 5), *POINT, (0, 1), (1, 1), (9, 4)),
    ],
    ids=["plain", "two points", "display delay", "timing", "decoder model", "decoder model without numbers"],
)
def test_any_header_but_the_reduced_one_admits_what_its_bits_hold(fields: tuple[tuple[int, int], ...]) -> None:
    """A frame may then say its own size, in as many bits as the header's has."""
    header = written((0, 3), (0, 1), (0, 1), *fields, *SIZE_FIELDS)
    unit = bytes([0x0A, len(header)]) + header + b"\x32\0"
    assert avif_pixels(items([unit])) == 4096 * 1024
    reduced = written((0, 3), (1, 1), (1, 1), (5, 5), *SIZE_FIELDS)
    assert avif_pixels(items([bytes([0x0A, len(reduced)]) + reduced + b"\x32\0"])) == 4000 * 600


def many_units(count: int) -> bytes:
    return items([STREAM + b"\x7a\0" * (count - 3)])


def many_pictures(count: int) -> bytes:
    return items([STREAM] * count)


def many_boxes(count: int) -> bytes:
    return PLAIN + box(b"free") * (count - 15)


@pytest.mark.parametrize(
    ("build", "most"), [(many_units, MAX_UNITS), (many_pictures, MAX_PICTURES), (many_boxes, MAX_BOXES)]
)
def test_what_keeps_a_reader_busy_is_refused(build: object, most: int) -> None:
    assert callable(build)
    assert avif_pixels(build(most)) >= PIXELS
    with pytest.raises(PhotoError, match="more than") as caught:
        avif_pixels(build(most + 1))
    assert caught.value.code == "refused"


def lying_over_each_other(count: int, shorter: int) -> bytes:
    """Items of the same bytes, each by so much shorter than the one before."""
    data = items([STREAM] * count)
    first = len(data) - count * len(STREAM)
    for number in range(1, count):
        placed = struct.pack(">II", first + number * len(STREAM), len(STREAM))
        data = data.replace(placed, struct.pack(">II", first, len(STREAM) - number * shorter))
    return data[: first + len(STREAM)]


def test_items_may_share_their_bytes_but_not_lie_over_each_other() -> None:
    assert avif_pixels(lying_over_each_other(5, shorter=0)) == 5 * PIXELS
    with pytest.raises(PhotoError, match="read twice"):
        avif_pixels(lying_over_each_other(5, shorter=1))


@pytest.mark.parametrize(
    "data",
    [items([STREAM], kinds=(b"hvc1",)), items([STREAM[:2]]), PLAIN[:32], PLAIN[:-9], PLAIN + box(b"mini")],
    ids=["another codec", "no frame", "nothing in it", "cut off", "minimized header"],
)
def test_what_has_no_av1_picture_is_undecodable(data: bytes) -> None:
    with pytest.raises(PhotoError) as caught:
        photos.decode(data, 32)
    assert caught.value.code == "undecodable"


@pytest.mark.parametrize("data", [PLAIN, ANIMATED], ids=["still", "animated"])
def test_a_file_cut_anywhere_is_read_to_a_number_or_refused(data: bytes) -> None:
    for length in range(4, 700):
        with contextlib.suppress(PhotoError):
            assert read_header(data[:length]).pixels >= PIXELS
