"""Describe any .vae file by its header, and read and write that of a set of small images (docs/reference/sets.md).

magic
PSET     version, model, number of images, side, initial words consumed, CRC-32 of all pixels
DATA     words of the stack

Standard library only.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, BinaryIO, NamedTuple

from vaecodec.arguments import Readable, is_url, to_bytes
from vaecodec.container import MAGIC, VERSION, check_crc, check_version, image_file, name_of_tag, pack_chunk, stored
from vaecodec.errors import FormatError

SET_HEADER = struct.Struct("<BB16sIHII")  # version, reserved, then the fields of Header
MAX_CONSUMED = 1 << 20
MIN_BITS = 1.0 / 64  # no image costs less, even if the model predicts every pixel of it


class SetHeader(NamedTuple):
    """The fields of PSET; `model` is 32 hexadecimal digits."""

    model: str
    images: int
    side: int
    consumed: int
    crc: int


def is_image_set(head: bytes) -> bool:
    """Whether a file that begins with these bytes, 16 or more, holds a set of images."""
    return head[:8] == MAGIC and head[12:16] == b"PSET"


def pack_set(header: SetHeader, words: bytes) -> bytes:
    """The file of a header and the words of a stack."""
    payload = SET_HEADER.pack(VERSION, 0, bytes.fromhex(header.model), *header[1:])
    return MAGIC + pack_chunk(b"PSET", payload) + pack_chunk(b"DATA", words)


def parse_set(data: bytes) -> tuple[SetHeader, bytes]:
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
    if len(payload) != SET_HEADER.size:
        raise FormatError(f"the header is {len(payload)} bytes long, expected {SET_HEADER.size}")
    _, reserved, model, images, side, consumed, crc = SET_HEADER.unpack(payload)
    if reserved:
        raise FormatError("the header sets flags that are unknown in this version")
    if not images or not side or consumed > MAX_CONSUMED:
        raise FormatError(f"the header gives {images} images of side {side}, and {consumed} initial words")
    if images * MIN_BITS > 8 * (len(words) + 4 * consumed + 4):
        raise FormatError(f"the header gives {images} images, more than {len(words)} bytes can hold")
    return SetHeader(model.hex(), images, side, consumed, crc), words


def set_info(data: bytes) -> dict[str, Any]:
    """Describe a file by its header, JSON-ready; raises FormatError on damage."""
    header, _ = parse_set(data)
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


@dataclass(frozen=True, eq=False)
class Info(Mapping[str, Any]):
    """What the header of a .vae file says; fields that its kind lacks are None.

    The fields that the kind has are also items, `info["width"]`, as in the JSON that `vaecodec info --json` prints.
    """

    kind: str  # "picture", "array" (channels that images do not have), "file" (stored) or "set" (of encode_set)
    version: int  # of the format
    bytes: int  # of the .vae file
    bpp: float | None = None  # bits per pixel of the .vae file
    width: int | None = None  # pixels
    height: int | None = None
    channels: int | None = None  # 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; or those of an array
    depth: int | None = None  # bits a sample, 8 to 16
    coding: str | None = None  # "vae", "lossless", "near-lossless", "avif" or, of a set, "bits back"
    max_error: int | None = None  # of a colour sample, where the coding is "lossless" (0) or "near-lossless"
    quality: float | None = None  # 1..100, where the coding is "vae"
    model: str | None = None  # id of the model that decodes it: 32 hexadecimal digits
    metadata: tuple[str, ...] | None = None  # any of "dpi", "exif", "icc", "xmp"
    tile: int | None = None  # side of the tiles in pixels
    tiles: int | None = None  # number of tiles
    filtered: bool | None = None  # whether the file has a restoration filter
    count: int | None = None  # images of a set
    name: str | None = None  # of a stored file
    method: str | None = None  # how it is compressed
    mode: str | None = None  # its permissions, in octal digits
    mtime_ns: int | None = None  # its time of modification, in nanoseconds since 1970
    size: int | None = None  # its size in bytes
    record: dict[str, Any] = field(default_factory=dict, repr=False)  # what the items are of

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Info:
        """Make the fields from a JSON-ready record."""
        names = {item.name for item in fields(cls)}
        values: Any = {name: tuple(x) if isinstance(x, list) else x for name, x in record.items() if name in names}
        return cls(**values, record=record)

    def to_dict(self) -> dict[str, Any]:
        """Return the items as a JSON-ready dict."""
        return dict(self.record)

    def __getitem__(self, name: str) -> Any:
        return self.record[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.record)

    def __len__(self) -> int:
        return len(self.record)


def info(source: Readable) -> Info:
    """Describe a .vae file, named by its path or given as bytes or a binary file.

    Raises FormatError on damage, OSError where a file cannot be read.
    """
    if isinstance(source, (str, os.PathLike)) and not is_url(source):
        with open(source, "rb") as file:
            return Info.from_record(describe_file(file))
    return Info.from_record(describe_file(io.BytesIO(to_bytes(source))))


def describe_file(file: BinaryIO) -> dict[str, Any]:
    """Describe the .vae file in a stream, which need not be seekable, as a JSON-ready record.

    Raises FormatError on damage.
    """
    head = file.read(16)
    if stored.is_stored(head):
        return stored.info(file, head)
    if file.seekable():  # so that the data are in memory only once
        file.seek(-len(head), os.SEEK_CUR)
        head = b""
    data = head + file.read()
    return set_info(data) if is_image_set(data[:16]) else image_file.info(data)
