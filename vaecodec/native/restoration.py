"""Apply a restoration filter to the samples of an image, and sum the normal equations that one is fitted by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.native import library
from vaecodec.native.library import pointer
from vaecodec.native.reference import restoration as reference

SMALLEST = reference.REACH + 1  # samples of a side: what is beyond the edges is mirrored


class FilterWeights(NamedTuple):
    """Integers of one filter; K classes, C colours."""

    rotation: np.ndarray  # i32[C, C], unit 2**-14: rotated colours in rows
    first: np.ndarray  # i32[K, 9] within +-128: weights of colour 0
    shifts: np.ndarray  # i32[K], 0..15: their units are 2**-shift
    ramps: np.ndarray  # i32[K - 1], 0..65535: how fast a class gives way to the next
    others: np.ndarray  # i32[2 C] within +-128, unit 2**-9; i32[0] where C is 1


def restore(
    samples: np.ndarray, weights: FilterWeights, rows: slice = slice(None), out: np.ndarray | None = None
) -> np.ndarray:
    """Filter some rows of an image.

    Args:
        samples: i16[H, W, C], unit 2**-6 of a level, 0 at the middle of the range; sides of at least 5.
        weights: the filter.
        rows: which rows to make.
        out: u8[H, W, C] to make them in.

    Returns:
        out, or a new u8[H, W, C], with these rows filled.
    """
    height, width, channels = samples.shape
    _check(samples, weights.rotation)
    out = np.empty(samples.shape, np.uint8) if out is None else out
    if out.shape != samples.shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError("out must be a contiguous u8 array of the samples' shape")
    classes = len(weights.first)
    arrays = [np.ascontiguousarray(each, np.int32) for each in weights]
    shapes = [(channels, channels), (classes, 9), (classes,), (classes - 1,), (2 * channels * (channels > 1),)]
    if [each.shape for each in arrays] != shapes:
        raise ValueError("the filter's weights have the wrong shapes")
    top, bottom, step = rows.indices(height)
    if step != 1:
        raise ValueError("rows must follow each other")
    kernel = library.kernel("restore", "iiiiii" + "p" * 8)
    if kernel is None:
        out[top:bottom] = reference.restore(samples, *arrays)[top:bottom]
        return out
    scratch = _scratch("restoration_scratch", width, channels)
    kernel(
        *(height, width, channels, top, bottom, classes),
        *(pointer(each) for each in (*arrays, samples, scratch, out)),
    )
    return out


class FitSums(NamedTuple):
    """Sums of products of what lies around samples, and of that with what the samples lack; i64, unit 1/64."""

    first: np.ndarray  # [9, 9]
    first_right: np.ndarray  # [9]
    others: np.ndarray  # [C - 1, 4, 4]: own near and diagonal sums, those of colour 0
    others_right: np.ndarray  # [C - 1, 4]


def fit_sums(
    samples: np.ndarray, wanted: np.ndarray, box: tuple[int, int, int, int], every: int, rotation: np.ndarray
) -> FitSums:
    """Sum the normal equations of a filter of one class over every `every`-th row of a box (top, left, bottom, right).

    samples i16[H, W, C] as in `restore`, wanted u8[H, W, C], rotation i32[C, C].
    """
    height, width, channels = samples.shape
    _check(samples, rotation)
    top, left, bottom, right = box
    if wanted.shape != samples.shape or wanted.dtype != np.uint8:
        raise ValueError("wanted must be u8 of the samples' shape")
    if not (0 <= top <= bottom <= height and 0 <= left <= right <= width and every >= 1):
        raise ValueError(f"box {box} does not lie within the image")
    kernel = library.kernel("fit_sums", "iiiiiiii" + "p" * 5)
    rotation = np.ascontiguousarray(rotation, np.int32)
    if kernel is None:
        sums = reference.fit_sums(samples, wanted, box, every, rotation)
    else:
        wanted, sums = np.ascontiguousarray(wanted), np.zeros(90 + 20 * (channels - 1), np.int64)
        scratch = _scratch("fit_scratch", width, channels)
        arrays = (rotation, samples, wanted, scratch, sums)
        kernel(height, width, channels, top, left, bottom, right, every, *map(pointer, arrays))
    first, others = sums[:81].reshape(9, 9), sums[90:].reshape(channels - 1, 20)
    squares = others[:, :16].reshape(-1, 4, 4)
    return FitSums(_symmetric(first), sums[81:90], _symmetric(squares), others[:, 16:])


def _symmetric(upper: np.ndarray) -> np.ndarray:
    """A matrix of which the upper triangle is given, or a stack of them."""
    above = np.triu(upper)
    return above + np.triu(above, 1).swapaxes(-1, -2)


def _check(samples: np.ndarray, rotation: np.ndarray) -> None:
    if samples.dtype != np.int16 or samples.ndim != 3 or not samples.flags.c_contiguous:
        raise ValueError("samples must be a contiguous i16[H, W, C]")
    if min(samples.shape[:2]) < SMALLEST or rotation.shape != (samples.shape[2],) * 2:
        raise ValueError(f"samples are {list(samples.shape)}, expected sides of at least {SMALLEST}")


def _scratch(name: str, width: int, channels: int) -> np.ndarray:
    size = library.kernel(name, "ii")
    assert size is not None
    return np.empty(size(width, channels), np.uint8)
