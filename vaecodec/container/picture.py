"""Header and chunks <-> bytes: the .vae file of a picture, as in docs/reference/format.md.  Standard library only.

    magic    89 56 41 45 0D 0A 1A 0A
    HEAD     version, model, size, quality step, tile size, channels, for each tile its length and symbol CRC, and
             perhaps a filter
             or PICT: version, coding, channels, depth, size of a picture in a classical coding
    iccp exif xmp_ phys   optional, deflated
    grey ALPH             optional: the picture is grey; its alpha plane, without loss
    DATA     the tiles, end to end; or the picture as a WebP, PNG or AVIF file

A chunk is { u32 length, 4-byte tag, payload, u32 CRC-32 of tag and payload }, little-endian.  A tag that begins
with a small letter may be skipped by a decoder that does not know it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

from vaecodec.config import MAX_CHANNELS, PICTURE_CHANNELS, STEPS
from vaecodec.errors import FormatError

SUFFIX = ".vae"
MAGIC = b"\x89VAE\r\n\x1a\n"
VERSION = 1
FIXED = struct.Struct("<BB16sIIHBB")  # version, flags, model, height, width, step, log2 of tile, channels
FILTERED = 1  # of the flags: what follows the tiles in HEAD is a filter
TILE = struct.Struct("<II")  # bytes of the tile, CRC-32 of its symbols
PIXELS = struct.Struct("<I")  # CRC-32 of the tile's pixels
TILES_AT_ONCE = 1 << 12  # entries of the table that are unpacked together
LENGTHS = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * TILES_AT_ONCE, "little")  # their bits in that many entries
MIN_TILE_LOG2, MAX_TILE_LOG2 = 6, 12
MAX_SIDE = 1 << 24
MAX_UNKNOWN = 1024  # chunks that are skipped: each takes time, however small it is
MAX_METADATA = 1 << 24  # bytes of one metadata chunk, inflated
METADATA = {"icc": b"iccp", "exif": b"exif", "xmp": b"xmp_", "dpi": b"phys"}
PICT = struct.Struct("<BBBBII")  # version, coding, channels, depth, height, width
CODINGS = ("lossless", "avif")  # by that field
GREY, ALPHA = b"grey", b"ALPH"
KNOWN = (b"HEAD", b"PICT", GREY, ALPHA, b"DATA", *METADATA.values())


class Tile(NamedTuple):
    """Where a tile's payload lies in the file, and the CRC-32 of its symbols and of its pixels."""

    offset: int
    length: int
    crc: int
    pixels: int


class Tiles(Sequence[Tile]):
    """The table of tiles in HEAD, which may have millions of entries: they are unpacked when they are asked for."""

    def __init__(self, table: bytes | memoryview = b"", offset: int = 0) -> None:
        """Lengths and CRCs of symbols, then CRCs of pixels; `offset` is where the first tile lies in the file."""
        count = len(table) // (TILE.size + PIXELS.size)
        self._table, self._begins = memoryview(table)[: TILE.size * count], [offset]
        self._pixels = memoryview(table)[TILE.size * count :]
        size = TILES_AT_ONCE * TILE.size
        for begin in range(0, len(self._table), size):
            block = int.from_bytes(self._table[begin : begin + size], "little") & LENGTHS
            # The remainder is the sum of the 64-bit words, as 2**64 is 1 modulo 2**64 - 1.
            self._begins.append(self._begins[-1] + block % ((1 << 64) - 1))
        self._last: tuple[int, list[Tile]] = (-1, [])

    @property
    def end(self) -> int:
        """Where the last tile ends in the file."""
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
            self._last = last = block, self._unpacked(block)
        return last[1][place]

    def _unpacked(self, block: int) -> list[Tile]:
        size, offset, found = TILES_AT_ONCE * TILE.size, self._begins[block], []
        sums = self._pixels[block * TILES_AT_ONCE * PIXELS.size : (block + 1) * TILES_AT_ONCE * PIXELS.size]
        entries = TILE.iter_unpack(self._table[block * size : (block + 1) * size])
        for (length, crc), (pixels,) in zip(entries, PIXELS.iter_unpack(sums), strict=True):
            found.append(Tile(offset, length, crc, pixels))
            offset += length
        return found


class Header(NamedTuple):
    """What HEAD says; `model` is 32 hexadecimal digits, sides are in pixels, `channels` those of the model; `filter` is
    one of transforms.restoration, or empty.
    """

    model: str
    height: int
    width: int
    step: int
    tile: int
    version: int = VERSION
    channels: int = 3
    filter: bytes = b""

    @property
    def is_picture(self) -> bool:
        """Whether it is grey or RGB, and not a number of channels that no picture has."""
        return self.channels in PICTURE_CHANNELS


class Classical(NamedTuple):
    """What PICT says: `channels` are grey, grey + alpha, RGB or RGBA, of 8 or 16 bits; sides are in pixels."""

    coding: str  # of CODINGS
    height: int
    width: int
    channels: int
    depth: int
    version: int = VERSION

    @property
    def is_picture(self) -> bool:
        """It always is."""
        return True


class Span(NamedTuple):
    """Where a payload lies in the file."""

    offset: int
    length: int

    def of(self, data: bytes | memoryview) -> memoryview:
        """The payload itself."""
        return memoryview(data)[self.offset : self.offset + self.length]


def tile_count(height: int, width: int, tile: int) -> int:
    """Tiles of a picture, in rows from the top left."""
    return -(-height // tile) * -(-width // tile)


def chunk(tag: bytes, payload: bytes) -> bytes:
    """One chunk, with its length and CRC."""
    return struct.pack("<I", len(payload)) + tag + payload + struct.pack("<I", zlib.crc32(tag + payload))


def pack(header: Header, tiles: list[tuple[bytes, int, int]], metadata: dict[str, bytes] | None = None) -> bytes:
    """A whole file from (payload, CRC of the symbols, CRC of the pixels) of each tile; inverse of parse.

    Raises FormatError where a field cannot hold its value.
    """
    size = header.tile.bit_length() - 1
    _check_sides(header.height, header.width)
    fixed = (
        VERSION,
        FILTERED if header.filter else 0,
        bytes.fromhex(header.model),
        header.height,
        header.width,
        header.step,
        size,
    )
    head = FIXED.pack(*fixed, 0 if header.channels == 3 else header.channels)
    head += b"".join(TILE.pack(len(data), crc) for data, crc, _ in tiles)
    head += b"".join(PIXELS.pack(crc) for *_, crc in tiles) + header.filter
    return _pack(chunk(b"HEAD", head), b"".join(data for data, *_ in tiles), metadata)


def with_pixel_crcs(data: bytes, crcs: list[int]) -> bytes:
    """A file whose HEAD has these CRCs of the pixels of its tiles, in place of those that it has."""
    begin = len(MAGIC) + 8
    header = parse(data, check_data=False).header
    (length,) = struct.unpack_from("<I", data, len(MAGIC))
    count = tile_count(header.height, header.width, header.tile)
    at = FIXED.size + TILE.size * count
    head = data[begin : begin + length]
    head = head[:at] + b"".join(map(PIXELS.pack, crcs)) + head[at + PIXELS.size * count :]
    return data[: len(MAGIC)] + chunk(b"HEAD", head) + data[begin + length + 4 :]


def pack_classical(picture: Classical, payload: bytes, metadata: dict[str, bytes] | None = None) -> bytes:
    """A whole file of a picture in a classical coding; `payload` is what classical makes of it.

    Raises FormatError where a field cannot hold its value.
    """
    _check_sides(picture.height, picture.width)
    coding, channels, depth = CODINGS.index(picture.coding), picture.channels, picture.depth
    head = PICT.pack(VERSION, coding, channels, depth, picture.height, picture.width)
    return _pack(chunk(b"PICT", head), payload, metadata)


def insert(data: bytes, extra: list[tuple[bytes, bytes]]) -> bytes:
    """A file with more chunks, (tag, payload) of each, before its DATA."""
    at = next(offset for tag, offset, _ in chunks(data, check_data=False) if tag == b"DATA") - 8
    return b"".join([data[:at], *(chunk(tag, payload) for tag, payload in extra), data[at:]]) if extra else data


def _check_sides(height: int, width: int, what: str = "a picture of {} x {} cannot be stored") -> None:
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise FormatError(f"{what.format(width, height)} (sides are 1..{MAX_SIDE})")


def _pack(head: bytes, payload: bytes, metadata: dict[str, bytes] | None) -> bytes:
    parts = [MAGIC, head]
    for name, value in (metadata or {}).items():
        if len(value) > MAX_METADATA:
            raise FormatError(f"{name} metadata of {len(value)} bytes is too large (at most {MAX_METADATA})")
        parts.append(chunk(METADATA[name], zlib.compress(value, 9)))
    return b"".join([*parts, chunk(b"DATA", payload)])


def chunks(data: bytes | memoryview, check_data: bool = True) -> Iterator[tuple[bytes, int, int]]:
    """(tag, offset, length) of each payload in a file; raises FormatError on damage.

    The CRC of DATA, which covers most of the file, is left out on request: its tiles have their own.
    """
    view = memoryview(data)
    if bytes(view[:8]) != MAGIC:
        hint = "" if len(view) else " (it is empty)"
        raise FormatError(f"not a .vae file{hint}")
    position, unknown = len(MAGIC), 0
    tag = b""
    while position < len(view) and tag != b"DATA":
        if len(view) - position < 12:
            raise FormatError("the file is cut off inside a chunk header")
        (length,) = struct.unpack_from("<I", view, position)
        tag = bytes(view[position + 4 : position + 8])
        if tag == b"FILE" and position == len(MAGIC):
            raise FormatError("this .vae file holds a file that is not a picture (vaecodec decompress restores it)")
        if tag == b"PSET" and position == len(MAGIC):
            raise FormatError("this .vae file holds a set of small pictures (vaecodec unpack restores it)")
        if length > len(view) - position - 12:
            raise FormatError(f"the file is cut off or damaged inside chunk {tag!r}")
        begin, end = position + 8, position + 8 + length
        if tag != b"DATA" or check_data:
            if zlib.crc32(view[position + 4 : end]) != struct.unpack_from("<I", view, end)[0]:
                raise FormatError(f"chunk {tag!r} is damaged (its CRC does not match)")
        if tag not in KNOWN and not 97 <= tag[0] <= 122:
            raise FormatError(f"chunk {tag!r} is needed to decode this file, and this version does not know it")
        unknown += tag not in KNOWN
        if unknown > MAX_UNKNOWN:
            raise FormatError(f"the file has more than {MAX_UNKNOWN} chunks that this version does not know")
        yield tag, begin, length
        position = end + 4
    if tag != b"DATA":
        raise FormatError("the file is cut off: it has no DATA chunk")
    if position != len(view):
        raise FormatError(f"{len(view) - position} bytes follow the end of the file")


def read_head(payload: bytes | memoryview) -> tuple[Header, bytes | memoryview]:
    """(header, table of the tiles) of a HEAD chunk; raises FormatError on any value out of range."""
    header = read_fixed(payload, len(payload))
    end = FIXED.size + (TILE.size + PIXELS.size) * tile_count(header.height, header.width, header.tile)
    return header._replace(filter=bytes(payload[end:])), payload[FIXED.size : end]


def read_fixed(payload: bytes | memoryview, length: int) -> Header:
    """The header, but for its filter, from the beginning of a HEAD chunk of this length; raises FormatError."""
    _check_version(payload)
    if len(payload) < FIXED.size:
        raise FormatError(f"the header is {length} bytes long, expected at least {FIXED.size}")
    version, flags, model, height, width, step, size, channels = FIXED.unpack_from(payload)
    if flags & ~FILTERED:
        raise FormatError("the header sets flags that this version does not know")
    if channels == 3 or channels > MAX_CHANNELS:
        raise FormatError(f"the header gives {channels} channels (3 are written as 0, at most {MAX_CHANNELS})")
    _check_sides(height, width, "the header gives a picture of {} x {}")
    if step >= STEPS:
        raise FormatError(f"the header gives quality step {step} (at most {STEPS - 1})")
    if not MIN_TILE_LOG2 <= size <= MAX_TILE_LOG2:
        raise FormatError(f"the header gives tiles of 2**{size} pixels (2**{MIN_TILE_LOG2}..2**{MAX_TILE_LOG2})")
    count = tile_count(height, width, 1 << size)
    end = FIXED.size + (TILE.size + PIXELS.size) * count
    if flags and length == end:
        raise FormatError("the header says that there is a filter, and has none")
    if length < end or (length > end and not flags):
        listed = (length - FIXED.size) / (TILE.size + PIXELS.size)
        raise FormatError(f"the header lists {listed:g} tiles, expected {count}")
    return Header(model.hex(), height, width, step, 1 << size, version, channels or 3)


def read_pict(payload: bytes | memoryview) -> Classical:
    """A PICT chunk; raises FormatError on any value out of range."""
    _check_version(payload)
    if len(payload) != PICT.size:
        raise FormatError(f"the header is {len(payload)} bytes long, expected {PICT.size}")
    version, coding, channels, depth, height, width = PICT.unpack(payload)
    if coding >= len(CODINGS):
        raise FormatError(f"the picture is in coding {coding}, which this version does not know")
    if not (1 <= channels <= 4 and depth in ((8, 16) if CODINGS[coding] == "lossless" else (8,))):
        raise FormatError(f"the header gives {channels} channels of {depth} bits")
    _check_sides(height, width, "the header gives a picture of {} x {}")
    return Classical(CODINGS[coding], height, width, channels, depth, version)


def _check_version(payload: bytes | memoryview) -> None:
    if payload and payload[0] != VERSION:
        raise FormatError(f"file version {payload[0]} is not supported (this is a reader of version {VERSION})")


class Contents(NamedTuple):
    """A file taken apart; payloads stay where they are."""

    head: Header | Classical
    tiles: Sequence[Tile]  # none of a classical coding
    metadata: dict[str, Span]  # deflated
    data: Span
    grey: bool
    alpha: Span | None

    @property
    def channels(self) -> int:
        """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA; or what no picture has (Header.is_picture)."""
        if isinstance(self.head, Classical) or not self.head.is_picture:
            return self.head.channels
        return (1 if self.grey else 3) + (self.alpha is not None)


def check_picture(head: Header | Classical) -> None:
    """Raises FormatError where a file's channels are no picture's."""
    if not head.is_picture:
        raise FormatError(f"holds {head.channels} channels, which no picture has: vaecodec.decode gives an array")


class Parsed(NamedTuple):
    """A file of latents taken apart, as its codec needs it."""

    header: Header
    tiles: Sequence[Tile]
    metadata: dict[str, Span]


def parse(data: bytes | memoryview, check_data: bool = True) -> Parsed:
    """A file of latents taken apart and checked, short of decoding it; raises FormatError."""
    found = contents(data, check_data)
    if isinstance(found.head, Classical):
        raise FormatError(f"this file holds its picture in coding {found.head.coding} and has no latents")
    return Parsed(found.head, found.tiles, found.metadata)


def contents(data: bytes | memoryview, check_data: bool = True) -> Contents:
    """Any .vae file taken apart and checked, short of decoding it; raises FormatError."""
    view = memoryview(data)
    head: Header | Classical | None = None
    table: bytes | memoryview = b""
    spans: dict[bytes, Span] = {}
    for tag, offset, length in chunks(view, check_data):
        if (tag in (b"HEAD", b"PICT")) != (head is None):
            raise FormatError("the first chunk, and only the first, must be HEAD or PICT")
        if tag in KNOWN and tag in spans:
            raise FormatError(f"chunk {tag!r} occurs twice")
        if tag in KNOWN:
            spans[tag] = Span(offset, length)
        if tag == b"HEAD":
            head, table = read_head(view[offset : offset + length])
        elif tag == b"PICT":
            head = read_pict(bytes(view[offset : offset + length]))
        elif tag == GREY and isinstance(head, Classical):
            raise FormatError(f"chunk {tag!r} does not go with PICT")
        elif tag in (GREY, ALPHA) and isinstance(head, Header):
            check_beside(head, tag, length)
    assert head is not None  # chunks() ends with DATA, which the head must precede
    data_span = spans[b"DATA"]
    tiles = Tiles(table, data_span.offset)
    if isinstance(head, Header) and tiles.end != data_span.offset + data_span.length:
        raise FormatError(f"the tiles do not fill the DATA chunk of {data_span.length} bytes")
    if isinstance(head, Classical) and (ALPHA in spans) != (head.coding == "avif" and head.channels in (2, 4)):
        raise FormatError(f"chunk {ALPHA!r} is missing or does not go with coding {head.coding}")
    known = {name: spans[tag] for name, tag in METADATA.items() if tag in spans}
    grey = GREY in spans or (isinstance(head, Header) and head.channels == 1)
    return Contents(head, tiles, known, data_span, grey, spans.get(ALPHA))


def check_beside(head: Header, tag: bytes, length: int) -> None:
    """Raises FormatError where grey or ALPH, of so many bytes, does not go with a HEAD."""
    if head.channels != 3 and not (tag == ALPHA and head.is_picture):
        raise FormatError(f"chunk {tag!r} does not go with {head.channels} channels")
    if tag == GREY and length:
        raise FormatError(f"chunk {tag!r} has {length} bytes, expected none")


def metadata(data: bytes) -> dict[str, bytes]:
    """Metadata by name ("icc", "exif", "xmp", "dpi"), inflated; raises FormatError on damage."""
    return {name: inflated(name, span.of(data)) for name, span in contents(data).metadata.items()}


def inflated(name: str, payload: bytes | memoryview) -> bytes:
    """A metadata chunk's payload, inflated; raises FormatError on damage."""
    inflate = zlib.decompressobj()
    try:
        value = inflate.decompress(payload, MAX_METADATA)
    except zlib.error as exc:
        raise FormatError(f"{name} metadata is damaged ({exc})") from exc
    if not inflate.eof or inflate.unused_data:
        raise FormatError(f"{name} metadata is damaged or larger than {MAX_METADATA} bytes")
    return value


def quality_of(step: int) -> float:
    """The quality, 1..100, of a quality step; inverse of step_of."""
    return 1 + 99 * step / (STEPS - 1)


def step_of(quality: float) -> int:
    """The quality step nearest to a quality in 1..100; raises ValueError outside."""
    if not 1 <= quality <= 100:  # refuses NaN too
        raise ValueError(f"quality is {quality!r}, expected a number in 1..100")
    return round((quality - 1) / 99 * (STEPS - 1))


def info(data: bytes) -> dict[str, Any]:
    """What a file says of itself, without its model: JSON-ready.  Raises FormatError."""
    found = contents(data)
    head = found.head
    about: dict[str, Any] = {"version": head.version}
    if isinstance(head, Classical):
        about["coding"] = head.coding
    else:
        about["coding"] = "vae"
        about["model"] = head.model
        about["quality"] = round(quality_of(head.step), 2)
        about["step"] = head.step
        about["tile"] = head.tile
        about["tiles"] = len(found.tiles)
        about["filtered"] = bool(head.filter)
    return {
        "kind": "picture" if head.is_picture else "array",
        **about,
        "height": head.height,
        "width": head.width,
        "channels": found.channels,
        "depth": head.depth if isinstance(head, Classical) else 8,
        "metadata": sorted(found.metadata),
        "bytes": len(data),
        "bpp": 8 * len(data) / (head.height * head.width),
    }
