"""Small whole photos of every kind that is decoded, made here; and a few real ones where there are some."""

import io
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, features

WIDTH, HEIGHT = 45, 34
LARGE = (1000, 990)  # as many pixels as decoding.py admits, nearly
BOMB = (6000, 4000)
COMPRESSED: Mapping[str, Mapping[str, object]] = {"WEBP": {"lossless": True, "method": 0}, "AVIF": {"speed": 10}}
REAL = 3  # of the real photos: the smallest
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Each pass of an interlaced PNG: first column and row, steps of both."""


@cache
def originals() -> dict[str, bytes]:
    """Photos by name; the first word is the format, as photo_headers.py calls it."""
    picture = _picture()
    grey16 = Image.fromarray((np.asarray(picture.convert("L")).astype(np.uint16) << 8) | 0x5A)
    frames = [picture, picture.rotate(90), picture.rotate(180)]
    moving = {"save_all": True, "append_images": frames[1:]}
    clear = picture.convert("RGBA")
    clear.putalpha(picture.convert("L"))
    palette = clear.quantize(16)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a photo"
    made = {
        "JPEG baseline": _encoded(picture, "JPEG", quality=80),
        "JPEG progressive": _encoded(picture, "JPEG", progressive=True, quality=95),
        "JPEG full colour": _encoded(picture, "JPEG", subsampling=0, optimize=True),
        "JPEG restarts": _encoded(picture, "JPEG", restart_marker_blocks=2),
        "JPEG CMYK": _encoded(picture.convert("CMYK"), "JPEG"),
        "JPEG grey": _encoded(picture.convert("L"), "JPEG"),
        "JPEG EXIF": _encoded(picture, "JPEG", exif=exif.tobytes(), icc_profile=bytes(200), comment=b"made here"),
        "JPEG several": _encoded(picture, "MPO", **moving),
        "PNG colour": _encoded(picture, "PNG"),
        "PNG palette": _encoded(palette, "PNG"),
        "PNG two levels": _encoded(picture.convert("1"), "PNG"),
        "PNG alpha": _encoded(clear, "PNG"),
        "PNG grey alpha": _encoded(clear.convert("LA"), "PNG"),
        "PNG 16 bits": _encoded(grey16, "PNG"),
        "PNG interlaced": interlaced_png(np.asarray(picture)),
        "PNG animated": _encoded(picture, "PNG", **moving),
        "PNG blocks": _encoded(picture, "PNG", exif=exif.tobytes(), icc_profile=bytes(200), dpi=(72, 72)),
        "GIF still": _encoded(palette, "GIF"),
        "GIF animated": _encoded(picture, "GIF", **moving),
        "WEBP lossy": _encoded(picture, "WEBP"),
        "WEBP lossless": _encoded(picture, "WEBP", lossless=True),
        "WEBP alpha": _encoded(clear, "WEBP", exif=exif.tobytes()),
        "WEBP animated": _encoded(picture, "WEBP", **moving),
        "BMP colour": _encoded(picture, "BMP"),
        "BMP palette": _encoded(picture.quantize(200), "BMP"),
        "BMP alpha": _encoded(clear, "BMP"),
        "BMP two levels": _encoded(picture.convert("1"), "BMP"),
    }
    if features.check("avif"):
        made |= {
            "AVIF still": _encoded(picture, "AVIF"),
            "AVIF full colour": _encoded(picture, "AVIF", subsampling="4:4:4", quality=95),
            "AVIF grey": _encoded(picture.convert("L"), "AVIF"),
            "AVIF alpha": _encoded(clear, "AVIF", exif=exif.tobytes()),
            "AVIF animated": _encoded(picture, "AVIF", **moving),
        }
    flat = picture.resize(LARGE, Image.Resampling.BOX)
    made |= {f"{format_} large": _encoded(flat, format_, **COMPRESSED.get(format_, {})) for format_ in _formats(made)}
    return made | _real()


@cache
def bombs() -> dict[str, bytes]:
    """Photos of one colour in a few kilobytes, with 24 times the pixels that decoding.py admits."""
    flat = Image.new("RGB", BOMB, (90, 120, 200))
    return {
        f"{format_} bomb": _encoded(flat, format_, **COMPRESSED.get(format_, {})) for format_ in _formats(originals())
    }


def _formats(made: Iterable[str]) -> list[str]:
    return sorted({name.partition(" ")[0] for name in made} - {"BMP"})  # which would be megabytes


def interlaced_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An RGB PNG in seven passes, which Pillow reads and does not write."""
    height, width = pixels.shape[:2]
    lines = bytearray()
    for left, top, right, down in ADAM7:
        for line in pixels[top::down, left::right]:
            lines += b"\0" + line.tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(lines))) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """With its length and its sum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _picture() -> Image.Image:
    """Half smooth and half noise, so that all kinds of blocks are written."""
    x, y = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    pixels = np.stack([x, y, 255 - (x + y) / 2], axis=2).astype(np.uint8)
    pixels[:, WIDTH // 2 :] ^= np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH - WIDTH // 2, 3), np.uint8)
    return Image.fromarray(pixels)


def _encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def _real() -> dict[str, bytes]:
    named = os.environ.get("MMCAT_TEST_DATA")
    files = sorted(Path(named).glob("photos_large/*.jpg"), key=lambda file: file.stat().st_size) if named else []
    return {f"JPEG {file.stem}": file.read_bytes() for file in files[:REAL]}
