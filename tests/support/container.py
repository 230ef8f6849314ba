"""Give bytes to every parser of .vae files.  Standard library only, as the parsers are."""

from __future__ import annotations

import io

from support.damage import with_right_crcs
from vaecodec.container import image_file, stored
from vaecodec.container.info import info, parse_set
from vaecodec.errors import CodecError


def take_apart(data: bytes) -> int:
    """The number of parsers that accept these bytes, or the same with right CRCs; all others raise CodecError."""
    accepted = 0
    for file in (data, with_right_crcs(data)):
        for parser in (info, image_file.metadata, read_tiles, read_preamble, parse_set, restore):
            try:
                parser(file)
                accepted += 1
            except CodecError:
                pass
    return accepted


def read_tiles(data: bytes) -> list[image_file.Tile]:
    """The first and last tiles; the CRC of DATA is not checked."""
    tiles = image_file.parse(data, check_data=False).tiles
    return [*tiles[:2], tiles[-1]]


def read_preamble(data: bytes) -> image_file.Preamble:
    return image_file.read_preamble(io.BytesIO(data))


def restore(data: bytes) -> tuple[stored.Stored, stored.Content]:
    return stored.read(io.BytesIO(data), None)
