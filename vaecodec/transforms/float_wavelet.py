"""Compute the CDF 9/7 wavelet in floats (Daubechies and Sweldens 1998, section 7.7), for encoders and training.

Arrays are planes [P, H, W] with even sides; edges are mirrored at the first and the last sample.  Subbands are detail
along rows, along columns and along both.  The scale NORM makes the wavelet nearly orthonormal.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided

STEPS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
NORM = 1.149604398860241  # scale of low-pass coefficients; detail coefficients have its inverse

BLOCK, REACH = 16, 4  # a block of samples depends on its coefficients and on REACH more on either side


def forward_dwt(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[C, 2h, 2w] -> low [C, h, w], subbands [3 C, h, w]."""
    (low, across), (down, both) = (split_axis(half, 2) for half in split_axis(samples, 1))
    return low, np.concatenate([across, down, both])


def inverse_dwt(coefficients: np.ndarray) -> np.ndarray:
    """f32[P, 2h, 2w], see `interleave` -> samples, in place.

    Products with banded matrices take half the time of lifting in NumPy.
    """
    columns = np.empty_like(coefficients)
    _inverse_rows(coefficients.swapaxes(1, 2), columns.swapaxes(1, 2))
    _inverse_rows(columns, coefficients)
    return coefficients


def inverse_dwt_adjoint(gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
