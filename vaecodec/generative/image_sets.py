"""The .vae file of a set of small pictures, coded by `bitsback` (docs/reference/sets.md).

magic    89 56 41 45 0D 0A 1A 0A
PSET     version, model, number of pictures, their side, words of the beginning, CRC-32 of all pixels
DATA     words of the stack
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from vaecodec.container.picture import MAGIC, VERSION, chunk
from vaecodec.errors import FormatError
from vaecodec.limits import DEFAULT, NONE, Limits

if TYPE_CHECKING:
    import numpy as np

TAG = b"PSET"
HEAD = struct.Struct("<BB16sIHII")  # version, reserved, model, count, side, consumed, CRC-32
MOST_CONSUMED = 1 << 20
# A picture that costs less than this does not occur: it is coded as its model expects, pixel by pixel.
LEAST_BITS = 1.0 / 64


class Header(NamedTuple):
    """What PSET says; `model` is 32 hexadecimal digits."""

    model: str
    pictures: int
    side: int
    consumed: int
    crc: int


def is_set(head: bytes) -> bool:
    """Whether a file that begins with these bytes, 16 or more, holds a set of pictures."""
    return head[:8] == MAGIC and head[12:16] == TAG


def encode(pictures: np.ndarray, model: str = "digits") -> bytes:
    """u8[N, S, S] -> a .vae file, bytes, without loss; raises CodecError on pictures of another size, or none."""
    from vaecodec.generative import bitsback
    from vaecodec.model.file import load_generator

    found = load_generator(model)
    data, consumed = bitsback.encode(found, pictures)
    fields = (len(pictures), found.config.side, consumed, zlib.crc32(pictures.tobytes()))
    head = HEAD.pack(VERSION, 0, bytes.fromhex(found.id), *fields)
    return MAGIC + chunk(TAG, head) + chunk(b"DATA", data)


def decode(data: bytes, model: str | None = None, limits: Limits | None = DEFAULT) -> np.ndarray:
    """The inverse of encode; `model` where it is not a shipped one.

    Raises FormatError on damage, ModelError where the model is not at hand, LimitError on more pixels than `limits`
    allow (None: any number).
    """
    from vaecodec.errors import LimitError, ModelError
    from vaecodec.generative import bitsback
    from vaecodec.model.file import find_generator, load_generator

    header, words = parse(data)
    pixels, most = header.pictures * header.side**2, (limits or NONE).pixels
    if most is not None and pixels > most:
        raise LimitError(f"{header.pictures} pictures of {pixels} pixels in all exceed the limit of {most}")
    found = load_generator(model) if model else find_generator(header.model)
    if found.id != header.model:
        raise ModelError(f"this file needs model {header.model}, and the one at hand is {found.id}")
    if found.config.side != header.side:
        raise FormatError(f"the header gives pictures of side {header.side}, and its model makes {found.config.side}")
    pictures = bitsback.decode(found, words, header.consumed, header.pictures)
    if zlib.crc32(pictures.data) != header.crc:
        raise FormatError("the CRC of its pixels does not match")
    return pictures


def parse(data: bytes) -> tuple[Header, bytes]:
    """(header, words of the stack) of a file; raises FormatError on damage."""
    if not is_set(data[:16]):
        raise FormatError("not a .vae file of a set of pictures" if data[:8] == MAGIC else "not a .vae file")
    parts, position = [], len(MAGIC)
    for tag in (TAG, b"DATA"):
        if len(data) - position < 12:
            raise FormatError("the file is cut off")
        length = int.from_bytes(data[position : position + 4], "little")
        found, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            raise FormatError(f"the file is cut off or damaged inside chunk {found!r}")
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "little"):
            raise FormatError(f"chunk {found!r} is damaged (its CRC does not match)")
        if found != tag:
            raise FormatError(f"chunk {found!r} stands where {tag!r} is expected")
        parts.append(data[position + 8 : end])
        position = end + 4
    if position != len(data):
        raise FormatError(f"{len(data) - position} bytes follow the end of the file")
    head, words = parts
    return read_head(head, len(words)), words


def read_head(payload: bytes, size: int) -> Header:
    """A PSET chunk, of a file with `size` bytes of words; raises FormatError on any value out of range."""
    if payload and payload[0] != VERSION:
        raise FormatError(f"file version {payload[0]} is not supported (this is a reader of version {VERSION})")
    if len(payload) != HEAD.size:
        raise FormatError(f"the header is {len(payload)} bytes long, expected {HEAD.size}")
    _, reserved, model, count, side, consumed, crc = HEAD.unpack(payload)
    if reserved:
        raise FormatError("the header sets flags that this version does not know")
    if not count or not side or consumed > MOST_CONSUMED:
        raise FormatError(f"the header gives {count} pictures of side {side}, and {consumed} words of the beginning")
    if count * LEAST_BITS > 8 * (size + 4 * consumed + 4):
        raise FormatError(f"the header gives {count} pictures, more than {size} bytes can hold")
    return Header(model.hex(), count, side, consumed, crc)


def info(data: bytes) -> dict[str, Any]:
    """What a file says of itself, JSON-ready; raises FormatError on damage."""
    header, _ = parse(data)
    pixels = header.pictures * header.side**2
    return {
        "kind": "set",
        "version": VERSION,
        "coding": "bits back",
        "model": header.model,
        "count": header.pictures,
        "height": header.side,
        "width": header.side,
        "bytes": len(data),
        "bpp": 8 * len(data) / pixels,
    }
