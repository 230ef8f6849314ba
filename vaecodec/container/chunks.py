"""Frame the chunks of a .vae file (docs/reference/format.md, section 2).  Standard library only.

A chunk is { u32 length, 4-byte tag, payload, u32 CRC-32 of tag and payload }, little-endian.  A decoder may skip a
chunk that it does not know if the tag begins with a small letter.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import BinaryIO, NamedTuple

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
