"""Photos broken on purpose, each by its seed alone: `mutant(photos, 17)` is always the same of the same photos.

Some ways know nothing of formats (cut, flipped bits, runs, repeated and missing pieces, two photos in one), others aim
at what a decoder believes: sizes in pixels, lengths of blocks. The sums of a PNG are put right in half of the cases, or
no decoder would look at what is inside.
"""

import random
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.fuzz.originals import png_chunk

NUMBERS: Final = (0, 1, 2, 7, 8, 100, 255, 256, 4_000, 0x3FFF, 0x4000, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFFF)
LARGE: Final = (0x7FFFFFFF, 0x80000000, 0xFFFFFFF7, 0xFFFFFFFF)
STEPS: Final = (1, 1, 1, 2, 4)


class Place(NamedTuple):
    """Where formats have numbers: marks to look for, how the numbers are written, how many bytes from the mark."""

    marks: re.Pattern[bytes]
    form: str
    after: int


Way = Callable[[bytearray, random.Random, Sequence[bytes]], None]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A broken photo: which one it was, and what was done to it."""

    seed: int
    name: str
    ways: tuple[str, ...]
    data: bytes

    @property
    def format(self) -> str:
        """The format of the photo that it was."""
        return self.name.partition(" ")[0]


def mutant(photos: Mapping[str, bytes], seed: int, bombs: Mapping[str, bytes] | None = None) -> Mutant:
    """Break one of the photos; consecutive seeds take one after the other.

    Args:
        bombs: photos that are too large, to be broken in the sizes that they state and then like the others.
    """
    rng = random.Random(seed)
    known = {**photos, **(bombs or {})}
    name = sorted(known)[seed % len(known)]
    data, others = bytearray(known[name]), [known[other] for other in sorted(known)]
    ways = rng.choices(list(WAYS), weights=[weight for _, weight in WAYS.values()], k=rng.choice(STEPS))
    if name not in photos:
        ways = ["size", *ways]
    for way in ways:
        WAYS[way][0](data, rng, others)
    if data.startswith(b"\x89PNG") and rng.random() < 0.5:
        data = bytearray(with_sums(bytes(data)))
    return Mutant(seed, name, tuple(ways), bytes(data))


def with_sums(png: bytes) -> bytes:
    """The same with the sum of each chunk put right, as far as chunks follow each other."""
    whole, at = png[:8], 8
    while at + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        end = at + 12 + length
        if end > len(png):
            break
        whole += png_chunk(kind, png[at + 8 : end - 4])
        at = end
    return whole + png[at:]


def _cut(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    del data[rng.randint(0, len(data)) :]


def _bits(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    for _flip in range(rng.choice((1, 1, 2, 4, 16))):
        if data:
            data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _run(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    at, length = _place(data, rng), rng.choice((1, 2, 4, 16, 200))
    run = bytes([rng.choice((0, 0xFF, rng.randrange(256)))]) * length if rng.random() < 0.6 else rng.randbytes(length)
    data[at : at + length] = run


def _missing(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 2, 8, 100))]


def _again(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, rng)
    piece = data[at : at + rng.choice((1, 8, 100, 1000))]
    data[at:at] = piece * rng.choice((1, 2, 50))


def _spliced(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    data[_place(data, rng) :] = other[rng.randint(0, len(other)) :]


def _put_in(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    at = _place(data, rng)
    data[at:at] = rng.choice(others)


def _place(data: bytearray, rng: random.Random) -> int:
    """Anywhere, the beginning more often: there are the headers."""
    return rng.randrange(min(len(data), rng.choice((40, 400, len(data)))) or 1)


def _number(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    """A number anywhere, of any width and order."""
    width = rng.choice((1, 2, 4, 4, 8))
    number = rng.choice(NUMBERS + LARGE) & ((1 << 8 * width) - 1)
    at = _place(data, rng)
    data[at : at + width] = number.to_bytes(width, rng.choice(("big", "little")))


def _size(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    """Width and height of a photo, of a frame, of a stream."""
    admitted = rng.random() < 0.3  # about a million pixels
    numbers = rng.choices(range(900, 1100), k=2) if admitted else rng.choices(NUMBERS + LARGE, k=2)
    _lie(data, rng, SIZES, lambda _: numbers)


def _length(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    """The length of a block."""

    def lie(length: int) -> Sequence[int]:
        return [rng.choice((*NUMBERS, *LARGE, length + 1, length - 1, length * 2, length // 2, len(data)))]

    _lie(data, rng, LENGTHS, lie)


def _lie(data: bytearray, rng: random.Random, places: Sequence[Place], said: Callable[[int], Sequence[int]]) -> None:
    """Write other numbers at one of the places, told what stands there first."""
    found = [(match.start() + place.after, place.form) for place in places for match in place.marks.finditer(data)]
    fitting = [(at, form) for at, form in found if 0 <= at <= len(data) - struct.calcsize(form)]
    if fitting:
        at, form = rng.choice(fitting)
        numbers = said(struct.unpack_from(form, data, at)[0])
        most = (1 << 8 * struct.calcsize(form) // len(numbers)) - 1
        struct.pack_into(form, data, at, *(number & most for number in numbers))


SIZES: Final = (
    Place(re.compile(rb"\xff[\xc0-\xc2]\0"), ">HH", 5),
    Place(re.compile(rb"\x89PNG"), ">II", 16),
    Place(re.compile(rb"fcTL"), ">II", 8),
    Place(re.compile(rb"GIF8"), "<HH", 6),
    Place(re.compile(rb",\0\0\0\0"), "<HH", 5),
    Place(re.compile(rb"VP8 "), "<HH", 14),
    Place(re.compile(rb"VP8L"), "<HH", 9),
    Place(re.compile(rb"VP8X"), "<II", 12),
    Place(re.compile(rb"ANMF"), "<II", 14),
    Place(re.compile(rb"\ABM"), "<II", 18),
    Place(re.compile(rb"ispe"), ">II", 8),
    Place(re.compile(rb"tkhd"), ">II", 80),
    Place(re.compile(rb"\x12\0\x0a"), ">HH", 5),
)
LENGTHS: Final = (
    Place(re.compile(rb"\xff[\xc0-\xcf\xda-\xef\xfe]"), ">H", 2),
    Place(re.compile(rb"IHDR|PLTE|IDAT|tRNS|iCCP|eXIf|acTL|fcTL|fdAT"), ">I", -4),
    Place(re.compile(rb"VP8[ XL]|RIFF|ANIM|ANMF|EXIF"), "<I", 4),
    Place(re.compile(rb"\ABM"), "<I", 10),
    Place(re.compile(rb"meta|iloc|iinf|infe|iprp|ipco|ispe|av1C|ipma|mdat|moov|trak|stbl|stsz|stco"), ">I", -4),
    Place(re.compile(rb"!\xf9|!\xff|!\xfe"), "B", 2),
    Place(re.compile(rb"\x12\0\x0a"), "B", 3),
)
WAYS: Final[Mapping[str, tuple[Way, int]]] = {
    "cut": (_cut, 2),
    "bits": (_bits, 5),
    "run": (_run, 3),
    "missing": (_missing, 2),
    "again": (_again, 2),
    "number": (_number, 3),
    "size": (_size, 5),
    "length": (_length, 5),
    "spliced": (_spliced, 2),
    "put in": (_put_in, 1),
}
