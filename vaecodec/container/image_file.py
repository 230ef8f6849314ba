"""Read and write the .vae file of an image: header, table of tiles, metadata, payloads (docs/reference/format.md).

    magic    89 56 41 45 0D 0A 1A 0A
    HEAD     version, model, size, quality index, tile size, channels; length and CRCs of each tile; perhaps a filter
             or PICT: version, coding, channels, depth and size of an image in a fallback coding
    iccp exif xmp_ phys   optional metadata, deflated
    grey deep ALPH        optional: the image is grey; it has more than 8 bits a sample; its alpha plane, without loss
    DATA     the tiles, end to end; or the image as a WebP, PNG or AVIF file, or in tiles of the adaptive coding

Standard library only.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple, overload

from vaecodec.config import IMAGE_CHANNELS, MAX_CHANNELS, MAX_TILT, QUALITY_INDICES, QUALITY_SCALE, TILTED_SCALE
from vaecodec.container import (
    ALPHA,
    DEEP,
    GREY,
    KNOWN,
    MAGIC,
    MAX_TILE_LOG2,
    METADATA,
    MIN_TILE_LOG2,
    VERSION,
    FallbackHeader,
    Span,
    check_sides,
    check_version,
    inflate_metadata,
    name_of_tag,
    pack_chunk,
    pack_chunks,
    pack_pict,
    read_chunks,
    read_leading_chunks,
    read_pict,
)
from vaecodec.errors import FormatError

HEAD = struct.Struct("<BB16sIIHBB")  # version, flags, model, height, width, quality index, log2 of tile, channels
FILTERED = 1  # of the flags: a filter follows the table of tiles in HEAD
TILT_BIT = 2  # of the flags, whose bits 1 to 3 are the tilt
BY_BAND = 16  # of the flags: parts may have scale offsets by band
TILE = struct.Struct("<II")  # bytes of the tile, CRC-32 of its symbols
PIXELS = struct.Struct("<I")  # CRC-32 of the tile's pixels
ENTRY_BYTES = TILE.size + PIXELS.size
TILES_AT_ONCE = 1 << 12  # entries of the table that are unpacked together
ABOVE = 1 << 8 * TILE.size * TILES_AT_ONCE  # the bit above that many entries
LENGTHS = ABOVE | int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * TILES_AT_ONCE, "little")  # their bits in entries


class Tile(NamedTuple):
    """Place of a tile's payload in the file, and the CRC-32 of its symbols and of its pixels."""

    offset: int
    length: int
    crc: int
    pixels: int


class TileTable(Sequence[Tile]):
    """The table of tiles in HEAD: it may have millions of entries, and unpacks those that are asked for."""

    def __init__(self, table: bytes | memoryview = b"", offset: int = 0) -> None:
        """Lengths and CRCs of symbols, then CRCs of pixels; the first tile begins at `offset` in the file."""
        count = len(table) // ENTRY_BYTES
        self._table, self._begins = memoryview(table)[: TILE.size * count], [offset]
        self._pixels = memoryview(table)[TILE.size * count :]
        size = TILES_AT_ONCE * TILE.size
        for begin in range(0, len(self._table), size):
            # CPython 3.14 gives the memory of a large int that becomes small to the next small one: `block` is large.
            block = (int.from_bytes(self._table[begin : begin + size], "little") | ABOVE) & LENGTHS
            # The remainder is the sum of the 64-bit words, as 2**64 is 1 modulo 2**64 - 1, and 1 for the bit above.
            self._begins.append(self._begins[-1] + block % ((1 << 64) - 1) - 1)
        self._last: tuple[int, list[Tile]] = (-1, [])

    @property
    def end(self) -> int:
        """The end of the last tile in the file."""
        return self._begins[-1]

    def __len__(self) -> int:
        return len(self._table) // TILE.size

    @overload
    def __getitem__(self, index: int) -> Tile: ...

    @overload
    def __getitem__(self, index: slice) -> list[Tile]: ...

    def __getitem__(self, index: int | slice) -> Tile | list[Tile]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        block, place = divmod(range(len(self))[index], TILES_AT_ONCE)
        last = self._last  # one assignment, so that threads see a whole pair
        if last[0] != block:
            self._last = last = block, self._unpack(block)
        return last[1][place]

    def _unpack(self, block: int) -> list[Tile]:
        begin, end = block * TILES_AT_ONCE, (block + 1) * TILES_AT_ONCE
        entries = TILE.iter_unpack(self._table[begin * TILE.size : end * TILE.size])
        pixel_crcs = PIXELS.iter_unpack(self._pixels[begin * PIXELS.size : end * PIXELS.size])
        offset, tiles = self._begins[block], []
        for (length, crc), (pixels,) in zip(entries, pixel_crcs, strict=True):
            tiles.append(Tile(offset, length, crc, pixels))
            offset += length
        return tiles


class Header(NamedTuple):
    """The fields of HEAD: `model` is 32 hexadecimal digits, sides are in pixels, `channels` are those of the model,
    `filter` is the bytes of a restoration filter (transforms.Filter), or empty, `tilt` is that of quantisation
    steps (transforms.networks), `by_band` whether parts may have scale offsets by band.
    """

    model: str
    height: int
    width: int
    quality_index: int
    tile: int
    version: int = VERSION
    channels: int = 3
    filter: bytes = b""
    tilt: int = 0
    by_band: bool = False

    @property
    def is_image(self) -> bool:
        """Whether it is grey or RGB, and not of a number of channels that no image has."""
        return self.channels in IMAGE_CHANNELS


class Contents(NamedTuple):
    """The parts of a file; payloads stay in place."""

    header: Header | FallbackHeader
    tiles: Sequence[Tile]  # empty in a fallback coding
    metadata: dict[str, Span]  # deflated
    data: Span
    grey: bool
    alpha: Span | None
    depth: int = 8  # bits a sample; those of more than 8 are u16

    @property
    def channels(self) -> int:
        """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA; or a number that no image has (Header.is_image)."""
        if isinstance(self.header, FallbackHeader) or not self.header.is_image:
            return self.header.channels
        return (1 if self.grey else 3) + (self.alpha is not None)


class Parsed(NamedTuple):
    """The parts of a file of latents that its codec needs."""

    header: Header
    tiles: Sequence[Tile]
    metadata: dict[str, Span]


class Preamble(NamedTuple):
    """The chunks before the pixels, read from a stream; `channels` are those of Contents, `metadata` is deflated."""

    header: Header | FallbackHeader
    channels: int
    metadata: dict[str, bytes]
    depth: int = 8  # bits a sample


def tile_count(height: int, width: int, tile: int) -> int:
    """The number of tiles of an image, in rows from the top left."""
    return -(-height // tile) * -(-width // tile)


def quality_of(quality_index: int) -> float:
    """The quality, 1..100, of a quality index; inverse of quality_index_of."""
    return _interpolate(quality_index, [(index, quality) for quality, index in QUALITY_SCALE])


def shown_quality_of(quality_index: int, tilt: int = 0) -> float:
    """The shortest quality with this quality index and tilt: a whole number if there is one, else one decimal."""
    first, second = TILTED_SCALE
    quality = quality_of(round(max(0, (quality_index - tilt * first) / (1 + tilt * second))))
    if tilt and quality_index == QUALITY_INDICES - 1:
        quality = 100.0  # the highest of those with the last index
    whole = float(round(quality))
    return whole if quality_index_of(whole, tilt) == quality_index else round(quality, 1)


def quality_index_of(quality: float, tilt: int = 0) -> int:
    """The quality index nearest to a quality in 1..100, for files with a tilt; raises ValueError outside."""
    if not 1 <= quality <= 100:  # refuses NaN too
        raise ValueError(f"quality is {quality!r}, expected a number in 1..100")
    index = round(_interpolate(quality, QUALITY_SCALE))
    first, second = TILTED_SCALE
    return min(round(index + tilt * (first + second * index)), QUALITY_INDICES - 1)


def _interpolate(x: float, points: Sequence[tuple[float, float]]) -> float:
    """The value at x, in the range of points, linear between them."""
    at = max(1, bisect_left(points, (x,)))
    (low, first), (high, second) = points[at - 1], points[at]
    return first + (second - first) * (x - low) / (high - low)


def pack(header: Header, tiles: list[tuple[bytes, int, int]], metadata: dict[str, bytes] | None = None) -> bytes:
    """A whole file from (payload, CRC of the symbols, CRC of the pixels) of each tile; inverse of parse.

    Raises FormatError where a field cannot hold its value.
    """
    check_sides(header.height, header.width)
    head = HEAD.pack(
        VERSION,
        (FILTERED if header.filter else 0) + TILT_BIT * header.tilt + BY_BAND * header.by_band,
        bytes.fromhex(header.model),
        header.height,
        header.width,
        header.quality_index,
        header.tile.bit_length() - 1,
        0 if header.channels == 3 else header.channels,
    )
    head += b"".join(TILE.pack(len(payload), crc) for payload, crc, _ in tiles)
    head += b"".join(PIXELS.pack(crc) for *_, crc in tiles) + header.filter
    return pack_chunks(pack_chunk(b"HEAD", head), metadata, b"".join(payload for payload, *_ in tiles))


def with_pixel_crcs(data: bytes, crcs: list[int]) -> bytes:
    """The file with these CRCs of the pixels of its tiles in HEAD, in place of its own."""
    header = parse(data, check_data=False).header
    count = tile_count(header.height, header.width, header.tile)
    _, begin, length = next(read_chunks(data, check_data=False))
    at = HEAD.size + TILE.size * count
    head = data[begin : begin + at] + b"".join(map(PIXELS.pack, crcs))
    head += data[begin + at + PIXELS.size * count : begin + length]
    return MAGIC + pack_chunk(b"HEAD", head) + data[begin + length + 4 :]


def pack_fallback(header: FallbackHeader, payload: bytes, metadata: dict[str, bytes] | None = None) -> bytes:
    """A whole file of an image in a fallback coding, encoded to `payload` (codec.fallback).

    Raises FormatError where a field cannot hold its value.
    """
    return pack_chunks(pack_chunk(b"PICT", pack_pict(header)), metadata, payload)


def read_head(payload: bytes | memoryview, length: int) -> Header:
    """The header, but for its filter, from the beginning of a HEAD chunk of this length.

    Raises FormatError on any value out of range.
    """
    check_version(payload)
    if len(payload) < HEAD.size:
        raise FormatError(f"the header is {length} bytes long, expected at least {HEAD.size}")
    version, flags, model, height, width, quality_index, size, channels = HEAD.unpack_from(payload)
    if flags & ~(FILTERED + TILT_BIT * MAX_TILT + BY_BAND):
        raise FormatError("the header sets flags that this version does not know")
    if channels == 3 or channels > MAX_CHANNELS:
        raise FormatError(f"the header gives {channels} channels (3 are written as 0, at most {MAX_CHANNELS})")
    check_sides(height, width, "the header gives an image of {} x {}")
    if quality_index >= QUALITY_INDICES:
        raise FormatError(f"the header gives quality index {quality_index} (at most {QUALITY_INDICES - 1})")
    if not MIN_TILE_LOG2 <= size <= MAX_TILE_LOG2:
        raise FormatError(f"the header gives tiles of 2**{size} pixels (2**{MIN_TILE_LOG2}..2**{MAX_TILE_LOG2})")
    count = tile_count(height, width, 1 << size)
    end = HEAD.size + ENTRY_BYTES * count
    if flags & FILTERED and length == end:
        raise FormatError("the header says that there is a filter, and has none")
    if length < end or (length > end and not flags & FILTERED):
        raise FormatError(f"the header lists {(length - HEAD.size) / ENTRY_BYTES:g} tiles, expected {count}")
    tilt, by_band = flags // TILT_BIT & MAX_TILT, bool(flags & BY_BAND)
    return Header(model.hex(), height, width, quality_index, 1 << size, version, channels or 3, b"", tilt, by_band)


def _check_beside(header: Header | FallbackHeader, tag: bytes, length: int) -> None:
    """Raise FormatError where grey, deep or ALPH, of so many bytes, does not go with the first chunk."""
    if isinstance(header, FallbackHeader):
        if tag != ALPHA:
            raise FormatError(f"chunk {name_of_tag(tag)} does not go with PICT")
        return
    if header.channels != 3 and not (tag != GREY and header.is_image):
        raise FormatError(f"chunk {name_of_tag(tag)} does not go with {header.channels} channels")
    if tag != ALPHA and length != (tag == DEEP):
        raise FormatError(f"chunk {name_of_tag(tag)} has {length} bytes, expected {int(tag == DEEP)}")


def _read_depth(header: Header | FallbackHeader, deep: bytes | memoryview | None) -> int:
    """Bits a sample, of PICT or of the chunk deep; raises FormatError on any value out of range."""
    if isinstance(header, FallbackHeader):
        return header.depth
    depth = deep[0] if deep else 8
    if deep and not 9 <= depth <= 16:
        raise FormatError(f"chunk deep gives {depth} bits (9..16)")
    return depth


def check_is_image(header: Header | FallbackHeader) -> None:
    """Raise FormatError where a file has a number of channels that no image has."""
    if not header.is_image:
        raise FormatError(f"holds {header.channels} channels, which no image has: vaecodec.decode gives an array")


def contents(data: bytes | memoryview, check_data: bool = True) -> Contents:
    """The parts of any file of an image, checked short of decoding them; raises FormatError."""
    view = memoryview(data)
    header: Header | FallbackHeader | None = None
    table: bytes | memoryview = b""
    spans: dict[bytes, Span] = {}
    for tag, offset, length in read_chunks(view, check_data):
        if (tag in (b"HEAD", b"PICT")) != (header is None):
            raise FormatError("the first chunk, and only the first, must be HEAD or PICT")
        if tag in KNOWN and tag in spans:
            raise FormatError(f"chunk {name_of_tag(tag)} occurs twice")
        if tag in KNOWN:
            spans[tag] = Span(offset, length)
        if tag == b"HEAD":
            payload = view[offset : offset + length]
            header = read_head(payload, length)
            end = HEAD.size + ENTRY_BYTES * tile_count(header.height, header.width, header.tile)
            header, table = header._replace(filter=bytes(payload[end:])), payload[HEAD.size : end]
        elif tag == b"PICT":
            header = read_pict(view[offset : offset + length])
        elif tag in (GREY, DEEP, ALPHA) and header is not None:
            _check_beside(header, tag, length)
    assert header is not None  # read_chunks ends with DATA, which the header must precede
    payloads = spans[b"DATA"]
    tiles = TileTable(table, payloads.offset)
    if isinstance(header, Header) and tiles.end != payloads.offset + payloads.length:
        raise FormatError(f"the tiles do not fill the DATA chunk of {payloads.length} bytes")
    if isinstance(header, FallbackHeader) and (ALPHA in spans) != header.has_alpha_chunk:
        raise FormatError(f"chunk {name_of_tag(ALPHA)} is missing or does not go with coding {header.coding}")
    known = {name: spans[tag] for name, tag in METADATA.items() if tag in spans}
    grey = GREY in spans or (isinstance(header, Header) and header.channels == 1)
    depth = _read_depth(header, spans[DEEP].of(view) if DEEP in spans else None)
    return Contents(header, tiles, known, payloads, grey, spans.get(ALPHA), depth)


def parse(data: bytes | memoryview, check_data: bool = True) -> Parsed:
    """The parts of a file of latents, checked short of decoding them; raises FormatError."""
    parts = contents(data, check_data)
    if isinstance(parts.header, FallbackHeader):
        raise FormatError(f"this file holds its image in coding {parts.header.coding} and has no latents")
    return Parsed(parts.header, parts.tiles, parts.metadata)


def metadata(data: bytes) -> dict[str, bytes]:
    """Metadata by name ("icc", "exif", "xmp", "dpi"), inflated; raises FormatError on damage."""
    return {name: inflate_metadata(name, span.of(data)) for name, span in contents(data).metadata.items()}


def info(data: bytes) -> dict[str, Any]:
    """The properties of a file of an image, JSON-ready, without its model; raises FormatError."""
    parts = contents(data)
    header = parts.header
    about: dict[str, Any] = {"version": header.version}
    if isinstance(header, FallbackHeader):
        about["coding"] = header.fidelity
        if header.coding != "avif":
            about["max_error"] = header.max_error
    else:
        about["coding"] = "vae"
        about["model"] = header.model
        about["quality"] = shown_quality_of(header.quality_index, header.tilt)
        about["step"] = header.quality_index
        about["tile"] = header.tile
        about["tiles"] = len(parts.tiles)
        about["filtered"] = bool(header.filter)
    return {
        "kind": "picture" if header.is_image else "array",
        **about,
        "height": header.height,
        "width": header.width,
        "channels": parts.channels,
        "depth": parts.depth,
        "metadata": sorted(parts.metadata),
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.height * header.width),
    }


def read_preamble(file: BinaryIO) -> Preamble:
    """Read what precedes the pixels, but not alpha, from the start of a seekable file; raises FormatError on damage.

    A file that is cut off in its alpha or its pixels has a preamble; contents() finds all damage.
    """
    payloads, length = read_leading_chunks(file, HEAD.size)
    header = read_head(payloads[b"HEAD"], length) if b"HEAD" in payloads else read_pict(payloads[b"PICT"])
    for tag in payloads.keys() & {GREY, DEEP, ALPHA}:
        _check_beside(header, tag, len(payloads[tag]))
    channels, depth = header.channels, _read_depth(header, payloads.get(DEEP))
    if isinstance(header, Header):
        channels = (1 if GREY in payloads else channels) + (ALPHA in payloads)
    known = {name: payloads[tag] for name, tag in METADATA.items() if tag in payloads}
    return Preamble(header, channels, known, depth)
