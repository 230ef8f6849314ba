"""Frame the chunks of a .vae file, and read and write PICT, the header of an image that no model codes.

A chunk is { u32 length, 4-byte tag, payload, u32 CRC-32 of tag and payload }, little-endian.  A decoder may skip a
chunk that it does not know if the tag begins with a small letter (docs/reference/format.md, sections 2 and 2.3).  This
package needs the standard library alone.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import BinaryIO, NamedTuple

from vaecodec.arguments import MAX_ERROR
from vaecodec.errors import FormatError

SUFFIX = ".vae"
MAGIC = b"\x89VAE\r\n\x1a\n"
VERSION = 1
MAX_UNKNOWN = 1024  # chunks that a reader skips: each takes time, however small it is
MAX_METADATA = 1 << 24  # bytes of one metadata chunk, inflated
METADATA = {"icc": b"iccp", "exif": b"exif", "xmp": b"xmp_", "dpi": b"phys"}
GREY, DEEP, ALPHA = b"grey", b"deep", b"ALPH"
KNOWN = (b"HEAD", b"PICT", GREY, DEEP, ALPHA, b"DATA", *METADATA.values())
BLOCK = 1 << 20  # bytes read at once
OTHER_KINDS = {
    b"FILE": "this .vae file holds a file that is not an image (vaecodec decompress restores it)",
    b"PSET": "this .vae file holds a set of small images (vaecodec unpack restores it)",
}


class Span(NamedTuple):
    """The place of a payload in a file."""

    offset: int
    length: int

    def of(self, data: bytes | memoryview) -> memoryview:
        """The payload itself."""
        return memoryview(data)[self.offset : self.offset + self.length]


class UnknownChunks:
    """Count the chunks that a reader skips."""

    def __init__(self) -> None:
        self._count = 0

    def skip(self, tag: bytes) -> None:
        """Raise FormatError if a chunk must not be skipped, or is one too many."""
        if not 97 <= tag[0] <= 122:
            raise FormatError(f"chunk {name_of_tag(tag)} is out of place, or this version does not know it")
        self._count += 1
        if self._count > MAX_UNKNOWN:
            raise FormatError(f"the file has more than {MAX_UNKNOWN} chunks that this version does not know")


def name_of_tag(tag: bytes) -> str:
    """The name of a chunk in messages; bytes that are no letters are escaped."""
    return tag.decode("ascii", "backslashreplace")


def check_crc(tag: bytes, computed: int, stored: bytes | memoryview) -> None:
    """Raise FormatError unless a chunk's CRC is the one in the file, 4 bytes."""
    if computed != int.from_bytes(stored, "little"):
        raise FormatError(f"chunk {name_of_tag(tag)} is damaged (its CRC does not match)")


def check_version(payload: bytes | memoryview) -> None:
    """Raise FormatError unless the first chunk's payload begins with the version of this reader."""
    if payload and payload[0] != VERSION:
        raise FormatError(f"file version {payload[0]} is not supported (this is a reader of version {VERSION})")


def pack_chunk(tag: bytes, payload: bytes) -> bytes:
    """One chunk, with its length and CRC."""
    return struct.pack("<I", len(payload)) + tag + payload + struct.pack("<I", zlib.crc32(tag + payload))


def pack_chunks(first: bytes, metadata: dict[str, bytes] | None, payload: bytes) -> bytes:
    """A whole file from its first chunk, its metadata by name, and the payload of DATA; raises FormatError."""
    chunks = [MAGIC, first]
    for name, value in (metadata or {}).items():
        if len(value) > MAX_METADATA:
            raise FormatError(f"{name} metadata of {len(value)} bytes is too large (at most {MAX_METADATA})")
        chunks.append(pack_chunk(METADATA[name], zlib.compress(value, 9)))
    return b"".join([*chunks, pack_chunk(b"DATA", payload)])


def read_chunks(data: bytes | memoryview, check_data: bool = True) -> Iterator[tuple[bytes, int, int]]:
    """Yield (tag, offset, length) of each payload in the file of an image; raise FormatError on damage.

    Without `check_data` the CRC of DATA, which covers most of the file, is not checked: its tiles have their own.
    """
    view = memoryview(data)
    if bytes(view[:8]) != MAGIC:
        raise FormatError("not a .vae file" if len(view) else "not a .vae file (it is empty)")
    position, tag, unknown = len(MAGIC), b"", UnknownChunks()
    while position < len(view) and tag != b"DATA":
        if len(view) - position < 12:
            raise FormatError("the file is cut off inside a chunk header")
        (length,) = struct.unpack_from("<I", view, position)
        tag = bytes(view[position + 4 : position + 8])
        if tag in OTHER_KINDS and position == len(MAGIC):
            raise FormatError(OTHER_KINDS[tag])
        if length > len(view) - position - 12:
            raise FormatError(f"the file is cut off or damaged inside chunk {name_of_tag(tag)}")
        begin, end = position + 8, position + 8 + length
        if tag != b"DATA" or check_data:
            check_crc(tag, zlib.crc32(view[position + 4 : end]), view[end : end + 4])
        if tag not in KNOWN:
            unknown.skip(tag)
        yield tag, begin, length
        position = end + 4
    if tag != b"DATA":
        raise FormatError("the file is cut off: it has no DATA chunk")
    if position != len(view):
        raise FormatError(f"{len(view) - position} bytes follow the end of the file")


def read_leading_chunks(file: BinaryIO, head_size: int) -> tuple[dict[bytes, bytes], int]:
    """(payloads by tag, length of HEAD) of the known chunks before DATA in a seekable file; raises FormatError.

    Of HEAD the first `head_size` bytes are kept; the payload of ALPH is not read, and empty here.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise FormatError("not a .vae file")
    position, tag, payloads, unknown = len(MAGIC), b"", dict[bytes, bytes](), UnknownChunks()
    head_length = 0
    while tag != b"DATA":
        file.seek(position)
        begin = file.read(8)
        if len(begin) < 8:
            raise FormatError("the file is cut off: it has no DATA chunk")
        length, tag = int.from_bytes(begin[:4], "little"), begin[4:]
        position += length + 12
        if not payloads and tag not in (b"HEAD", b"PICT"):
            raise FormatError(OTHER_KINDS.get(tag, "the first chunk must be HEAD or PICT"))
        if tag in payloads:
            raise FormatError(f"chunk {name_of_tag(tag)} occurs twice")
        if tag == ALPHA:
            payloads[tag] = b""
        elif tag not in KNOWN:
            unknown.skip(tag)
        elif tag != b"DATA":
            if position > size:
                raise FormatError(f"the file is cut off or damaged inside chunk {name_of_tag(tag)}")
            payload, crc = bytearray(), zlib.crc32(tag)
            for place in range(0, length, BLOCK):
                block = file.read(min(BLOCK, length - place))
                crc = zlib.crc32(block, crc)
                payload += block[: head_size - len(payload)] if tag == b"HEAD" else block
            check_crc(tag, crc, file.read(4))
            payloads[tag] = bytes(payload)
            head_length = length if tag == b"HEAD" else head_length
    return payloads, head_length


def insert_chunks(data: bytes, extra: list[tuple[bytes, bytes]]) -> bytes:
    """The file with more chunks, (tag, payload) of each, before DATA."""
    begin = next(offset for tag, offset, _ in read_chunks(data, check_data=False) if tag == b"DATA") - 8
    return b"".join([data[:begin], *(pack_chunk(*chunk) for chunk in extra), data[begin:]])


def inflate_metadata(name: str, payload: bytes | memoryview) -> bytes:
    """The metadata in a chunk's payload; raises FormatError on damage."""
    inflate = zlib.decompressobj()
    try:
        value = inflate.decompress(payload, MAX_METADATA)
    except zlib.error as exc:
        raise FormatError(f"{name} metadata is damaged ({exc})") from exc
    if not inflate.eof or inflate.unused_data:
        raise FormatError(f"{name} metadata is damaged or larger than {MAX_METADATA} bytes")
    return value


def zstandard() -> ModuleType:
    """The module of Zstandard (RFC 8878): the standard library's, or before Python 3.14 its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


PICT = struct.Struct("<BBBBII")  # version, coding, channels, depth, height, width
ADAPTIVE = struct.Struct("<BBB")  # largest error, log2 of tile, expansion; follows in that coding
CODINGS = ("lossless", "avif", "adaptive")  # by that field
MAX_SIDE = 1 << 24
MIN_TILE_LOG2, MAX_TILE_LOG2 = 6, 12
SHIFTED, SCALED = 1, 2  # expansions of samples to 16 bits


class FallbackHeader(NamedTuple):
    """The fields of PICT: `channels` are grey, grey + alpha, RGB or RGBA; sides are in pixels.

    The last three are of the adaptive coding: `max_error` of a colour sample, `tile` in pixels, and how samples of
    fewer bits become those of `depth`: 0 not at all, SHIFTED or SCALED.
    """

    coding: str  # of CODINGS
    height: int
    width: int
    channels: int
    depth: int  # bits of a sample
    version: int = VERSION
    max_error: int = 0
    tile: int = 0
    expansion: int = 0

    @property
    def is_image(self) -> bool:
        """Always true."""
        return True

    @property
    def fidelity(self) -> str:
        """What info() calls the coding: "lossless", "near-lossless" or "avif"."""
        return "avif" if self.coding == "avif" else "near-lossless" if self.max_error else "lossless"

    @property
    def has_alpha_chunk(self) -> bool:
        """Whether alpha is in a chunk of its own."""
        return self.coding != "lossless" and self.channels % 2 == 0


def check_sides(height: int, width: int, what: str = "an image of {} x {} cannot be stored") -> None:
    """Raise FormatError on sides that no header can hold."""
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise FormatError(f"{what.format(width, height)} (sides are 1..{MAX_SIDE})")


def pack_pict(header: FallbackHeader) -> bytes:
    """The payload of PICT; raises FormatError where a field cannot hold its value."""
    check_sides(header.height, header.width)
    coding = CODINGS.index(header.coding)
    payload = PICT.pack(VERSION, coding, header.channels, header.depth, header.height, header.width)
    if header.coding == "adaptive":
        payload += ADAPTIVE.pack(header.max_error, header.tile.bit_length() - 1, header.expansion)
    return payload


def read_pict(payload: bytes | memoryview) -> FallbackHeader:
    """The header in a PICT chunk; raises FormatError on any value out of range."""
    check_version(payload)
    is_adaptive = len(payload) > 1 and payload[1] == CODINGS.index("adaptive")
    size = PICT.size + is_adaptive * ADAPTIVE.size
    if len(payload) != size:
        raise FormatError(f"the header is {len(payload)} bytes long, expected {size}")
    version, coding, channels, depth, height, width = PICT.unpack_from(payload)
    if coding >= len(CODINGS):
        raise FormatError(f"the image is in coding {coding}, which this version does not know")
    depths = {"lossless": (8, 16), "avif": (8,), "adaptive": range(8, 17)}[CODINGS[coding]]
    if not (1 <= channels <= 4 and depth in depths):
        raise FormatError(f"the header gives {channels} channels of {depth} bits")
    check_sides(height, width, "the header gives an image of {} x {}")
    header = FallbackHeader(CODINGS[coding], height, width, channels, depth, version)
    if not is_adaptive:
        return header
    max_error, tile, expansion = ADAPTIVE.unpack_from(payload, PICT.size)
    if max_error > MAX_ERROR or not MIN_TILE_LOG2 <= tile <= MAX_TILE_LOG2:
        raise FormatError(f"the header gives an error of {max_error}, and tiles of 2**{tile} pixels")
    if expansion > (SCALED if depth == 16 else 0):
        raise FormatError(f"the header gives expansion {expansion} to {depth} bits")
    return header._replace(max_error=max_error, tile=1 << tile, expansion=expansion)
