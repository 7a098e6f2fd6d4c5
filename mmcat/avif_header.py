"""How many pixels an AVIF makes a decoder unpack: read from its AV1 streams, not from what its boxes state.

The size that an AVIF states (`ispe`) binds nobody: libavif unpacks each picture at the size that its AV1 stream has and
scales it afterwards. So the streams are looked up as libavif does it (items by `iloc`, tracks by their sample tables)
and the sequence header of each is read. Every picture counts: tiles, alpha, thumbnails, frames that are never shown.

Formats: ISO/IEC 14496-12 (boxes, tracks) and 23008-12 (items), AV1 specification 5.3 to 5.5 (units of a stream). Called
by photo_headers.py. Pure and bounded; a box that does not fit ends the reading, as it does in libavif.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from mmcat.errors import PhotoError

# A usual AVIF has 14 boxes, one picture or two, three units in each. Enough for a grid of 500 tiles.
MAX_BOXES: Final = 5_000
MAX_ITEMS: Final = 5_000
MAX_PICTURES: Final = 500
MAX_UNITS: Final = 500

_CONTAINERS: Final = frozenset({b"meta", b"iinf", b"iprp", b"ipco", b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_LEVELS: Final = 6  # of containers: moov, trak, mdia, minf, stbl and one more
_SEQUENCE_HEADER: Final = 1
_FRAMES: Final = frozenset({3, 6})  # a frame's header alone, or with its tiles

Box = tuple[bytes, int, int]  # kind, and where its content starts and ends
Spans = tuple[tuple[int, int], ...]  # where the pieces of an item start and end


def avif_pixels(data: bytes) -> int:
    """The pixels of all pictures in the file, or those of the largest size it states where that is more.

    Raises:
        PhotoError: "undecodable" (no AV1 picture) or "refused" (built to keep a reader busy).
        struct.error, IndexError: it ends too early.
    """
    boxes: list[Box] = []
    for box in _walk(data, 0, len(data)):
        boxes.append(box)
        _refuse_many(len(boxes), MAX_BOXES, "boxes")
    items: list[tuple[bytes, Spans]] = []
    for box in boxes:
        for item in _items(data, box):
            items.append(item)
            _refuse_many(len(items), MAX_ITEMS, "items")
    pictures = [spans for kind, spans in items if kind == b"av01"]
    pieces = set(pictures)  # equal tiles may share their bytes
    _refuse_many(len(pieces), MAX_PICTURES, "pictures")
    if any(end > len(data) for spans in pieces for _, end in spans):
        raise PhotoError("undecodable", "ends before its pixels")
    _refuse_many(sum(end - start for spans in pieces for start, end in spans), len(data), "bytes, read twice")
    read = {spans: _stream(b"".join(data[start:end] for start, end in spans)) for spans in pieces}
    frames = [pixels for spans in pictures for pixels in read[spans].frames]
    if not frames:
        raise PhotoError("undecodable", "no AV1 picture in it")
    # A frame before the first sequence header of its stream is read by one of another, where it is read at all.
    most = max(stream.most for stream in read.values())
    unpacked = sum(most if pixels is None else pixels for pixels in frames)
    grids = [_grid(data, spans) for kind, spans in items if kind == b"grid"]
    return max(unpacked, *grids, *(_stated(data, box) for box in boxes))


def _walk(data: bytes, at: int, end: int, levels: int = _LEVELS) -> Iterator[Box]:
    """All boxes, each before those in it."""
    for kind, start, stop in _children(data, at, end):
        yield kind, start, stop
        if kind in _CONTAINERS and levels:
            yield from _walk(data, _first_child(data, kind, start), stop, levels - 1)


def _first_child(data: bytes, kind: bytes, start: int) -> int:
    if kind == b"iinf":
        return start + (8 if data[start] else 6)
    return start + 4 if kind == b"meta" else start


def _children(data: bytes, at: int, end: int) -> Iterator[Box]:
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = at + size if size else end
        if not start <= stop <= end:
            return
        yield kind, start, stop
        at = stop


def _stated(data: bytes, box: Box) -> int:
    """The pixels of the size that a box states, 0 if it states none."""
    kind, start, _ = box
    if kind == b"ispe":
        width, height = struct.unpack_from(">II", data, start + 4)
    elif kind == b"tkhd":
        width, height = struct.unpack_from(">HxxHxx", data, start + (88 if data[start] else 76))
    else:
        return 0
    return int(width * height)


def _grid(data: bytes, spans: Spans) -> int:
    """The pixels of a picture that is put together of tiles."""
    content = b"".join(data[start : start + 12] for start, _ in spans)
    width, height = struct.unpack_from(">II" if content[1] & 1 else ">HH", content, 4)
    return int(width * height)


def _items(data: bytes, box: Box) -> Iterator[tuple[bytes, Spans]]:
    """The kind of each item of a box, and where it lies; the first sample of a track is one, too."""
    name, start, end = box
    if name == b"mini":
        raise PhotoError("undecodable", "an AVIF with a minimized header")
    if name == b"stbl":
        yield from ((b"av01", spans) for spans in _first_sample(data, start, end))
    if name == b"meta":
        inside = list(_children(data, _first_child(data, name, start), end))
        kinds: dict[int, set[bytes]] = {}
        for number, kind in (found for child in inside if child[0] == b"iinf" for found in _kinds(data, child)):
            kinds.setdefault(number, set()).add(kind)
        origin = next((at for kind, at, _ in inside if kind == b"idat"), 0)
        for number, spans in (
            found for kind, at, _ in inside if kind == b"iloc" for found in _places(data, at, origin)
        ):
            yield from ((kind, spans) for kind in kinds.get(number, {b""}))


def _kinds(data: bytes, box: Box) -> Iterator[tuple[int, bytes]]:
    """Number and kind of each item."""
    name, start, end = box
    for kind, at, _ in _children(data, _first_child(data, name, start), end):
        if kind == b"infe" and data[at] >= 2:
            yield struct.unpack_from(">Hxx4s" if data[at] == 2 else ">Ixx4s", data, at + 4)


def _places(data: bytes, start: int, origin: int) -> Iterator[tuple[int, Spans]]:
    """Number of each item, and where it lies.

    Args:
        origin: where the content of the box begins that some items lie in.
    """
    version = data[start]
    numbers = _Numbers(data, start + 4)
    sizes = numbers.take(2)
    offset_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    id_bytes, index_bytes = (4 if version == 2 else 2), (sizes & 15 if version else 0)
    pieces = 0
    for _ in range(numbers.take(id_bytes)):
        number = numbers.take(id_bytes)
        in_box = version > 0 and numbers.take(2) & 15 == 1
        numbers.take(2)
        base = numbers.take(base_bytes) + (origin if in_box else 0)
        spans = []
        for _ in range(numbers.take(2)):
            numbers.take(index_bytes)
            first = base + numbers.take(offset_bytes)
            spans.append((first, first + numbers.take(length_bytes)))
            pieces += 1
            _refuse_many(pieces, MAX_ITEMS, "pieces of items")
        yield number, tuple(spans)


def _first_sample(data: bytes, start: int, end: int) -> Iterator[Spans]:
    """Where the first picture of a track lies: no other is asked for."""
    found = {name: at for name, at, _ in _children(data, start, end)}
    if b"stsz" not in found:
        return
    same, _, size = struct.unpack_from(">III", data, found[b"stsz"] + 4)
    for name, form in ((b"stco", ">I"), (b"co64", ">Q")):
        if name in found:
            (first,) = struct.unpack_from(form, data, found[name] + 8)
            yield ((first, first + (same or size)),)


class _Stream(NamedTuple):
    """What an AV1 stream unpacks to.

    Args:
        frames: the pixels of each; None before the first sequence header.
        most: the pixels of the largest frame that its sequence headers admit.
    """

    frames: list[int | None]
    most: int


def _stream(stream: bytes) -> _Stream:
    frames: list[int | None] = []
    pixels: int | None = None
    at = units = most = 0
    while at < len(stream):
        units += 1
        _refuse_many(units, MAX_UNITS, "units in a picture")
        header, at = stream[at], at + 1 + (stream[at] >> 2 & 1)
        size, at = _leb128(stream, at) if header & 2 else (len(stream) - at, at)
        kind = header >> 3 & 15
        if kind == _SEQUENCE_HEADER:
            pixels = _sequence_pixels(stream[at : at + size])
            most = max(most, pixels)
        elif kind in _FRAMES:
            frames.append(pixels)
        at += size
    return _Stream(frames, most)


def _leb128(stream: bytes, at: int) -> tuple[int, int]:
    """A number of up to eight bytes, seven bits in each, and where it ends."""
    number = 0
    for place in range(8):
        number |= (stream[at + place] & 127) << 7 * place
        if stream[at + place] < 128:
            return number, at + place + 1
    raise PhotoError("undecodable", "a size without end")


def _sequence_pixels(header: bytes) -> int:
    """The pixels of the largest frame that may follow (AV1 specification 5.5.1)."""
    bits = _Numbers(header, unit=1)
    bits.take(4)
    reduced = bits.take(1)
    if reduced:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = 1 + bits.take(4), 1 + bits.take(4)
    width, height = 1 + bits.take(width_bits), 1 + bits.take(height_bits)
    # Any header but the reduced one lets a frame say its own size, in as many bits.
    return width * height if reduced else 1 << width_bits + height_bits


def _skip_operating_points(bits: "_Numbers") -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            _skip_uvlc(bits)
        if bits.take(1):
            delay_bits = 1 + bits.take(5)
            bits.take(42)
    display_delay = bits.take(1)
    for _ in range(1 + bits.take(5)):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if display_delay and bits.take(1):
            bits.take(4)


def _skip_uvlc(bits: "_Numbers") -> None:
    zeros = 0
    while not bits.take(1):
        zeros += 1
    bits.take(zeros if zeros < 32 else 0)


class _Numbers:
    """Unsigned numbers, the high end first, one after the other.

    Args:
        unit: bits that `take` counts in.
    """

    def __init__(self, data: bytes, at: int = 0, unit: int = 8) -> None:
        self._data, self._at, self._unit = data, at * 8, unit

    def take(self, count: int) -> int:
        """The next number, of so many units.

        Raises:
            IndexError: there are fewer.
        """
        start, self._at = self._at, self._at + count * self._unit
        if self._at > len(self._data) * 8:
            raise IndexError("no number is left")
        covering = self._data[start // 8 : -(-self._at // 8)]
        number = int.from_bytes(covering, "big") >> (-self._at % 8)
        return number & ((1 << self._at - start) - 1)


def _refuse_many(count: int, most: int, what: str) -> None:
    if count > most:
        raise PhotoError("refused", f"more than {most} {what}")
