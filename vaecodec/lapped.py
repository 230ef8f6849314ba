"""The lapped filter (layers.Float.lapped) in NumPy: a strip of rows at a time, so that what it makes stays in cache.

    16 rows across each border of blocks --kernel--> 16 rows; then along each row as well

At the picture's edges the 8 samples that there are stand for their mirror image too: an 8 by 8 kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from vaecodec.integer import one_thread

STRIP = 1 << 16  # samples, about


def strips(x: np.ndarray, kernel: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(top, f32[n, W * C]) of rows from the top of f32 or u8[H, W, C], filtered by kernel f32[s, s]; s divides H and W.

    Of u8, what it is in [-1/2, 1/2] is filtered.  Each array is good until the next is asked for.
    """
    size, half, channels = len(kernel), len(kernel) // 2, x.shape[2]
    rows, first, last = x.reshape(len(x), -1), *_edges(kernel)
    wide, left, right = (np.kron(one, np.eye(channels, dtype=np.float32)).T for one in (kernel, first, last))
    most = max(1, STRIP // (size * rows.shape[1])) * size
    tops = [0, *range(half, len(rows) - half, most), len(rows) - half, len(rows)]
    for top, bottom in pairwise(tops):
        down = first if top == 0 else last if bottom == len(rows) else kernel
        strip = rows[top:bottom]
        if strip.dtype == np.uint8:
            strip = strip * np.float32(1 / 255)
            strip -= np.float32(0.5)
        with one_thread:
            strip = (down @ strip.reshape(-1, len(down), rows.shape[1])).reshape(strip.shape)
            out, edge = np.empty_like(strip), half * channels
            # All rows in one product, of which what crosses from one row to the next is put right.
            inner, ends = slice(edge, -edge), (-1, size * channels)
            np.matmul(strip.ravel()[inner].reshape(ends), wide, out=out.ravel()[inner].reshape(ends))
            out[:, :edge] = strip[:, :edge] @ left
            out[:, -edge:] = strip[:, -edge:] @ right
        yield top, out


def _edges(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernels [s/2, s/2] of the first and of the last rows: the other half of what they meet is their mirror."""
    half = len(kernel) // 2
    return kernel[half:, half:] + kernel[half:, :half][:, ::-1], kernel[:half, :half] + kernel[:half, half:][:, ::-1]


def filtered(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """f32[H, W, C]: f32 or u8[H, W, C] through `strips`."""
    out = np.empty(x.shape, np.float32)
    for top, strip in strips(x, kernel):
        out[top : top + len(strip)] = strip.reshape(-1, *x.shape[1:])
    return out


def pixels(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """u8[H, W, C]: f32[H, W, C] in [-1/2, 1/2] through `strips`, halves rounded up."""
    out = np.empty(x.shape, np.uint8)
    for top, strip in strips(x, kernel):
        strip *= np.float32(255)
        strip += np.float32(128)
        out[top : top + len(strip)] = np.clip(strip, 0, 255, out=strip).reshape(-1, *x.shape[1:])
    return out
