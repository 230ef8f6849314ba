"""Describe any .vae file by its header, without NumPy."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, BinaryIO

from vaecodec.arguments import Readable, is_url, to_bytes
from vaecodec.container import image_file, image_set, stored


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
    return image_set.info(data) if image_set.is_image_set(data[:16]) else image_file.info(data)
