"""Transform planes with the four octaves of the wavelet CDF 9/7, in integers, and with one octave in floats.

Decoders use the integers, and scale their coefficients to quantisation steps.  Encoders and training use the floats
(Daubechies and Sweldens 1998, section 7.7), of planes [P, H, W] with even sides, whose edges are mirrored at the first
and the last sample.  Subbands are detail along rows, along columns and along both.  The scale NORM makes the wavelet
nearly orthonormal.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

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


STEPS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
NORM = 1.149604398860241  # scale of low-pass coefficients; detail coefficients have its inverse

BLOCK, REACH = 16, 4  # a block of samples depends on its coefficients and on REACH more on either side


def float_forward_dwt(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[C, 2h, 2w] -> low [C, h, w], subbands [3 C, h, w]."""
    (low, across), (down, both) = (split_axis(half, 2) for half in split_axis(samples, 1))
    return low, np.concatenate([across, down, both])


def float_inverse_dwt(coefficients: np.ndarray) -> np.ndarray:
    """f32[P, 2h, 2w], see `interleave` -> samples, in place.

    Products with banded matrices take half the time of lifting in NumPy.
    """
    columns = np.empty_like(coefficients)
    _inverse_rows(coefficients.swapaxes(1, 2), columns.swapaxes(1, 2))
    _inverse_rows(columns, coefficients)
    return coefficients


def float_inverse_dwt_adjoint(gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient by samples [C, 2h, 2w] -> by low [C, h, w] and subbands [3 C, h, w]."""
    (low, across), (down, both) = (_merge_adjoint(half, 2) for half in _merge_adjoint(gradient, 1))
    return low, np.concatenate([across, down, both])


def interleave(low: np.ndarray, subbands: np.ndarray) -> np.ndarray:
    """low [C, h, w], subbands [3 C, h, w] -> [C, 2h, 2w]: low at even rows and columns, detail between."""
    channels, height, width = low.shape
    out = np.empty((channels, 2 * height, 2 * width), subbands.dtype)
    for n, plane in enumerate((low, *np.split(subbands, 3))):
        out[:, n // 2 :: 2, n % 2 :: 2] = plane
    return out


def split_axis(samples: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples -> (low, high), each half as long along `axis`."""
    along = np.moveaxis(samples, axis, 0)
    even, odd = along[::2].copy("K"), along[1::2].copy("K")
    for step in range(4):
        _lift(even, odd, step, STEPS[step])
    return np.moveaxis(even * NORM, 0, axis), np.moveaxis(odd * (1 / NORM), 0, axis)


def merge_axis(low: np.ndarray, high: np.ndarray, axis: int) -> np.ndarray:
    """The inverse of split_axis."""
    even, odd = np.moveaxis(low * (1 / NORM), axis, 0), np.moveaxis(high * NORM, axis, 0)
    for step in (3, 2, 1, 0):
        _lift(even, odd, step, -STEPS[step])
    samples = np.empty((2 * len(even), *even.shape[1:]), even.dtype)
    samples[::2], samples[1::2] = even, odd
    return np.moveaxis(samples, 0, axis)


def _lift(even: np.ndarray, odd: np.ndarray, step: int, factor: float) -> None:
    """Add `factor` times the sum of both neighbours to odd samples (steps 0 and 2), or to even ones (1 and 3)."""
    if step % 2 == 0:
        odd[-1:] += factor * (2 * even[-1:])
        odd[:-1] += factor * (even[1:] + even[:-1])
    else:
        even[:1] += factor * (2 * odd[:1])
        even[1:] += factor * (odd[1:] + odd[:-1])


def _merge_adjoint(gradient: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Gradient by the result of merge_axis -> by low and high."""
    along = np.moveaxis(gradient, axis, 0)
    even, odd = along[::2].copy("K"), along[1::2].copy("K")
    for step, factor in enumerate(STEPS):
        target, other = (odd, even) if step % 2 == 0 else (even, odd)
        edge, inner = (slice(-1, None), slice(0, -1)) if step % 2 == 0 else (slice(0, 1), slice(1, None))
        other[edge] -= factor * (2 * target[edge])
        share = factor * target[inner]
        other[1:] -= share
        other[:-1] -= share
    return np.moveaxis(even * (1 / NORM), 0, axis), np.moveaxis(odd * NORM, 0, axis)


@lru_cache(maxsize=64)
def _matrix(length: int) -> np.ndarray:
    """f32[length, length]: interleaved coefficients of a row times this are its samples."""
    units = np.eye(length)[:, None]
    return merge_axis(units[..., ::2], units[..., 1::2], 2)[:, 0].astype(np.float32, order="C")


@lru_cache(maxsize=1)
def _blocks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices of the first block of a row, of those within, and of the last, which has REACH samples more."""
    whole, inner = _matrix(3 * BLOCK), slice(BLOCK - REACH, 2 * BLOCK + REACH)
    first, last = whole[: BLOCK + REACH, :BLOCK], whole[-BLOCK - 2 * REACH :, -BLOCK - REACH :]
    return first.copy(), whole[inner, BLOCK : 2 * BLOCK].copy(), last.copy()


def _inverse_rows(x: np.ndarray, out: np.ndarray) -> None:
    """Inverse transform of each row of [P, H, W] into `out`."""
    length = x.shape[2]
    if length < 2 * BLOCK + REACH:
        np.matmul(x, _matrix(length), out=out)
        return
    first, within, last = _blocks()
    count = (length - REACH) // BLOCK - 1
    np.matmul(x[..., : BLOCK + REACH], first, out=out[..., :BLOCK])
    np.matmul(_windows(x, REACH, count), within, out=_windows(out, 0, count))
    np.matmul(x[..., -BLOCK - 2 * REACH :], last, out=out[..., -BLOCK - REACH :])


def _windows(x: np.ndarray, margin: int, count: int) -> np.ndarray:
    """View [P, count, H, BLOCK + 2 margin]: the blocks after the first, each with a margin on both sides."""
    shape = (x.shape[0], count, x.shape[1], BLOCK + 2 * margin)
    strides = (x.strides[0], BLOCK * x.strides[2], x.strides[1], x.strides[2])
    return as_strided(x[..., BLOCK - margin :], shape, strides)
