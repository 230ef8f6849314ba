"""Transform planes with the four octaves of the integer wavelet, and scale coefficients to quantisation steps."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np

from vaecodec.config import STRIDE
from vaecodec.native import wavelet as kernels
from vaecodec.native.library import reused
from vaecodec.threads import ONE_THREAD, Threads

OCTAVES = 4  # of the transforms; the prior splits the low-pass image of a tile once more
SUBBANDS = 3  # detail along rows, along columns, along both
SIDES = [STRIDE >> (octave + 1) for octave in range(OCTAVES)] + [1]  # coefficients of a cell, each way
VALUE_BITS = 6  # unit of decoded values: 2**-6 quantisation steps

ScaledGains = tuple[np.ndarray, np.ndarray]  # mantissas and shifts i32[13 C], see gains.scaled_gains
Half = np.ndarray  # [h, w, 6 C]: half of the coefficients of an octave, in squares of 2 x 2 positions


class Coefficients(NamedTuple):
    """Planes i32 of an image: `low` [C, h, w] and, finest first, `subbands[octave]` [3 C, 8h >> octave, 8w >> octave].

    Plane s * C + c of an octave is subband s of channel c.
    """

    subbands: list[np.ndarray]
    low: np.ndarray

    @property
    def cells(self) -> tuple[int, int]:
        """(h, w): blocks of 16 x 16 pixels."""
        return self.low.shape[1], self.low.shape[2]

    def planes(self) -> list[np.ndarray]:
        """Subbands of each octave, then the low-pass image."""
        return [*self.subbands, self.low]

    def crop(self, top: int, left: int, bottom: int, right: int) -> Coefficients:
        """Views of a rectangle of cells."""
        planes = [
            plane[:, side * top : side * bottom, side * left : side * right]
            for plane, side in zip(self.planes(), SIDES, strict=True)
        ]
        return Coefficients(planes[:-1], planes[-1])


class Values(NamedTuple):
    """Decoded values of a tile: i32 in units of 2**-6 quantisation steps, within +-2**16, of `low` within +-2**17.

    `halves[octave]` are the two halves of octaves 0 to 3; `low` [C, h, w] is the low-pass image.
    """

    halves: list[tuple[Half, Half]]
    low: np.ndarray

    def narrowed(self) -> Values:
        """A copy in i16 where that holds all values, for keeping."""
        arrays = [*chain.from_iterable(self.halves), self.low]
        if any(max(array.max(initial=0), -array.min(initial=0)) > np.iinfo(np.int16).max for array in arrays):
            return self
        return Values([(a.astype(np.int16), b.astype(np.int16)) for a, b in self.halves], self.low.astype(np.int16))

    def widened(self) -> Values:
        """The same in i32."""
        halves = [(a.astype(np.int32, copy=False), b.astype(np.int32, copy=False)) for a, b in self.halves]
        return Values(halves, self.low.astype(np.int32, copy=False))


def empty_coefficients(
    channels: int, cells: tuple[int, int], dtype: type = np.int32, name: str | None = None
) -> Coefficients:
    """Uninitialised planes of an image of (h, w) cells; with a name, for the use of one call (library.reused)."""
    counts = [SUBBANDS * channels] * OCTAVES + [channels]
    shapes = [(count, side * cells[0], side * cells[1]) for count, side in zip(counts, SIDES, strict=True)]
    planes: list[np.ndarray]
    if name is None:
        planes = [np.empty(shape, dtype) for shape in shapes]
    else:
        planes = [reused(f"{name}{n}", shape, dtype) for n, shape in enumerate(shapes)]
    return Coefficients(planes[:-1], planes[-1])


def forward_dwt(planes: np.ndarray, threads: Threads = ONE_THREAD) -> Coefficients:
    """Planes i32[C, 16h, 16w] -> coefficients in their unit; threads share the channels."""
    channels, height, width = planes.shape
    out = empty_coefficients(channels, (height // STRIDE, width // STRIDE))

    def transform(channel: int) -> None:
        low = planes[channel : channel + 1]
        for octave in out.subbands:
            low, _ = kernels.forward_dwt(low, bands=octave[channel::channels])
        out.low[channel] = low[0]

    threads.run(transform, range(channels))
    return out


def inverse_dwt(coefficients: Coefficients, threads: Threads = ONE_THREAD, out: np.ndarray | None = None) -> np.ndarray:
    """The inverse of forward_dwt; returns `out`, or a new array."""
    channels, h, w = coefficients.low.shape
    planes = np.empty((channels, STRIDE * h, STRIDE * w), np.int32) if out is None else out

    def transform(channel: int) -> None:
        low = coefficients.low[channel : channel + 1]
        for octave in range(OCTAVES - 1, -1, -1):
            target = None if octave else planes[channel : channel + 1]
            low = kernels.inverse_dwt(low, coefficients.subbands[octave][channel::channels], out=target)

    threads.run(transform, range(channels))
    return planes


def dequantise(values: Values, gains: ScaledGains, name: str | None = None) -> Coefficients:
    """Coefficients, unit 2**-14, of the values of a tile; with a name, for the use of one call (library.reused)."""
    mantissas, shifts = gains
    channels, h, w = values.low.shape
    width = SUBBANDS * channels
    out = empty_coefficients(channels, (h, w), name=name)
    for octave, planes in enumerate(out.subbands):
        span = slice(octave * width, (octave + 1) * width)
        kernels.octave_planes(*values.halves[octave], planes.shape[1:], mantissas[span], shifts[span], out=planes)
    mantissa, shift = (gain[OCTAVES * width :, None, None] for gain in gains)
    low = values.low.astype(np.int64) * mantissa + (1 << shift >> 1)  # may leave 32 bits
    np.right_shift(low, shift, out=out.low, casting="same_kind")
    return out


def quantisation_targets(coefficients: Coefficients, gains: ScaledGains) -> Values:
    """Coefficients of a tile, f32 in quantisation steps, in the order of Values."""
    mantissas, shifts = gains
    scales = np.ldexp(1.0 / mantissas, shifts - VALUE_BITS).astype(np.float32)
    width = SUBBANDS * len(coefficients.low)
    halves = [
        kernels.octave_scaled(planes, scales[octave * width : (octave + 1) * width])
        for octave, planes in enumerate(coefficients.subbands)
    ]
    return Values(halves, coefficients.low.astype(np.float32) * scales[OCTAVES * width :, None, None])
