"""What a photo says of itself before anything unpacks it: format, size, and how much it makes a decoder read.

Our own reader of the outermost structure, bounded: the format is known by its first bytes (names and content types are
not looked at), the pixels are known before a library allocates for them, and a file built to keep a decoder busy
(thousands of scans, of metadata blocks) is refused here. A photo of 300 kB can else take a decoder a minute, one of
10 MB hours.

Before photos.py, which unpacks what passes. Pure; a hundredth of a millisecond for a usual photo, a tenth for a
progressive one.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mmcat.avif_header import avif_pixels
from mmcat.errors import PhotoError

# Blocks that are no pixels. Real photos have 5 to 40; a profile of 16 MB would need 250 in a JPEG. Pillow joins some of
# them by copying all it has with each, so the bound is on the square.
MAX_BLOCKS: Final = 500
# PNG's pixels come in blocks, too, usually of 8 KiB.
MAX_PIXEL_BLOCKS: Final = 65_536
# A progressive JPEG is gone through once more with each scan, at 2 to 4 ns a pixel. Encoders write about 10 scans.
MAX_SCANS: Final = 64
MAX_SCANNED_PIXELS: Final = 800_000_000

_JPEG_MARKER: Final = re.compile(rb"\xff[\x01-\xfe]")
_JPEG_AFTER_SCAN: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_ALONE: Final = frozenset({*range(0xD0, 0xDA)})  # restart, start and end: no length follows
_JPEG_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
# Reserved markers: decoders disagree on whether a length follows, so one would see what another skips.
_JPEG_ODD: Final = frozenset({*range(0x01, 0xC0), 0xC8, *range(0xF0, 0xFE)})
_PNG_FRAMES: Final = frozenset({b"fcTL", b"fdAT"})
_BMP_PLAIN: Final = frozenset({0, 3, 6})  # uncompressed, with or without bit masks; run lengths are unpacked in Python


@dataclass(frozen=True, slots=True)
class PhotoHeader:
    """The format by Pillow's name, and how many pixels its library unpacks at most."""

    format: str
    pixels: int


def read_header(data: bytes) -> PhotoHeader:
    """Look at a photo without unpacking anything.

    Raises:
        PhotoError: "undecodable" (no format that is known, or its structure is broken before the pixels) or "refused"
            (built to keep a decoder busy).
    """
    for form, (magic, read) in _FORMATS.items():
        if magic.match(data):
            try:
                return PhotoHeader(form, read(data))
            except (struct.error, IndexError) as error:
                raise _broken("ends before its pixels") from error
    raise _broken("not a photo of a known format")


def _jpeg(data: bytes) -> int:
    width = height = blocks = scans = components = 0
    sequential = True
    at = 2
    while found := (_JPEG_AFTER_SCAN if scans else _JPEG_MARKER).search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9 and scans:
            break
        blocks += 1
        _refuse_many(blocks - scans)
        if marker in _JPEG_ALONE:
            continue
        if marker in _JPEG_ODD:
            raise _broken("a reserved marker")
        if marker in _JPEG_SIZES:
            height, width = max(height, _u16(data, at + 3)), max(width, _u16(data, at + 5))
            components, sequential = max(components, data[at + 7]), sequential and marker in _JPEG_SEQUENTIAL
        elif marker == 0xDA:
            scans += 1
            if scans == 1 and sequential and data[at + 2] >= components:
                break  # all that there is in one scan: libjpeg reads no second
            most = scans + data.count(b"\xff\xda", at)  # exact, or more where such bytes stand elsewhere: then go on
            if scans == 1 and not _too_many_scans(most, width, height):
                break
            if _too_many_scans(scans, width, height):
                raise PhotoError("refused", f"{scans} or more scans of {width} × {height} pixels")
        at += _u16(data, at)
    return width * height


def _too_many_scans(scans: int, width: int, height: int) -> bool:
    return scans > MAX_SCANS or scans * width * height > MAX_SCANNED_PIXELS


def _png(data: bytes) -> int:
    width, height = struct.unpack_from(">II", data, 16)
    blocks = pixel_blocks = 0
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            break
        if kind == b"IDAT" or kind in _PNG_FRAMES:
            pixel_blocks += 1
        else:
            blocks += 1
        _refuse_many(blocks, pixel_blocks)
        at += length + 12
    return int(width * height)


def _gif(data: bytes) -> int:
    """The canvas, or the first frame where that is larger; later frames are not looked at."""
    width, height = struct.unpack_from("<HH", data, 6)
    at = 13 + _palette_bytes(data[10])
    for blocks in range(MAX_BLOCKS + 2):
        _refuse_many(blocks)
        kind, at = data[at], at + 1
        if kind == 0x2C:
            left, top, wide, high = struct.unpack_from("<HHHH", data, at)
            return int(max(width, left + wide) * max(height, top + high))
        if kind == 0x21:
            at += 1
            while data[at]:
                at += data[at] + 1
            at += 1
    return int(width * height)


def _palette_bytes(flags: int) -> int:
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def _webp(data: bytes) -> int:
    kind = data[12:16]
    if kind == b"VP8X":
        return (1 + int.from_bytes(data[24:27], "little")) * (1 + int.from_bytes(data[27:30], "little"))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return int((1 + (bits & 0x3FFF)) * (1 + (bits >> 14 & 0x3FFF)))
    width, height = struct.unpack_from("<HH", data, 26)
    return int((width & 0x3FFF) * (height & 0x3FFF))


def _bmp(data: bytes) -> int:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes == 12:  # OS/2: no compression
        width, height = struct.unpack_from("<HH", data, 18)
        return int(width * height)
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in _BMP_PLAIN:
        raise _broken("a compressed bitmap")
    return int(abs(width * height))


_FORMATS: Final[dict[str, tuple[re.Pattern[bytes], Callable[[bytes], int]]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), _jpeg),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n....IHDR", re.DOTALL), _png),
    "WEBP": (re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL), _webp),
    "GIF": (re.compile(rb"GIF8[79]a"), _gif),
    "BMP": (re.compile(rb"BM"), _bmp),
    "AVIF": (re.compile(rb"....ftyp", re.DOTALL), avif_pixels),
}


def _u16(data: bytes, at: int) -> int:
    (number,) = struct.unpack_from(">H", data, at)
    return int(number)


def _refuse_many(blocks: int, pixel_blocks: int = 0) -> None:
    if blocks > MAX_BLOCKS or pixel_blocks > MAX_PIXEL_BLOCKS:
        raise PhotoError("refused", f"more than {MAX_BLOCKS} blocks beside its pixels, or its pixels in crumbs")


def _broken(why: str) -> PhotoError:
    return PhotoError("undecodable", why)
