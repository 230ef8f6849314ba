"""Header and chunks <-> bytes: the .vae file of a picture, as in docs/format.md.  Standard library only.

    magic    89 56 41 45 0D 0A 1A 0A
    HEAD     version, model, size, quality step, tile size, and for each tile its length and symbol CRC
    iccp exif xmp_   optional, deflated
    DATA     the tiles, end to end

A chunk is { u32 length, 4-byte tag, payload, u32 CRC-32 of tag and payload }, little-endian.  A tag that begins
with a small letter may be skipped by a decoder that does not know it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from vaecodec.config import STEPS
from vaecodec.errors import FormatError

MAGIC = b"\x89VAE\r\n\x1a\n"
VERSION = 1
FIXED = struct.Struct("<BB8sIIHBB")  # version, flags, model, height, width, step, log2 of tile, reserved
TILE = struct.Struct("<II")  # bytes of the tile, CRC-32 of its symbols
MIN_TILE_LOG2, MAX_TILE_LOG2 = 6, 12
MAX_SIDE = 1 << 24
MAX_METADATA = 1 << 24  # bytes of one metadata chunk, inflated
METADATA = {"icc": b"iccp", "exif": b"exif", "xmp": b"xmp_"}


class Tile(NamedTuple):
    """Where a tile's payload lies in the file, and what its symbols must sum to."""

    offset: int
    length: int
    crc: int


class Header(NamedTuple):
    """What HEAD says; `model` is 16 hexadecimal digits, sides are in pixels."""

    model: str
    height: int
    width: int
    step: int
    tile: int
    version: int = VERSION


def tile_count(height: int, width: int, tile: int) -> int:
    """Tiles of a picture, in rows from the top left."""
    return -(-height // tile) * -(-width // tile)


def chunk(tag: bytes, payload: bytes) -> bytes:
    """One chunk, with its length and CRC."""
    return struct.pack("<I", len(payload)) + tag + payload + struct.pack("<I", zlib.crc32(tag + payload))


def pack(header: Header, tiles: list[tuple[bytes, int]], metadata: dict[str, bytes] | None = None) -> bytes:
    """A whole file from (payload, symbol CRC) of each tile; inverse of parse.

    Raises FormatError where a field cannot hold its value.
    """
    size = header.tile.bit_length() - 1
    if not (0 < header.height <= MAX_SIDE and 0 < header.width <= MAX_SIDE):
        raise FormatError(f"a picture of {header.width} x {header.height} cannot be stored (sides are 1..{MAX_SIDE})")
    fixed = (VERSION, 0, bytes.fromhex(header.model), header.height, header.width, header.step, size, 0)
    head = FIXED.pack(*fixed) + b"".join(TILE.pack(len(data), crc) for data, crc in tiles)
    parts = [MAGIC, chunk(b"HEAD", head)]
    for name, value in (metadata or {}).items():
        if len(value) > MAX_METADATA:
            raise FormatError(f"{name} metadata of {len(value)} bytes is too large (at most {MAX_METADATA})")
        parts.append(chunk(METADATA[name], zlib.compress(value, 9)))
    parts.append(chunk(b"DATA", b"".join(data for data, _ in tiles)))
    return b"".join(parts)


def chunks(data: bytes | memoryview, check_data: bool = True) -> Iterator[tuple[bytes, int, int]]:
    """(tag, offset, length) of each payload in a file; raises FormatError on damage.

    The CRC of DATA, which covers most of the file, is left out on request: its tiles have their own.
    """
    view = memoryview(data)
    if bytes(view[:8]) != MAGIC:
        hint = "" if len(view) else " (it is empty)"
        raise FormatError(f"not a .vae file{hint}")
    position = len(MAGIC)
    tag = b""
    while position < len(view) and tag != b"DATA":
        if len(view) - position < 12:
            raise FormatError("the file is cut off inside a chunk header")
        (length,) = struct.unpack_from("<I", view, position)
        tag = bytes(view[position + 4 : position + 8])
        if tag == b"FILE" and position == len(MAGIC):
            raise FormatError("this .vae file holds a file that is not a picture (vaecodec decompress restores it)")
        if length > len(view) - position - 12:
            raise FormatError(f"the file is cut off or damaged inside chunk {tag!r}")
        begin, end = position + 8, position + 8 + length
        if tag != b"DATA" or check_data:
            if zlib.crc32(view[position + 4 : end]) != struct.unpack_from("<I", view, end)[0]:
                raise FormatError(f"chunk {tag!r} is damaged (its CRC does not match)")
        if tag not in (b"HEAD", b"DATA", *METADATA.values()) and not 97 <= tag[0] <= 122:
            raise FormatError(f"chunk {tag!r} is needed to decode this file, and this version does not know it")
        yield tag, begin, length
        position = end + 4
    if tag != b"DATA":
        raise FormatError("the file is cut off: it has no DATA chunk")
    if position != len(view):
        raise FormatError(f"{len(view) - position} bytes follow the end of the file")


def read_head(payload: bytes) -> tuple[Header, list[tuple[int, int]]]:
    """(header, [(length, CRC)] of the tiles) of a HEAD chunk; raises FormatError on any value out of range."""
    if payload and payload[0] != VERSION:
        raise FormatError(f"file version {payload[0]} is not supported (this is a reader of version {VERSION})")
    if len(payload) < FIXED.size:
        raise FormatError(f"the header is {len(payload)} bytes long, expected at least {FIXED.size}")
    version, flags, model, height, width, step, size, reserved = FIXED.unpack_from(payload)
    if flags or reserved:
        raise FormatError("the header sets flags that this version does not know")
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise FormatError(f"the header gives a picture of {width} x {height} (sides are 1..{MAX_SIDE})")
    if step >= STEPS:
        raise FormatError(f"the header gives quality step {step} (at most {STEPS - 1})")
    if not MIN_TILE_LOG2 <= size <= MAX_TILE_LOG2:
        raise FormatError(f"the header gives tiles of 2**{size} pixels (2**{MIN_TILE_LOG2}..2**{MAX_TILE_LOG2})")
    header = Header(model.hex(), height, width, step, 1 << size, version)
    count = tile_count(height, width, header.tile)
    if len(payload) != FIXED.size + TILE.size * count:
        raise FormatError(f"the header lists {(len(payload) - FIXED.size) / TILE.size:g} tiles, expected {count}")
    return header, list(TILE.iter_unpack(payload[FIXED.size :]))


class Parsed(NamedTuple):
    """A file taken apart; payloads stay where they are."""

    header: Header
    tiles: list[Tile]
    metadata: dict[str, tuple[int, int]]  # name -> (offset, length) of the deflated payload


def parse(data: bytes | memoryview, check_data: bool = True) -> Parsed:
    """A whole file taken apart and checked, short of decoding it; raises FormatError."""
    view = memoryview(data)
    head: tuple[Header, list[tuple[int, int]]] | None = None
    names = {tag: name for name, tag in METADATA.items()}
    found: dict[str, tuple[int, int]] = {}
    tiles: list[Tile] = []
    for tag, offset, length in chunks(view, check_data):
        if (tag == b"HEAD") != (head is None):
            raise FormatError("the first chunk, and only the first, must be HEAD")
        if head is None:
            head = read_head(bytes(view[offset : offset + length]))
        elif tag in names:
            if names[tag] in found:
                raise FormatError(f"chunk {tag!r} occurs twice")
            found[names[tag]] = (offset, length)
        elif tag == b"DATA":
            for size, crc in head[1]:
                tiles.append(Tile(offset, size, crc))
                offset += size
            if sum(size for size, _ in head[1]) != length:
                raise FormatError(f"the tiles do not fill the DATA chunk of {length} bytes")
    assert head is not None  # chunks() ends with DATA, which HEAD must precede
    return Parsed(head[0], tiles, found)


def metadata(data: bytes) -> dict[str, bytes]:
    """ICC, EXIF and XMP by name ("icc", "exif", "xmp"), inflated; raises FormatError on damage."""
    out = {}
    for name, (offset, length) in parse(data).metadata.items():
        inflate = zlib.decompressobj()
        try:
            out[name] = inflate.decompress(data[offset : offset + length], MAX_METADATA)
        except zlib.error as exc:
            raise FormatError(f"{name} metadata is damaged ({exc})") from exc
        if not inflate.eof or inflate.unused_data:
            raise FormatError(f"{name} metadata is damaged or larger than {MAX_METADATA} bytes")
    return out


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
    header, tiles, found = parse(data)
    return {
        "kind": "picture",
        "version": header.version,
        "model": header.model,
        "height": header.height,
        "width": header.width,
        "quality": round(quality_of(header.step), 2),
        "step": header.step,
        "tile": header.tile,
        "tiles": len(tiles),
        "metadata": sorted(found),
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.height * header.width),
    }
