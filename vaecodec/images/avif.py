"""Read the sizes of AV1 frames in an AVIF file, before a decoder allocates memory for them.

A container gives a size of its own, which decoders compare with that of the frames only after decoding.

AVIF 1.1 and ISO/IEC 23008-12 (HEIF): items; ISO/IEC 14496-12: boxes; AV1 specification, section 5: OBUs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from vaecodec.errors import FormatError

SEQUENCE_HEADER, FRAME_HEADER, FRAME, REDUNDANT_FRAME_HEADER = 1, 3, 6, 7  # OBU types
KEY_FRAME, SWITCH_FRAME = 0, 3
SELECT = 2  # of screen content tools and of integer motion vectors: each frame header says
GRID_TILE = 1 << 22  # pixels that a tile of a grid may have where the whole image is smaller
TRACK_PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
MAX_EXTENTS = 2  # times the size of the file: extents of items that overlap

Reference = tuple[bytes, int, int]  # type, from, to
Box = tuple[bytes, int, int]  # type, begin and end of the content


class Sequence(NamedTuple):
    """The fields of a sequence header that bound its frames and place the flag by which a frame overrides its size."""

    width: int
    height: int
    bits: tuple[int, int]  # of width and height in frame headers
    reduced: bool  # a still picture, whose frame header has no such flag
    time_bits: int
    screen_content: int
    integer_vectors: int
    id_bits: int
    deep: bool  # more than 8 bits a sample


class Frame(NamedTuple):
    """The most that a decoder may have to allocate for one frame."""

    width: int
    height: int
    deep: bool


class Items(NamedTuple):
    """What the meta boxes hold: the primary item's id, types and data by id."""

    primary: int
    kinds: dict[int, bytes]
    data: dict[int, bytes]
    references: list[Reference]

    def needed(self) -> set[int]:
        """The ids of all items that the primary item is decoded from: alpha, and the tiles of a grid."""
        found, waiting = set[int](), {self.primary}
        while waiting:
            found |= waiting
            ahead = {end for kind, begin, end in self.references if kind == b"dimg" and begin in waiting}
            ahead |= {begin for kind, begin, end in self.references if kind == b"auxl" and end in waiting}
            waiting = ahead - found
        return found


def check_still(data: bytes | memoryview, width: int, height: int) -> None:
    """Raise FormatError unless a file holds one image of 8 bits a sample, and no frame is larger than this."""
    data = bytes(data)
    try:
        items, tracks = _items(data), _tracks(data)
        if tracks or list(items.kinds.values()) != [b"av01"] or items.primary not in items.kinds:
            raise FormatError("the AVIF part holds other things than one image")
        for frame in _frames(items.data[items.primary], _configurations(data)):
            if frame.width > width or frame.height > height or frame.deep:
                raise FormatError("the AVIF part holds a frame that is not of the size and depth that the header gives")
    except (struct.error, IndexError, KeyError) as exc:
        raise FormatError("the AVIF part is damaged (a box or an OBU is cut off)") from exc


def check_image(data: bytes, width: int, height: int) -> None:
    """Raise FormatError where the frames of the image that is shown first exceed the size that the container gives."""
    try:
        items, tracks = _items(data), _tracks(data)
        grid = items.kinds.get(items.primary, b"av01") != b"av01"
        parts = [items.data[n] for n in items.needed() if items.kinds.get(n) == b"av01"]
        frames = [(frame, grid) for part in parts for frame in _frames(part)]
        frames += [(frame, False) for part in tracks for frame in _frames(part)]
    except (struct.error, IndexError, KeyError) as exc:
        raise FormatError("the AVIF is damaged (a box or an OBU is cut off)") from exc
    for frame, in_grid in frames:
        fits = frame.width <= width and frame.height <= height
        if not fits and not (in_grid and frame.width * frame.height <= max(width * height, GRID_TILE)):
            size = f"{frame.width} x {frame.height}"
            raise FormatError(f"the AVIF has a frame of {size} pixels in an image of {width} x {height}")


def _boxes(data: bytes, begin: int, end: int) -> Iterator[Box]:
    while end - begin >= 8:
        size, kind, head = *struct.unpack_from(">I4s", data, begin), 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, begin + 8), 16
        size = size or end - begin
        if size < head or size > end - begin:
            raise IndexError("a box is cut off")
        yield kind, begin + head, begin + size
        begin += size


def _inside(data: bytes, path: tuple[bytes, ...], begin: int, end: int) -> Iterator[Box]:
    """All boxes at a path of types."""
    for kind, first, last in _boxes(data, begin, end):
        if kind == path[0]:
            first += 4 if kind == b"meta" else 0
            if len(path) == 1:
                yield kind, first, last
            else:
                yield from _inside(data, path[1:], first, last)


def _items(data: bytes) -> Items:
    kinds: dict[int, bytes] = {}
    contents: dict[int, bytes] = {}
    references: list[Reference] = []
    primary = -1
    metas = list(_inside(data, (b"meta",), 0, len(data)))
    if len(metas) > 1:
        raise IndexError("there are two meta boxes")
    for _, first, last in metas:
        boxes = {kind: (begin, end) for kind, begin, end in _boxes(data, first, last)}
        if b"pitm" in boxes:
            begin = boxes[b"pitm"][0]
            (primary,) = struct.unpack_from(">I" if data[begin] else ">H", data, begin + 4)
        if b"iinf" in boxes:
            kinds |= _kinds(data, *boxes[b"iinf"])
        if b"iloc" in boxes:
            begin, end = boxes[b"iloc"]
            contents |= _contents(_Reader(data, begin, end), data, *boxes.get(b"idat", (0, 0)))
        if b"iref" in boxes:
            references += _references(data, *boxes[b"iref"])
    return Items(primary, kinds, contents, references)


class _Reader:
    """Big-endian integers of any whole number of bytes, one after another."""

    def __init__(self, data: bytes, begin: int, end: int) -> None:
        self._data, self.at, self._end = data, begin, end

    def __call__(self, size: int) -> int:
        if size > self._end - self.at:
            raise IndexError("a box is cut off")
        self.at += size
        return int.from_bytes(self._data[self.at - size : self.at], "big")


def _kinds(data: bytes, begin: int, end: int) -> dict[int, bytes]:
    """Item types by id, of an iinf box."""
    found = {}
    for kind, first, _ in _boxes(data, begin + (8 if data[begin] else 6), end):
        if kind == b"infe" and data[first] >= 2:
            wide = data[first] > 2
            number, _, name = struct.unpack_from(">IH4s" if wide else ">HH4s", data, first + 4)
            found[number] = name
    return found


def _contents(read: _Reader, data: bytes, idat: int, idat_end: int) -> dict[int, bytes]:
    """The data of each item, of an iloc box."""
    version, sizes, room = read(4) >> 24, read(2), MAX_EXTENTS * len(data)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    found = {}
    for _ in range(read(4 if version == 2 else 2)):
        number = read(4 if version == 2 else 2)
        method = read(2) & 15 if version else 0
        read(2)  # data reference
        base, parts = read(base_size), []
        for _ in range(read(2)):
            read(index_size if version else 0)
            offset, length = base + read(offset_size), read(length_size)
            begin, end = (idat + offset, idat_end) if method == 1 else (offset, len(data))
            parts.append(data[begin : min(begin + length, end) if length else end])
            room -= len(parts[-1])
            if room < 0:
                raise FormatError("the AVIF is damaged (its items overlap)")
        found[number] = b"".join(parts)
    return found


def _references(data: bytes, begin: int, end: int) -> Iterator[Reference]:
    size = 4 if data[begin] else 2
    for kind, first, last in _boxes(data, begin + 4, end):
        read = _Reader(data, first, last)
        source = read(size)
        for _ in range(read(2)):
            yield kind, source, read(size)


def _configurations(data: bytes) -> bytes:
    """The OBUs of all av1C boxes of items, end to end."""
    found = _inside(data, (b"meta", b"iprp", b"ipco", b"av1C"), 0, len(data))
    return b"".join(data[begin + 4 : end] for _, begin, end in found)


def _tracks(data: bytes) -> list[bytes]:
    """The first sample of each track: the image that is shown of a sequence."""
    found, room = [], MAX_EXTENTS * len(data)
    for _, begin, end in _inside(data, TRACK_PATH, 0, len(data)):
        boxes = {kind: (first, last) for kind, first, last in _boxes(data, begin, end)}
        read = _Reader(data, *boxes[b"stsz"])
        read(4)
        length, count = read(4), read(4)
        chunks = boxes.get(b"stco") or boxes[b"co64"]
        offset = int.from_bytes(data[chunks[0] + 8 : chunks[0] + (12 if b"stco" in boxes else 16)], "big")
        if count:
            found.append(data[offset : offset + (length or read(4))])
            room -= len(found[-1])
            if room < 0:
                raise FormatError("the AVIF is damaged (its tracks overlap)")
    return found


def _frames(data: bytes, configuration: bytes = b"") -> Iterator[Frame]:
    """The bounds of each frame in OBUs, end to end, and those that sequence headers give (AV1, 5.3 to 5.9)."""
    for _, payload in _obus(configuration, (SEQUENCE_HEADER,)):
        sequence = _sequence(_Bits(payload))
        yield Frame(sequence.width, sequence.height, sequence.deep)
    current: Sequence | None = None
    for kind, payload in _obus(data, (SEQUENCE_HEADER, FRAME_HEADER, FRAME, REDUNDANT_FRAME_HEADER)):
        if kind == SEQUENCE_HEADER:
            current = _sequence(_Bits(payload))
        elif current is None:
            raise IndexError("a frame has no sequence header")
        if current is not None and kind != SEQUENCE_HEADER and _overrides(_Bits(payload), current):
            yield Frame(1 << current.bits[0], 1 << current.bits[1], current.deep)
        elif current is not None:
            yield Frame(current.width, current.height, current.deep)
    if current is None:
        raise IndexError("there is no sequence header")


def _obus(data: bytes, kinds: tuple[int, ...]) -> Iterator[tuple[int, bytes]]:
    """(type, beginning of the payload) of the OBUs of some types (AV1, 5.3.2)."""
    at = 0
    while at < len(data):
        head, at = data[at], at + 1
        at += head >> 2 & 1  # extension
        size, shift = 0, 0
        while head & 2:  # leb128
            byte, at = data[at], at + 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 56:
                break
        size = size if head & 2 else len(data) - at
        if size > len(data) - at:
            raise IndexError("an OBU is cut off")
        if head >> 3 & 15 in kinds:
            yield head >> 3 & 15, data[at : at + min(size, 1024)]
        at += size


class _Bits:
    """Bits of a header, from the most significant one on."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def __call__(self, count: int = 1) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError("a header is cut off")
        return self._value >> self._left & ((1 << count) - 1)

    def uvlc(self) -> None:
        """Skip a number of variable length (AV1, 4.10.3)."""
        zeros = 0
        while not self():
            zeros += 1
        self(zeros if zeros < 32 else 0)


def _sequence(read: _Bits) -> Sequence:
    """A sequence header (AV1, 5.5.1), up to the depth of samples."""
    read(4)  # profile, still picture
    reduced = bool(read())
    time_bits = 0
    if reduced:
        read(5)  # level
    else:
        time_bits = _operating_points(read)
    bits = read(4) + 1, read(4) + 1
    width, height = read(bits[0]) + 1, read(bits[1]) + 1
    has_ids = not reduced and read()
    id_bits = read(4) + 2 + read(3) + 1 if has_ids else 0
    read(3)  # large superblocks, filtered intra prediction, intra edge filter
    screen_content = integer_vectors = SELECT
    if not reduced:
        read(4)  # inter-intra and masked compounds, warped motion, dual filter
        order_hint = read()
        read(2 if order_hint else 0)
        screen_content = SELECT if read() else read()
        if screen_content:
            integer_vectors = SELECT if read() else read()
        read(3 if order_hint else 0)
    read(3)  # super-resolution, CDEF, restoration
    deep = bool(read())
    return Sequence(width, height, bits, reduced, time_bits, screen_content, integer_vectors, id_bits, deep)


def _operating_points(read: _Bits) -> int:
    """Skip timing, decoder model and operating points; return the bits of temporal_point_info in frame headers."""
    time_bits = delay_bits = 0
    if read():  # timing info
        read(64)
        equal = read()
        if equal:
            read.uvlc()
        if read():  # decoder model info
            delay_bits = read(5) + 1
            read(37)
            time_bits = 0 if equal else read(5) + 1
            read(5 if equal else 0)
    display_delay = read()
    for _ in range(read(5) + 1):
        read(12)
        read(read(5) > 7)
        if delay_bits and read():
            read(2 * delay_bits + 1)
        if display_delay and read():
            read(4)
    return time_bits


def _overrides(read: _Bits, sequence: Sequence) -> bool:
    """Whether a frame header gives a size of its own (AV1, 5.9.2)."""
    if sequence.reduced or read():  # or it shows a frame that exists
        return False
    kind, shown = read(2), read()
    read(sequence.time_bits if shown else 1)
    if not (kind == SWITCH_FRAME or (kind == KEY_FRAME and shown)):
        read()  # error resilience
    read()
    content = read() if sequence.screen_content == SELECT else sequence.screen_content
    if content and sequence.integer_vectors == SELECT:
        read()
    read(sequence.id_bits)
    return kind == SWITCH_FRAME or bool(read())
