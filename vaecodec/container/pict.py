"""Read and write PICT, the header of an image that is not coded by a model (docs/reference/format.md, section 2.3).

Standard library only.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from vaecodec.arguments import MAX_ERROR
from vaecodec.container.chunks import VERSION, check_version
from vaecodec.errors import FormatError

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
