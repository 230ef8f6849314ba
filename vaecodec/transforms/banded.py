"""Octaves of the wavelet as products with banded matrices: half of the time that lifting takes in NumPy, or less.

    samples [P, 2h, 2w] <-- rows, columns -- coefficients, which take turns as even and odd samples do:

        low      across         low-pass, detail along rows,
        down     both           along columns, along both

In float32, of what `lifting` makes; and exactly, in float64, of integers and of whole numbers for the matrix.
BLOCK samples of a long line depend on no more than REACH others on either side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided

from vaecodec.transforms import lifting
from vaecodec.transforms.integer import nearest

BLOCK, REACH = 16, 4
WHOLE_BITS = 16
# What low-pass and detail coefficients give to the sample at their place and to those next to it, unit 2**-16.
LOW_TAPS = (51674, 27400, -2667, -4230)
HIGH_TAPS = (55882, -24733, -7250, 1563, 2479)


def samples(length: int) -> np.ndarray:
    """f32[length, length]: from the coefficients of a line to its samples."""
    units = np.eye(length)[:, None]
    return lifting.join(units[..., ::2], units[..., 1::2], 2, lifting.REAL)[:, 0].astype(np.float32)


def coefficients(length: int) -> np.ndarray:
    """The inverse."""
    halves = lifting.part(np.eye(length)[:, None], 2, lifting.REAL)
    return np.stack(halves, -1).reshape(length, length).astype(np.float32)


def whole_samples(length: int) -> np.ndarray:
    """f64[length, length]: `samples` in whole numbers, unit 2**-16."""
    out = np.zeros((length, length))
    for place in range(length):
        for away in range(-REACH, REACH + 1):
            # Mirrored at the first sample and at the last.
            other = abs(place + away) % (2 * length - 2)
            other = min(other, 2 * length - 2 - other)
            taps = HIGH_TAPS if other % 2 else LOW_TAPS
            out[other, place] += taps[abs(away)] if abs(away) < len(taps) else 0
    return out


Matrix = Callable[[int], np.ndarray]


@lru_cache(maxsize=64)
def _matrix(make: Matrix, length: int) -> np.ndarray:
    return make(length)


@lru_cache(maxsize=4)
def _blocks(make: Matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the first block of a line, of those within, and of the last, which is longer: its end need not be theirs."""
    some, middle = make(3 * BLOCK), slice(BLOCK - REACH, 2 * BLOCK + REACH)
    found = some[: BLOCK + REACH, :BLOCK], some[middle, BLOCK : 2 * BLOCK], some[-BLOCK - 2 * REACH :, -BLOCK - REACH :]
    return tuple(map(np.ascontiguousarray, found))  # type: ignore[return-value]


def _along(x: np.ndarray, out: np.ndarray, make: Matrix) -> None:
    """Each row of [P, H, W] by itself, into out, of the same shape."""
    length = x.shape[2]
    if length < 2 * BLOCK + REACH:
        np.matmul(x, _matrix(make, length), out=out)
        return
    first, within, last = _blocks(make)
    count = (length - REACH) // BLOCK - 1
    np.matmul(x[..., : BLOCK + REACH], first, out=out[..., :BLOCK])
    np.matmul(_windows(x, REACH, count), within, out=_windows(out, 0, count))
    np.matmul(x[..., -BLOCK - 2 * REACH :], last, out=out[..., -BLOCK - REACH :])


def _windows(x: np.ndarray, more: int, count: int) -> np.ndarray:
    """[P, count, H, BLOCK + 2 more]: the blocks after the first, and so many samples before and after each."""
    shape = (x.shape[0], count, x.shape[1], BLOCK + 2 * more)
    strides = (x.strides[0], BLOCK * x.strides[2], x.strides[1], x.strides[2])
    return as_strided(x[..., BLOCK - more :], shape, strides)


def both(x: np.ndarray, make: Matrix) -> np.ndarray:
    """[P, H, W], sides even: columns, then rows, by the matrices of `make`, in their type; x is used up."""
    out = np.empty_like(x)
    _along(x.swapaxes(1, 2), out.swapaxes(1, 2), make)
    _along(out, x, make)
    return x


def inverse_exactly(x: np.ndarray) -> np.ndarray:
    """Samples of f64[P, H, W], integers up to 2**16, rounded, halves up; x is used up.  No sum reaches 2**53."""
    x = both(x, whole_samples)
    x *= 2.0 ** (-2 * WHOLE_BITS)
    return nearest(x)
