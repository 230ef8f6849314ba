"""Store any file, of any size in little memory, in a .vae file, and restore it (docs/reference/format.md, section 9).

magic
FILE         version, flags, method, permissions, time, name
PART ...     Zstandard frames (RFC 8878), cut into parts
DONE         size and CRC-32 of the file
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from vaecodec.atomic import Attributes
from vaecodec.container import (
    MAGIC,
    VERSION,
    UnknownChunks,
    check_crc,
    check_version,
    name_of_tag,
    pack_chunk,
    zstandard,
)
from vaecodec.errors import CodecError, FormatError

FILE = struct.Struct("<BBBBHq")  # version, flags, method, reserved, permissions, nanoseconds since 1970
DONE = struct.Struct("<QI")  # bytes of the file, CRC-32 of them
HAS_MODE, HAS_TIME = 1, 2
ZSTANDARD = 1
LEVEL = 9  # about 60 MB/s a core; 19 gains 5 % more at a twentieth of that
WINDOW_LOG = 23  # RFC 8878, 3.1.1.1.2, asks every decoder to support it, and ours allows no more
MAX_CHUNK = 1 << 20  # bytes of a chunk's payload
MAX_NAME = 255  # bytes, as in most file systems
BLOCK = 1 << 18  # bytes read or written at once


class Stored(NamedTuple):
    """The fields of FILE: the bytes of the file's base name (empty if it has none), and its attributes."""

    name: bytes = b""
    attributes: Attributes = Attributes()

    @property
    def text(self) -> str:
        """The name as this system writes it."""
        return os.fsdecode(self.name)


class Content(NamedTuple):
    """The fields of DONE, and the number of bytes of the whole .vae file."""

    size: int
    crc: int
    bytes: int


def is_stored(head: bytes) -> bool:
    """Whether a .vae file that begins with these bytes, 16 or more, holds a stored file and not an image."""
    return head[:8] == MAGIC and head[12:16] == b"FILE"


def write(source: BinaryIO, target: BinaryIO, about: Stored) -> Content:
    """Store the rest of `source` in `target`; inverse of read.  Raises FormatError on a name that is too long."""
    zstd = zstandard()
    if not _is_name(about.name):
        raise FormatError(f"the name {about.text!r} cannot be stored")
    mode, time = about.attributes
    if time is not None and not -(1 << 63) <= time < 1 << 63:
        time = None
    flags = HAS_MODE * (mode is not None) + HAS_TIME * (time is not None)
    fields = FILE.pack(VERSION, flags, ZSTANDARD, 0, mode or 0, time or 0)
    # This window is the library's own choice for large files at level 9, fixed so that it cannot grow.
    options = {zstd.CompressionParameter.compression_level: LEVEL, zstd.CompressionParameter.window_log: WINDOW_LOG - 1}
    frame, compressed, size, crc, written = zstd.ZstdCompressor(options=options), bytearray(), 0, 0, 0

    def put(data: bytes) -> None:
        nonlocal written
        target.write(data)
        written += len(data)

    put(MAGIC + pack_chunk(b"FILE", fields + about.name))
    more = True
    while more:
        block = _read_block(source)
        more = bool(block)
        compressed += frame.compress(block) if more else frame.flush()
        size, crc = size + len(block), zlib.crc32(block, crc)
        while len(compressed) >= MAX_CHUNK or (compressed and not more):
            put(pack_chunk(b"PART", bytes(compressed[:MAX_CHUNK])))
            del compressed[:MAX_CHUNK]
    put(pack_chunk(b"DONE", DONE.pack(size, crc)))
    return Content(size, crc, written)


def _read_block(source: BinaryIO) -> bytes:
    """The next bytes of a file; raises CodecError, as a failure to read must not pass for a failure to write."""
    try:
        return source.read(BLOCK)
    except OSError as exc:
        raise CodecError(f"cannot be read ({exc.strerror or exc})") from exc


def read(source: BinaryIO, target: BinaryIO | None) -> tuple[Stored, Content]:
    """Restore a stored file to `target`, or without one only check it; its name, attributes and size.

    Raises FormatError on damage; the bytes written to `target` before are not to be trusted.
    """
    reader = Reader(source)
    return reader.about, reader.restore(target)


def info(source: BinaryIO, head: bytes = b"") -> dict[str, Any]:
    """The properties of a stored file, JSON-ready, after a check of all CRCs but not of the compressed data.

    `head` is the part of the file that is read already.  Raises FormatError on damage.
    """
    reader = Reader(source, head)
    for _ in reader.parts():
        pass
    mode, mtime_ns = reader.about.attributes
    return {
        "kind": "file",
        "version": VERSION,
        "name": reader.about.text,
        "method": "zstandard",
        "mode": None if mode is None else f"{mode:03o}",
        "mtime_ns": mtime_ns,
        "size": reader.content.size,
        "bytes": reader.content.bytes,
    }


class Reader:
    """Read a stored file from its start; `about` is known at once, `content` after all parts."""

    def __init__(self, source: BinaryIO, head: bytes = b"") -> None:
        self._source, self._head = source, head
        self._bytes = len(MAGIC)
        if self._take(len(MAGIC)) != MAGIC:
            raise FormatError("not a .vae file")
        tag, payload = self._read_chunk()
        if tag != b"FILE":
            raise FormatError("the first chunk of a stored file must be FILE")
        self.about = _parse_file(payload)
        self.content = Content(0, 0, 0)

    def restore(self, target: BinaryIO | None) -> Content:
        """Write the file to `target`, if there is one, and check it against DONE."""
        size = crc = 0
        for block in _inflate(self.parts()):
            size, crc = size + len(block), zlib.crc32(block, crc)
            if target is not None:
                target.write(block)
        if (size, crc) != self.content[:2]:
            raise FormatError("the stored file is damaged (its size or its CRC does not match)")
        return self.content

    def parts(self) -> Iterator[bytes]:
        """Yield the payload of each PART, checked; raises FormatError on damage."""
        unknown = UnknownChunks()
        tag, payload = self._read_chunk()
        while tag != b"DONE":
            if tag == b"PART":
                yield payload
            else:
                unknown.skip(tag)
            tag, payload = self._read_chunk()
        if len(payload) != DONE.size:
            raise FormatError(f"chunk DONE has {len(payload)} bytes, expected {DONE.size}")
        size, crc = DONE.unpack(payload)
        self.content = Content(size, crc, self._bytes)
        if self._take(1):
            raise FormatError("bytes follow the end of the file")

    def _take(self, count: int) -> bytes:
        begin, self._head = self._head[:count], self._head[count:]
        return begin + self._source.read(count - len(begin))

    def _read_chunk(self) -> tuple[bytes, bytes]:
        """(tag, payload) of the next chunk."""
        begin = self._take(8)
        if len(begin) < 8:
            raise FormatError("the file is cut off: it has no DONE chunk")
        length, tag = int.from_bytes(begin[:4], "little"), begin[4:]
        if length > MAX_CHUNK:
            raise FormatError(f"chunk {name_of_tag(tag)} claims {length} bytes (of at most {MAX_CHUNK})")
        body = self._take(length + 4)
        if len(body) < length + 4:
            raise FormatError(f"the file is cut off inside chunk {name_of_tag(tag)}")
        check_crc(tag, zlib.crc32(body[:length], zlib.crc32(tag)), body[length:])
        self._bytes += length + 12
        return tag, body[:length]


def _inflate(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the contents of the frames in these bytes, end to end; raises FormatError on damage."""
    zstd = zstandard()
    frame = None
    try:
        for part in parts:
            while part or (frame and not (frame.eof or frame.needs_input)):
                if frame is None or frame.eof:
                    frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})
                # The output is bounded: a megabyte of input may stand for many gigabytes.
                yield frame.decompress(part, BLOCK)
                part = frame.unused_data
    except zstd.ZstdError as exc:
        raise FormatError(f"the stored file is damaged ({exc})") from exc
    if frame and not frame.eof:
        raise FormatError("the stored file is damaged (a frame is cut off)")


def _parse_file(payload: bytes) -> Stored:
    """The fields of FILE; raises FormatError on any value out of range."""
    check_version(payload)
    if len(payload) < FILE.size:
        raise FormatError(f"the header is {len(payload)} bytes long, expected at least {FILE.size}")
    _, flags, method, reserved, mode, time = FILE.unpack_from(payload)
    name = payload[FILE.size :]
    if flags & ~(HAS_MODE | HAS_TIME) or reserved:
        raise FormatError("the header sets flags that this version does not know")
    if method != ZSTANDARD:
        raise FormatError(f"the file is stored by method {method}, which this version does not know")
    if mode > 0o777 or (mode and not flags & HAS_MODE) or (time and not flags & HAS_TIME):
        raise FormatError("the header gives permissions or a time that are out of range")
    if not _is_name(name):
        raise FormatError(f"the header gives the name {os.fsdecode(name)!r}, which no file in a folder can have")
    return Stored(name, Attributes(mode if flags & HAS_MODE else None, time if flags & HAS_TIME else None))


def _is_name(name: bytes) -> bool:
    """Whether bytes are empty or can name a file in a folder, and nothing outside of it."""
    return len(name) <= MAX_NAME and name not in (b".", b"..") and not set(name) & {0, ord("/")}
