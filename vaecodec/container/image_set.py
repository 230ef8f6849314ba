"""Read and write the .vae file of a set of small images (docs/reference/sets.md).  Standard library only.

magic
PSET     version, model, number of images, side, initial words consumed, CRC-32 of all pixels
DATA     words of the stack
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple

from vaecodec.container import MAGIC, VERSION, check_crc, check_version, name_of_tag, pack_chunk
from vaecodec.errors import FormatError

HEADER = struct.Struct("<BB16sIHII")  # version, reserved, then the fields of Header
MAX_CONSUMED = 1 << 20
MIN_BITS = 1.0 / 64  # no image costs less, even if the model predicts every pixel of it


class Header(NamedTuple):
    """The fields of PSET; `model` is 32 hexadecimal digits."""

    model: str
    images: int
    side: int
    consumed: int
    crc: int


def is_image_set(head: bytes) -> bool:
    """Whether a file that begins with these bytes, 16 or more, holds a set of images."""
    return head[:8] == MAGIC and head[12:16] == b"PSET"


def pack(header: Header, words: bytes) -> bytes:
    """The file of a header and the words of a stack."""
    payload = HEADER.pack(VERSION, 0, bytes.fromhex(header.model), *header[1:])
    return MAGIC + pack_chunk(b"PSET", payload) + pack_chunk(b"DATA", words)


def parse(data: bytes) -> tuple[Header, bytes]:
    """Split a file into its header and the words of its stack; raises FormatError on damage."""
    if not is_image_set(data[:16]):
        raise FormatError("not a .vae file of a set of images" if data[:8] == MAGIC else "not a .vae file")
    payloads, position = [], len(MAGIC)
    for expected in (b"PSET", b"DATA"):
        if len(data) - position < 12:
            raise FormatError("the file is cut off")
        length = int.from_bytes(data[position : position + 4], "little")
        tag, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            raise FormatError(f"the file is cut off or damaged inside chunk {name_of_tag(tag)}")
        check_crc(tag, zlib.crc32(data[position + 4 : end]), data[end : end + 4])
        if tag != expected:
            raise FormatError(f"chunk {name_of_tag(tag)} is in the place of {name_of_tag(expected)}")
        payloads.append(data[position + 8 : end])
        position = end + 4
    if position != len(data):
        raise FormatError(f"{len(data) - position} bytes follow the end of the file")
    payload, words = payloads
    check_version(payload)
    if len(payload) != HEADER.size:
        raise FormatError(f"the header is {len(payload)} bytes long, expected {HEADER.size}")
    _, reserved, model, images, side, consumed, crc = HEADER.unpack(payload)
    if reserved:
        raise FormatError("the header sets flags that are unknown in this version")
    if not images or not side or consumed > MAX_CONSUMED:
        raise FormatError(f"the header gives {images} images of side {side}, and {consumed} initial words")
    if images * MIN_BITS > 8 * (len(words) + 4 * consumed + 4):
        raise FormatError(f"the header gives {images} images, more than {len(words)} bytes can hold")
    return Header(model.hex(), images, side, consumed, crc), words


def info(data: bytes) -> dict[str, Any]:
    """Describe a file by its header, JSON-ready; raises FormatError on damage."""
    header, _ = parse(data)
    return {
        "kind": "set",
        "version": VERSION,
        "coding": "bits back",
        "model": header.model,
        "count": header.images,
        "height": header.side,
        "width": header.side,
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.images * header.side**2),
    }
