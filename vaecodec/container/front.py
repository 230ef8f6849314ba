"""What a picture's file says before its pixels, read from a stream: neither alpha nor DATA.  Standard library only."""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO, NamedTuple

from vaecodec.container.picture import (
    ALPHA,
    FIXED,
    GREY,
    MAGIC,
    MAX_UNKNOWN,
    METADATA,
    Classical,
    Header,
    check_beside,
    read_fixed,
    read_pict,
)
from vaecodec.errors import FormatError

READ = (b"HEAD", b"PICT", GREY, *METADATA.values())
BLOCK = 1 << 20


class Front(NamedTuple):
    """`channels` are those of container.Contents; `metadata` is deflated, by name (container.inflated)."""

    head: Header | Classical
    channels: int
    metadata: dict[str, bytes]

    @property
    def depth(self) -> int:
        """Bits a sample."""
        return self.head.depth if isinstance(self.head, Classical) else 8


def read_front(file: BinaryIO) -> Front:
    """The front of a seekable binary file, from its start; raises FormatError on damage to what is read.

    A file that is cut off in its alpha or its pixels has a front; contents() is what finds all damage.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise FormatError("not a .vae file")
    position, tag, found = len(MAGIC), b"", dict[bytes, bytes]()
    head_length = unknown = 0
    while tag != b"DATA":
        file.seek(position)
        begin = file.read(8)
        if len(begin) < 8:
            raise FormatError("the file is cut off: it has no DATA chunk")
        length, tag = int.from_bytes(begin[:4], "little"), begin[4:]
        if not found and tag not in (b"HEAD", b"PICT"):
            holds = "this .vae file holds a file that is not a picture (vaecodec decompress restores it)"
            raise FormatError(holds if tag == b"FILE" else "the first chunk must be HEAD or PICT")
        if tag in found:
            raise FormatError(f"chunk {tag!r} occurs twice")
        if tag in READ:
            found[tag] = _payload(file, tag, length, size - position - 8)
            head_length = length if tag == b"HEAD" else head_length
        elif tag == ALPHA:
            found[tag] = b""
        elif tag != b"DATA":
            unknown += 1
            if not 97 <= tag[0] <= 122:
                raise FormatError(f"chunk {tag!r} is needed to decode this file, and this version does not know it")
            if unknown > MAX_UNKNOWN:
                raise FormatError(f"the file has more than {MAX_UNKNOWN} chunks that this version does not know")
        position += length + 12
    head = read_fixed(found[b"HEAD"], head_length) if b"HEAD" in found else read_pict(found[b"PICT"])
    channels = head.channels
    if isinstance(head, Header):
        for tag in found.keys() & {GREY, ALPHA}:
            check_beside(head, tag, len(found[tag]))
        channels = (1 if GREY in found else channels) + (ALPHA in found)
    return Front(head, channels, {name: found[tag] for name, tag in METADATA.items() if tag in found})


def _payload(file: BinaryIO, tag: bytes, length: int, left: int) -> bytes:
    """The payload of a chunk, of HEAD only what precedes the tiles, in a file that has `left` bytes left."""
    if length + 4 > left:
        raise FormatError(f"the file is cut off or damaged inside chunk {tag!r}")
    kept, crc = bytearray(), zlib.crc32(tag)
    for begin in range(0, length, BLOCK):
        block = file.read(min(BLOCK, length - begin))
        crc = zlib.crc32(block, crc)
        kept += block[: FIXED.size - len(kept)] if tag == b"HEAD" else block
    if crc != int.from_bytes(file.read(4), "little"):
        raise FormatError(f"chunk {tag!r} is damaged (its CRC does not match)")
    return bytes(kept)
