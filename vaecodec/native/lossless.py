"""Code samples without loss, or with a bound on every error: plane by plane, and some rows of a plane at a time.

A plane is predicted by weights that are fitted to the rows above, and its residuals are coded as binary decisions with
mixed probabilities.  Each plane has its own stream.  Of three and more channels the first three are coded as green,
red, blue; red sees green, and blue sees both.  Other planes see none.
"""

from __future__ import annotations

import numpy as np

from vaecodec.native import library
from vaecodec.native.library import check_rows
from vaecodec.native.reference import lossless as reference
from vaecodec.native.reference.lossless import (
    AHEAD_MAX,
    BOUND_MAX,
    CHANNELS_MAX,
    DEPTH_MAX,
    LEVEL_MAX,
    order_of_planes,
    reference_planes,
)
from vaecodec.native.reference.lossless_bits import tables

__all__ = [
    "AHEAD_MAX",
    "BOUND_MAX",
    "CHANNELS_MAX",
    "DEPTH_MAX",
    "LEVEL_MAX",
    "PlaneCoder",
    "order_of_planes",
    "reference_planes",
]

SAMPLE_BYTES = 192  # that one sample may take in a stream, in theory
LINE = 64


class PlaneCoder:
    """The state of all planes of one image.

    Each plane's rows are coded from the first to the last.  A row needs the same row of the planes that it sees, and
    these may be at most AHEAD_MAX rows ahead.  Different threads may code different planes at once.

    Args:
        image: u8 or u16 [H, W, C], contiguous, of 1 to 4 channels; samples below 2**depth.  Decoders write it, and
            encoders with a bound replace its samples with those that decoders get.
        depth: bits of a sample, 1..16.
        bound: the largest error of a sample, 0..16.
        level: of adaptation, 0..6: more time for fewer bytes, in both directions.

    Raises:
        ValueError: an argument is not within these limits.
    """

    def __init__(self, image: np.ndarray, depth: int, bound: int = 0, level: int = 0) -> None:
        if image.ndim != 3 or image.dtype not in (np.uint8, np.uint16) or not image.flags.c_contiguous:
            raise ValueError(
                f"image is {image.dtype}{list(image.shape)}, expected a contiguous uint8 or uint16 [H, W, C]"
            )
        if not 1 <= image.shape[2] <= CHANNELS_MAX or not image.size:
            raise ValueError(f"image has shape {image.shape}, expected 1 to {CHANNELS_MAX} channels and no empty side")
        if not 1 <= depth <= 8 * image.itemsize or not 0 <= bound <= BOUND_MAX:
            raise ValueError(f"depth {depth} or bound {bound} is not within 1..{8 * image.itemsize}, 0..{BOUND_MAX}")
        if not 0 <= level <= LEVEL_MAX:
            raise ValueError(f"level {level} is not within 0..{LEVEL_MAX}")
        self._image, self._depth, self._bound, self._level = image, depth, bound, level
        self._kind = library.kind()
        if library.in_numpy():
            self._reference = reference.PlaneCoder(image, depth, bound, level)
            return
        channels = image.shape[2]
        lines = library.size("lossless_size", image.shape[1], depth, level)
        memory = library.memory(lines * channels + 1)
        start = -library.pointer(memory) % LINE
        self._memory = memory[start : start + LINE * lines * channels].reshape(channels, LINE * lines)
        for plane in range(channels):
            library.call("lossless_start", "piii", self._memory[plane], image.shape[1], depth, level)

    def _arguments(self, plane: int, rows: tuple[int, int]) -> tuple[object, ...]:
        height, width, channels = self._image.shape
        check_rows(rows, height)
        if library.kind() != self._kind or not 0 <= plane < channels:
            raise ValueError(f"there is no plane {plane}, or the kind has changed")
        order = order_of_planes(channels)
        numbers = (
            self._memory.shape[1],
            plane,
            reference_planes(plane, channels),
            width,
            self._depth,
            self._bound,
            self._level,
            *rows,
        )
        wide = int(self._image.itemsize == 2)
        return (self._memory, *numbers, self._image, wide, channels, order[plane], tables())

    def encode(self, plane: int, rows: tuple[int, int]) -> bytes:
        """Encode the next rows of a plane, (first, beyond the last); returns what its stream goes on with."""
        if self._kind == library.REFERENCE:
            return self._reference.encode(plane, rows)
        height, width = self._image.shape[:2]
        out = np.empty(SAMPLE_BYTES * width * (rows[1] - rows[0]) + 1, np.uint8)
        arguments = (*self._arguments(plane, rows), out, int(rows[1] == height))
        if self._bound and not self._image.flags.writeable:
            raise ValueError("the image is read-only")
        return out[: library.call("lossless_encode", "pqiiiiiiiipiiippi", *arguments)].tobytes()

    def decode(self, plane: int, rows: tuple[int, int], data: bytes) -> bool:
        """Decode the next rows of a plane from its whole stream; returns whether the stream was long enough."""
        if not self._image.flags.writeable:
            raise ValueError("the image is read-only")
        if self._kind == library.REFERENCE:
            return self._reference.decode(plane, rows, data)
        arguments = (*self._arguments(plane, rows), np.frombuffer(data, np.uint8) if data else None, len(data))
        return not library.call("lossless_decode", "pqiiiiiiiipiiippq", *arguments)
