"""Any file <-> the .vae file that holds it as it is, of any size in little memory: docs/reference/format.md, section 9.

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
from vaecodec.container.chunks import MAGIC, MAX_UNKNOWN, VERSION, pack_chunk
from vaecodec.errors import CodecError, FormatError

FILE = struct.Struct("<BBBBHq")  # version, flags, method, reserved, permissions, nanoseconds since 1970
DONE = struct.Struct("<QI")  # bytes of the file, CRC-32 of them
HAS_MODE, HAS_TIME = 1, 2
ZSTANDARD = 1
LEVEL = 9  # about 60 MB/s a core; 19 gains 5 % more at a twentieth of that
WINDOW_LOG = 23  # what RFC 8878, 3.1.1.1.2, asks every decoder to support, so also what ours allows
MAX_CHUNK = 1 << 20  # bytes of a chunk's payload
MAX_NAME = 255  # bytes, as in most file systems
BLOCK = 1 << 18  # bytes read or written at once


class Stored(NamedTuple):
    """What FILE says: the bytes of the file's base name (empty where it has none), and its attributes."""

    name: bytes = b""
    attributes: Attributes = Attributes()

    @property
    def text(self) -> str:
        """The name as this system writes it."""
        return os.fsdecode(self.name)


class Content(NamedTuple):
    """What DONE says, and the bytes of the whole .vae file."""

    size: int
    crc: int
    bytes: int


def is_stored(head: bytes) -> bool:
    """Whether a file that begins with these bytes, 16 or more, holds a stored file and not a picture."""
    return head[:8] == MAGIC and head[12:16] == b"FILE"


def write(source: BinaryIO, target: BinaryIO, about: Stored) -> Content:
    """Stores all that is left of `source` in `target`; read inverts it.  Raises FormatError on a name too long."""
    from vaecodec.container import zstd

    if not _is_name(about.name):
        raise FormatError(f"the name {about.text!r} cannot be stored")
    mode, time = about.attributes
    if time is not None and not -(1 << 63) <= time < 1 << 63:
        time = None
    flags = HAS_MODE * (mode is not None) + HAS_TIME * (time is not None)
    head = FILE.pack(VERSION, flags, ZSTANDARD, 0, mode or 0, time or 0)
    begin = MAGIC + pack_chunk(b"FILE", head + about.name)
    target.write(begin)
    parts, size, crc = _Parts(target), 0, 0
    # Level 9 at this window: the library's own choice for large files, said here so that it cannot grow.
    settings: dict[int, int] = {
        zstd.CompressionParameter.compression_level: LEVEL,
        zstd.CompressionParameter.window_log: WINDOW_LOG - 1,
    }
    frame = zstd.ZstdCompressor(options=settings)
    while block := _block(source):
        parts.write(frame.compress(block))
        size, crc = size + len(block), zlib.crc32(block, crc)
    parts.write(frame.flush())
    parts.end()
    end = pack_chunk(b"DONE", DONE.pack(size, crc))
    target.write(end)
    return Content(size, crc, len(begin) + parts.bytes + len(end))


def read(source: BinaryIO, target: BinaryIO | None) -> tuple[Stored, Content]:
    """Restores a stored file to `target`, or only checks it; what it says of itself.

    Raises FormatError on damage: what is in `target` by then is not to be trusted.
    """
    reader = Reader(source)
    return reader.about, reader.restore(target)


def info(source: BinaryIO, head: bytes = b"") -> dict[str, Any]:
    """What a stored file says of itself, JSON-ready, after a check of every CRC short of decompressing it.

    `head` is what of it has been read already.  Raises FormatError on damage.
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
    """A stored file being read from its start; `about` is known at once, `content` after all parts."""

    def __init__(self, source: BinaryIO, head: bytes = b"") -> None:
        self._source, self._head = source, head
        self._bytes = len(MAGIC)
        if self._take(len(MAGIC)) != MAGIC:
            raise FormatError("not a .vae file")
        tag, payload = self._chunk()
        if tag != b"FILE":
            raise FormatError("the first chunk of a stored file must be FILE")
        self.about = _read_head(payload)
        self.content = Content(0, 0, 0)

    def restore(self, target: BinaryIO | None) -> Content:
        """Writes the file to `target`, where there is one, and checks it against DONE."""
        size = crc = 0
        for block in _inflated(self.parts()):
            size, crc = size + len(block), zlib.crc32(block, crc)
            if target is not None:
                target.write(block)
        if (size, crc) != self.content[:2]:
            raise FormatError("the stored file is damaged (its size or its CRC does not match)")
        return self.content

    def parts(self) -> Iterator[bytes]:
        """The payload of each PART, checked; raises FormatError on damage."""
        unknown = 0
        while True:
            tag, payload = self._chunk()
            if tag == b"PART":
                yield payload
                continue
            if tag == b"DONE":
                break
            unknown += 1
            if unknown > MAX_UNKNOWN:
                raise FormatError(f"the file has more than {MAX_UNKNOWN} chunks that this version does not know")
            if not 97 <= tag[0] <= 122:
                raise FormatError(f"chunk {tag!r} does not belong into a stored file, or this version does not know it")
        if len(payload) != DONE.size:
            raise FormatError(f"chunk DONE has {len(payload)} bytes, expected {DONE.size}")
        size, crc = DONE.unpack(payload)
        self.content = Content(size, crc, self._bytes)
        if self._take(1):
            raise FormatError("bytes follow the end of the file")

    def _take(self, count: int) -> bytes:
        begin, self._head = self._head[:count], self._head[count:]
        return begin + self._source.read(count - len(begin))

    def _chunk(self) -> tuple[bytes, bytes]:
        head = self._take(8)
        if len(head) < 8:
            raise FormatError("the file is cut off: it has no DONE chunk")
        length, tag = int.from_bytes(head[:4], "little"), head[4:]
        if length > MAX_CHUNK:
            raise FormatError(f"chunk {tag!r} claims {length} bytes (a stored file's have at most {MAX_CHUNK})")
        body = self._take(length + 4)
        if len(body) < length + 4:
            raise FormatError(f"the file is cut off inside chunk {tag!r}")
        payload = body[:length]
        if zlib.crc32(payload, zlib.crc32(tag)) != int.from_bytes(body[length:], "little"):
            raise FormatError(f"chunk {tag!r} is damaged (its CRC does not match)")
        self._bytes += length + 12
        return tag, payload


class _Parts:
    """Cuts what it is given into PART chunks, and writes them to a file."""

    def __init__(self, target: BinaryIO) -> None:
        self._target, self._kept, self.bytes = target, bytearray(), 0

    def write(self, data: bytes) -> None:
        self._kept += data
        while len(self._kept) >= MAX_CHUNK:
            self._put()

    def end(self) -> None:
        """Passes on the last part."""
        if self._kept:
            self._put()

    def _put(self) -> None:
        part = pack_chunk(b"PART", bytes(self._kept[:MAX_CHUNK]))
        del self._kept[:MAX_CHUNK]
        self._target.write(part)
        self.bytes += len(part)


def _inflated(parts: Iterator[bytes]) -> Iterator[bytes]:
    """What the frames in these bytes, end to end, hold; raises FormatError on damage."""
    from vaecodec.container import zstd

    def fresh() -> zstd.ZstdDecompressor:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})

    frame = None
    try:
        for part in parts:
            while part or (frame and not (frame.eof or frame.needs_input)):
                frame = fresh() if frame is None or frame.eof else frame
                # What comes out at once is bounded: a megabyte of input may stand for many gigabytes.
                yield frame.decompress(part, BLOCK)
                part = frame.unused_data
    except zstd.ZstdError as exc:
        raise FormatError(f"the stored file is damaged ({exc})") from exc
    if frame and not frame.eof:
        raise FormatError("the stored file is damaged (a frame is cut off)")


def _block(source: BinaryIO) -> bytes:
    """The next bytes of a file; a failure to read them must not be taken for one to write."""
    try:
        return source.read(BLOCK)
    except OSError as exc:
        raise CodecError(f"cannot be read ({exc.strerror or exc})") from exc


def _read_head(payload: bytes) -> Stored:
    """What FILE says; raises FormatError on any value out of range."""
    if payload and payload[0] != VERSION:
        raise FormatError(f"file version {payload[0]} is not supported (this is a reader of version {VERSION})")
    if len(payload) < FILE.size:
        raise FormatError(f"the header is {len(payload)} bytes long, expected at least {FILE.size}")
    _, flags, method, reserved, mode, time = FILE.unpack_from(payload)
    name = payload[FILE.size :]
    if flags & ~(HAS_MODE | HAS_TIME) or reserved:
        raise FormatError("the header sets flags that this version does not know")
    if method != ZSTANDARD:
        raise FormatError(f"the file is stored by method {method}, which this version does not know")
    if mode > 0o777 or (mode and not flags & HAS_MODE) or (time and not flags & HAS_TIME):
        raise FormatError("the header gives permissions or a time that cannot be")
    if not _is_name(name):
        raise FormatError(f"the header gives the name {os.fsdecode(name)!r}, which is no file's in a folder")
    return Stored(name, Attributes(mode if flags & HAS_MODE else None, time if flags & HAS_TIME else None))


def _is_name(name: bytes) -> bool:
    """Whether bytes are empty or can name a file in a folder, and nothing outside of it."""
    return len(name) <= MAX_NAME and name not in (b".", b"..") and not set(name) & {0, ord("/")}
