"""Transform planes by the integer CDF 9/7 wavelet (modulo 2**32), and order the coefficients of an octave for coding.

Planes are i32[C, H, W].  Subbands are i32[3C, H, W], plane b * C + c: of detail along rows, along columns, and along
both.  Halves are i32[h, w, 6C]: of each square of 2x2 places the coefficients that are coded first, and the others.
Inputs and outputs may be rectangles of larger arrays, as long as their rows are contiguous.
"""

from __future__ import annotations

import numpy as np

from vaecodec.native import library
from vaecodec.native.library import check, check_writable, strides_of
from vaecodec.native.reference import transforms as reference

CHANNELS_MAX = 16
VALUE_MAX = 1 << 16  # of coefficients: of their products with 14 bits none leaves 32
LOW_MAX = 1 << 17  # of the context: low-pass images, and what they are made of, in steps of these
GAIN_BITS = 10  # of gains in context_low
SHIFT_MAX = 31

Shape = tuple[int, int]


def half(shape: Shape) -> Shape:
    """The size of the subbands of an image of this size."""
    return (shape[0] + 1) // 2, (shape[1] + 1) // 2


def scratch_size(width: int) -> int:
    """The number of int32 that inverse_dwt and forward_dwt need for images of this width: eight rows of a ring."""
    return 8 * (width + width % 2)


def _scratch(scratch: np.ndarray | None, width: int) -> np.ndarray:
    if scratch is None:
        return library.memory(-(-scratch_size(width) // 16)).view(np.int32)
    check_writable("scratch", scratch, np.int32, (scratch.size,))
    if scratch.size < scratch_size(width):
        raise ValueError(f"scratch holds {scratch.size} numbers, expected {scratch_size(width)}")
    return scratch


def _output(out: np.ndarray | None, shape: tuple[int, int, int], *inputs: np.ndarray) -> np.ndarray:
    if out is None:
        return np.empty(shape, np.int32)
    if not out.flags.writeable or any(np.may_share_memory(out, array) for array in inputs):
        raise ValueError("the output is read-only or overlaps an input")
    return out


def inverse_dwt(
    low: np.ndarray,
    bands: np.ndarray,
    shape: Shape | None = None,
    *,
    scale_low: bool = False,
    limit: int = 0,
    out: np.ndarray | None = None,
    scratch: np.ndarray | None = None,
) -> np.ndarray:
    """Samples i32[C, H, W] of one octave.

    Args:
        low: i32[C, h, w], h = ceil(H / 2), w = ceil(W / 2).
        bands: i32[3C, h, w].
        shape: (H, W); by default twice that of low.
        scale_low: multiply low by 12397 / 2**14 first, which undoes the normalisation of a low-pass image.
        limit: clip the samples to +-limit; 0 for no limit.
        out: i32[C, H, W] to write into.
        scratch: i32 of at least scratch_size(W), to be overwritten.
    """
    channels, h, w = low.shape
    shape = shape or (2 * h, 2 * w)
    if half(shape) != (h, w) or not 0 <= limit < 1 << 31:
        raise ValueError(f"an image of {shape} does not have subbands of {(h, w)}, or the limit {limit} is too large")
    out, scratch = _output(out, (channels, *shape), low, bands), _scratch(scratch, shape[1])
    low_strides, out_strides = strides_of("low", low, (channels, h, w)), strides_of("out", out, (channels, *shape))
    arrays = (low, *low_strides, bands, *strides_of("bands", bands, (3 * channels, h, w)), out, *out_strides)
    if library.in_numpy():
        out[...] = reference.inverse_dwt(low, bands, shape, scale_low, limit)
    elif out.size:
        numbers = channels, *shape, int(scale_low), limit
        library.call("inverse_dwt", "iiiiipqqpqqpqqp", *numbers, *arrays, scratch)
    return out


def forward_dwt(
    samples: np.ndarray, scratch: np.ndarray | None = None, bands: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(low i32[C, h, w], bands i32[3C, h, w]) of samples i32[C, H, W]: the exact inverse of inverse_dwt.

    The last row or column is repeated where their number is odd.  `bands` may be given, to write into.
    """
    channels, height, width = samples.shape
    h, w = half((height, width))
    low, bands = np.empty((channels, h, w), np.int32), _output(bands, (3 * channels, h, w), samples)
    scratch = _scratch(scratch, width)
    strides = strides_of("samples", samples, (channels, height, width))
    bands_strides = strides_of("bands", bands, (3 * channels, h, w))
    if library.in_numpy():
        low[...], bands[...] = reference.forward_dwt(samples)
    elif low.size:
        arrays = (samples, *strides, low, h * w, w, bands, *bands_strides, scratch)
        library.call("forward_dwt", "iiipqqpqqpqqp", channels, height, width, *arrays)
    return low, bands


def octave_planes(
    first: np.ndarray,
    second: np.ndarray,
    shape: Shape,
    mantissa: np.ndarray,
    shift: np.ndarray,
    *,
    limit: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Subbands i32[3C, H, W] of halves i32[h, w, 6C]: plane p times mantissa[p] / 2**shift[p], halves up.

    Args:
        first, second: i32[h, w, 6C], h = ceil(H / 2), w = ceil(W / 2).
        shape: (H, W).
        mantissa: i32[3C]; products wrap modulo 2**32.
        shift: i32[3C], 0 to 31.
        limit: clip the result to +-limit; 0 for no limit.
        out: i32[3C, H, W] to write into.
    """
    channels, cells = first.shape[2] // 6, half(shape)
    _check_channels(channels)
    out = _output(out, (3 * channels, *shape), first, second)
    for name, array in (("first", first), ("second", second)):
        check(name, array, np.int32, (*cells, 6 * channels))
    check("mantissa", mantissa, np.int32, (3 * channels,))
    check("shift", shift, np.int32, (3 * channels,))
    if shift.min() < 0 or shift.max() > SHIFT_MAX or not 0 <= limit < 1 << 31:
        raise ValueError("a shift or the limit is out of range")
    strides = strides_of("out", out, (3 * channels, *shape))
    if library.in_numpy():
        out[...] = reference.octave_planes(first, second, shape, mantissa, shift, limit)
    else:
        arrays = (first, second, mantissa, shift, limit, out, *strides)
        library.call("octave_planes", "iiippppipqq", channels, *shape, *arrays)
    return out


def octave_halves(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halves [h, w, 6C] of subbands [3C, H, W], i32 or f32: the inverse of octave_planes, 0 beyond odd sides."""
    count, height, width = planes.shape
    _check_channels(count // 3)
    shape = (*half((height, width)), 2 * count)
    if planes.dtype not in (np.int32, np.float32):
        raise ValueError(f"planes are {planes.dtype}, expected int32 or float32")
    strides = strides_of("planes", planes.view(np.int32), (count // 3 * 3, height, width))
    if library.in_numpy():
        first, second = reference.octave_halves(planes)
        return np.ascontiguousarray(first), np.ascontiguousarray(second)
    first, second = np.empty(shape, planes.dtype), np.empty(shape, planes.dtype)
    library.call("octave_halves", "iiipqqpp", count // 3, height, width, planes, *strides, first, second)
    return first, second


def octave_scaled(planes: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halves f32[h, w, 6C] of subbands i32[3C, H, W], plane p times scales[p], f32[3C]; 0 beyond odd sides."""
    count, height, width = planes.shape
    _check_channels(count // 3)
    shape = (*half((height, width)), 2 * count)
    check("scales", scales, np.float32, (count,))
    strides = strides_of("planes", planes, (count // 3 * 3, height, width))
    if library.in_numpy():
        return octave_halves(planes.astype(np.float32) * scales[:, None, None])
    first, second = np.empty(shape, np.float32), np.empty(shape, np.float32)
    library.call("octave_scaled", "iiipqqppp", count // 3, height, width, planes, *strides, scales, first, second)
    return first, second


def _check_channels(channels: int) -> None:
    if not 1 <= channels <= CHANNELS_MAX:
        raise ValueError(f"{channels} channels, expected 1 to {CHANNELS_MAX}")


def context_low(
    low: np.ndarray, first: np.ndarray, second: np.ndarray, gain: np.ndarray, shape: Shape | None = None
) -> np.ndarray:
    """The low-pass image i32[C, H', W'] that the prior of the next octave sees.

    Args:
        low: i32[C, H, W], that of this octave, unit 2**-6.
        first, second: values i32[h, w, 6C] of this octave.
        gain: i32[3C], unit 2**-10: of each subband, in steps of the low-pass image.
        shape: (H', W'); by default twice that of low.
    """
    bits = np.full(len(gain), GAIN_BITS, np.int32)
    bands = octave_planes(first, second, low.shape[1:], gain, bits, limit=LOW_MAX)
    return inverse_dwt(low, bands, shape, scale_low=True, limit=LOW_MAX)
