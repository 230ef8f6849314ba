"""Inspect untrusted image files before Pillow decodes them: their format, their end and the memory they ask for.

An AVIF container states a size of its own, and decoders compare it with that of the AV1 frames only after they have
allocated memory for these.  check_avif and check_still_avif read the frame sizes first.

Sources: AVIF 1.1 and ISO/IEC 23008-12 (HEIF), items; ISO/IEC 14496-12, boxes; AV1 specification, section 5, OBUs.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from vaecodec.errors import FormatError

EXIF_PREFIX = b"Exif\0\0"  # in JPEG; Pillow returns it for some formats only
RESOLUTION = struct.Struct("<II")  # horizontal and vertical pixels per metre
INCH = 0.0254  # metres

# Formats that is_image detects: they hold one image, or its frames, and begin with a signature.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "PCX", "SGI", "QOI")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEXT_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# TIFF tags: TIFF 6.0, section 8, and Supplement 1; DNG 1.7, chapter 4
NEW_SUBFILE_TYPE, REDUCED, SUB_IFDS, DNG_VERSION = 254, 1, 330, 50706

SEQUENCE_HEADER, FRAME_HEADER, FRAME, REDUNDANT_FRAME_HEADER = 1, 3, 6, 7  # OBU types
KEY_FRAME, SWITCH_FRAME = 0, 3
SELECT = 2  # of screen content tools and of integer motion vectors: each frame header says
MAX_TILE = 1 << 22  # pixels of a tile of a grid in an image smaller than that
MAX_EXTENTS = 2  # bytes of items or tracks, which may overlap, for each byte of the file

Frame = tuple[int, int, bool]  # at most this width and height; whether samples have more than 8 bits
Box = tuple[bytes, int, int]  # type, begin and end of the content


def is_image(file: BinaryIO, name: str = "") -> bool:
    """Whether a seekable file is an image that samples and metadata represent; reads only its head.

    A camera's raw file opens as a TIFF of its preview, a layered document as its flattened copy: those are not images.
    A damaged or truncated image is one.
    """
    from PIL import Image

    file.seek(0)
    is_canon_raw = file.read(10)[8:] == b"CR"  # in what is otherwise a TIFF
    without_signature = ("TGA",) if name.lower().endswith(".tga") else ()
    for load_plugins in (Image.preinit, Image.init):  # the usual formats; all formats, which takes longer
        load_plugins()
        file.seek(0)
        formats = [format for format in (*FORMATS, *without_signature) if format in Image.OPEN]
        try:
            with Image.open(file, formats=formats) as image:
                tags = getattr(image, "tag_v2", {})
                is_preview = tags.get(NEW_SUBFILE_TYPE, 0) & REDUCED or SUB_IFDS in tags or DNG_VERSION in tags
                return image.format != "TIFF" or not (is_canon_raw or is_preview)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return True  # too large to decode, but an image
        except Exception:  # Pillow's readers raise nearly anything on other formats
            continue
        finally:
            file.seek(0)
    return False


def trailing_bytes(file: BinaryIO) -> int:
    """Count the bytes after the end of a JPEG or PNG file, padding aside: phones append videos to photographs.

    The file is not mapped: access to a mapped file that another process cuts off ends this process.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head, end = file.read(4), size
    file.seek(0)
    if head[:2] == b"\xff\xd8":
        end = _jpeg_end(file.read())
    elif head == PNG_SIGNATURE[:4]:  # PNG 3rd edition, section 5
        position, tag = len(PNG_SIGNATURE), b""
        while tag != b"IEND" and position + 12 <= size:
            file.seek(position)
            length, tag = file.read(4), file.read(4)
            position += 12 + int.from_bytes(length, "big")
        end = position if tag == b"IEND" else end
    file.seek(end)
    return len(file.read().strip(b"\0\t\r\n "))


def _jpeg_end(data: bytes) -> int:
    """The position after the end-of-image marker, or the length of the data without one (ITU-T T.81, B.1.1)."""
    position = 2
    while position + 2 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xD9:  # EOI
            return position + 2
        if marker == 0xFF:  # fill
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # without a length
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # SOS: entropy-coded data up to the next marker other than a restart
            following = NEXT_JPEG_MARKER.search(data, position)
            position = following.start() if following else len(data)
    return len(data)


class Sequence(NamedTuple):
    """Fields of a sequence header: what bounds its frames, and what precedes a frame's flag for a size of its own."""

    width: int
    height: int
    size_bits: tuple[int, int]  # of width and height in frame headers
    is_reduced: bool  # a still picture, whose frame header has no such flag
    time_bits: int
    screen_content: int
    integer_vectors: int
    id_bits: int
    is_deep: bool  # more than 8 bits a sample


class Items(NamedTuple):
    """The meta box: the primary item's id, types and data by id, references between items."""

    primary: int
    types: dict[int, bytes]
    data: dict[int, bytes]
    references: list[tuple[bytes, int, int]]  # type, from, to

    def needed(self) -> set[int]:
        """The ids of all items that the primary item is decoded from: alpha, and the tiles of a grid."""
        ids, pending = set[int](), {self.primary}
        while pending:
            ids |= pending
            linked = {target for kind, source, target in self.references if kind == b"dimg" and source in pending}
            linked |= {source for kind, source, target in self.references if kind == b"auxl" and target in pending}
            pending = linked - ids
        return ids


def check_still_avif(data: bytes | memoryview, width: int, height: int) -> None:
    """Raise FormatError unless a file holds one 8-bit image whose frames do not exceed this size."""
    data = bytes(data)
    try:
        items, tracks = _items(data), _tracks(data)
        if tracks or list(items.types.values()) != [b"av01"] or items.primary not in items.types:
            raise FormatError("the AVIF part holds other things than one image")
        boxes = _boxes_at(data, (b"meta", b"iprp", b"ipco", b"av1C"), 0, len(data))
        configuration = b"".join(data[begin + 4 : end] for _, begin, end in boxes)
        for frame_width, frame_height, is_deep in _frames(items.data[items.primary], configuration):
            if frame_width > width or frame_height > height or is_deep:
                raise FormatError("the AVIF part holds a frame that is not of the size and depth that the header gives")
    except (struct.error, IndexError, KeyError) as exc:
        raise FormatError("the AVIF part is damaged (a box or an OBU is cut off)") from exc


def check_avif(data: bytes, width: int, height: int) -> None:
    """Raise FormatError where frames of the first image exceed the size that the container states."""
    try:
        items, tracks = _items(data), _tracks(data)
        is_grid = items.types.get(items.primary, b"av01") != b"av01"
        payloads = [items.data[n] for n in items.needed() if items.types.get(n) == b"av01"]
        frames = [(frame, is_grid) for payload in payloads for frame in _frames(payload)]
        frames += [(frame, False) for payload in tracks for frame in _frames(payload)]
    except (struct.error, IndexError, KeyError) as exc:
        raise FormatError("the AVIF is damaged (a box or an OBU is cut off)") from exc
    for (frame_width, frame_height, _), in_grid in frames:
        fits = frame_width <= width and frame_height <= height
        if not fits and not (in_grid and frame_width * frame_height <= max(width * height, MAX_TILE)):
            size = f"{frame_width} x {frame_height}"
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


def _boxes_at(data: bytes, path: tuple[bytes, ...], begin: int, end: int) -> Iterator[Box]:
    """All boxes at a path of types."""
    for kind, first, last in _boxes(data, begin, end):
        if kind == path[0]:
            first += 4 if kind == b"meta" else 0
            if len(path) == 1:
                yield kind, first, last
            else:
                yield from _boxes_at(data, path[1:], first, last)


class _BitReader:
    """Read successive big-endian integers of any number of bits."""

    def __init__(self, data: bytes, begin: int, end: int) -> None:
        self._data, self._position, self._end = data, 8 * begin, 8 * end

    def __call__(self, bits: int = 1) -> int:
        begin, self._position = self._position, self._position + bits
        if self._position > self._end:
            raise IndexError("a box or a header is cut off")
        value = int.from_bytes(self._data[begin // 8 : -(-self._position // 8)], "big")
        return value >> -self._position % 8 & ((1 << bits) - 1)


def _items(data: bytes) -> Items:
    """The items of the only meta box, if there is one."""
    items = Items(-1, {}, {}, [])
    metas = list(_boxes_at(data, (b"meta",), 0, len(data)))
    if len(metas) > 1:
        raise IndexError("there are two meta boxes")
    for _, first, last in metas:
        boxes = {kind: (begin, end) for kind, begin, end in _boxes(data, first, last)}
        if b"pitm" in boxes:
            begin = boxes[b"pitm"][0]
            items = items._replace(primary=struct.unpack_from(">I" if data[begin] else ">H", data, begin + 4)[0])
        if b"iinf" in boxes:
            begin, end = boxes[b"iinf"]
            for kind, entry, _ in _boxes(data, begin + (8 if data[begin] else 6), end):
                if kind == b"infe" and data[entry] >= 2:
                    form = ">IH4s" if data[entry] > 2 else ">HH4s"
                    number, _, items.types[number] = struct.unpack_from(form, data, entry + 4)
        if b"iloc" in boxes:
            items.data.update(_item_data(data, boxes[b"iloc"], boxes.get(b"idat", (0, 0))))
        if b"iref" in boxes:
            begin, end = boxes[b"iref"]
            bits = 32 if data[begin] else 16
            for kind, *content in _boxes(data, begin + 4, end):
                read = _BitReader(data, *content)
                source = read(bits)
                items.references.extend((kind, source, read(bits)) for _ in range(read(16)))
    return items


def _item_data(data: bytes, iloc: tuple[int, int], idat: tuple[int, int]) -> dict[int, bytes]:
    """The data of each item by id; raises FormatError where the extents of items overlap too much."""
    read = _BitReader(data, *iloc)
    version, sizes, remaining = read(32) >> 24, read(16), MAX_EXTENTS * len(data)
    offset_bits, length_bits, base_bits, index_bits = (8 * (sizes >> shift & 15) for shift in (12, 8, 4, 0))
    contents = {}
    for _ in range(read(32 if version == 2 else 16)):
        number = read(32 if version == 2 else 16)
        method = read(16) & 15 if version else 0
        read(16)  # data reference
        base, extents = read(base_bits), []
        for _ in range(read(16)):
            read(index_bits if version else 0)
            offset, length = base + read(offset_bits), read(length_bits)
            begin, end = (idat[0] + offset, idat[1]) if method == 1 else (offset, len(data))
            extents.append(data[begin : min(begin + length, end) if length else end])
            remaining -= len(extents[-1])
            if remaining < 0:
                raise FormatError("the AVIF is damaged (its items overlap)")
        contents[number] = b"".join(extents)
    return contents


def _tracks(data: bytes) -> list[bytes]:
    """The first sample of each track: the image that is shown of a sequence."""
    samples, remaining = [], MAX_EXTENTS * len(data)
    for _, begin, end in _boxes_at(data, (b"moov", b"trak", b"mdia", b"minf", b"stbl"), 0, len(data)):
        boxes = {kind: (first, last) for kind, first, last in _boxes(data, begin, end)}
        read = _BitReader(data, *boxes[b"stsz"])
        read(32)
        length, count = read(32), read(32)
        chunks = boxes.get(b"stco") or boxes[b"co64"]
        offset = int.from_bytes(data[chunks[0] + 8 : chunks[0] + (12 if b"stco" in boxes else 16)], "big")
        if count:
            samples.append(data[offset : offset + (length or read(32))])
            remaining -= len(samples[-1])
            if remaining < 0:
                raise FormatError("the AVIF is damaged (its tracks overlap)")
    return samples


def _frames(data: bytes, configuration: bytes = b"") -> Iterator[Frame]:
    """The bounds of each frame and of each sequence header in OBUs, end to end (AV1, 5.3 to 5.9)."""
    for _, payload in _obus(configuration, (SEQUENCE_HEADER,)):
        sequence = _sequence(_BitReader(payload, 0, len(payload)))
        yield sequence.width, sequence.height, sequence.is_deep
    current: Sequence | None = None
    for kind, payload in _obus(data, (SEQUENCE_HEADER, FRAME_HEADER, FRAME, REDUNDANT_FRAME_HEADER)):
        if kind == SEQUENCE_HEADER:
            current = _sequence(_BitReader(payload, 0, len(payload)))
        elif current is None:
            raise IndexError("a frame has no sequence header")
        if kind != SEQUENCE_HEADER and _overrides_size(_BitReader(payload, 0, len(payload)), current):
            yield 1 << current.size_bits[0], 1 << current.size_bits[1], current.is_deep
        else:
            yield current.width, current.height, current.is_deep
    if current is None:
        raise IndexError("there is no sequence header")


def _obus(data: bytes, kinds: tuple[int, ...]) -> Iterator[tuple[int, bytes]]:
    """(type, first 1024 bytes of the payload) of the OBUs of some types (AV1, 5.3.2)."""
    position = 0
    while position < len(data):
        head = data[position]
        position += 1 + (head >> 2 & 1)  # extension
        size, shift = 0, 0
        while head & 2:  # leb128
            byte, position = data[position], position + 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 56:
                break
        size = size if head & 2 else len(data) - position
        if size > len(data) - position:
            raise IndexError("an OBU is cut off")
        if head >> 3 & 15 in kinds:
            yield head >> 3 & 15, data[position : position + min(size, 1024)]
        position += size


def _sequence(read: _BitReader) -> Sequence:
    """Parse a sequence header up to the depth of samples (AV1, 5.5.1)."""
    read(4)  # profile, still picture
    is_reduced, time_bits = bool(read()), 0
    if is_reduced:
        read(5)  # level
    else:
        time_bits = _skip_operating_points(read)
    size_bits = read(4) + 1, read(4) + 1
    width, height = read(size_bits[0]) + 1, read(size_bits[1]) + 1
    has_ids = not is_reduced and read()
    id_bits = read(4) + 2 + read(3) + 1 if has_ids else 0
    read(3)  # large superblocks, filtered intra prediction, intra edge filter
    screen_content = integer_vectors = SELECT
    if not is_reduced:
        read(4)  # inter-intra and masked compounds, warped motion, dual filter
        order_hint = read()
        read(2 if order_hint else 0)
        screen_content = SELECT if read() else read()
        if screen_content:
            integer_vectors = SELECT if read() else read()
        read(3 if order_hint else 0)
    read(3)  # super-resolution, CDEF, restoration
    is_deep = bool(read())
    return Sequence(width, height, size_bits, is_reduced, time_bits, screen_content, integer_vectors, id_bits, is_deep)


def _skip_operating_points(read: _BitReader) -> int:
    """Skip timing, decoder model and operating points; return the bits of temporal_point_info in frame headers."""
    time_bits = delay_bits = 0
    if read():  # timing info
        read(64)
        equal_intervals = read()
        if equal_intervals:  # uvlc (AV1, 4.10.3)
            zeros = 0
            while not read():
                zeros += 1
            read(zeros if zeros < 32 else 0)
        if read():  # decoder model info
            delay_bits = read(5) + 1
            read(37)
            time_bits = 0 if equal_intervals else read(5) + 1
            read(5 if equal_intervals else 0)
    has_display_delay = read()
    for _ in range(read(5) + 1):
        read(12)
        read(read(5) > 7)
        if delay_bits and read():
            read(2 * delay_bits + 1)
        if has_display_delay and read():
            read(4)
    return time_bits


def _overrides_size(read: _BitReader, sequence: Sequence) -> bool:
    """Whether a frame header gives a size of its own (AV1, 5.9.2)."""
    if sequence.is_reduced or read():  # or it shows a frame that exists
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
