"""The lapped filter (layers.Float.lapped) in NumPy: a strip of rows at a time, so that what it makes stays in cache.

    16 rows across each border of blocks --kernel--> 16 rows; then along each row as well

At the picture's edges the 8 samples that there are stand for their mirror image too: an 8 by 8 kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from vaecodec.integer import one_thread

STRIP = 1 << 16  # samples, about


def in_strips(x: np.ndarray, kernel: np.ndarray, put: Callable[[int, np.ndarray], None], threads: int) -> None:
    """put(top, f32[n, W, C]) for all rows of f32 or u8[H, W, C], filtered by kernel f32[s, s]; s divides H and W.

    Of u8, what it is in [-1/2, 1/2] is filtered.  On so many threads, in any order.
    """
    size, half, channels = len(kernel), len(kernel) // 2, x.shape[2]
    rows, first, last = x.reshape(len(x), -1), *_edges(kernel)
    wide, left, right = (np.kron(one, np.eye(channels, dtype=np.float32)).T for one in (kernel, first, last))
    most = max(1, STRIP // (size * rows.shape[1])) * size
    tops = [0, *range(half, len(rows) - half, most), len(rows) - half, len(rows)]

    def one(ends: tuple[int, int]) -> None:
        top, bottom = ends
        down = first if top == 0 else last if bottom == len(rows) else kernel
        strip = rows[top:bottom]
        if strip.dtype == np.uint8:
            strip = strip * np.float32(1 / 255)
            strip -= np.float32(0.5)
        strip = (down @ strip.reshape(-1, len(down), rows.shape[1])).reshape(strip.shape)
        out, edge = np.empty_like(strip), half * channels
        # All rows in one product, of which what crosses from one row to the next is put right.
        inner, blocks = slice(edge, -edge), (-1, size * channels)
        np.matmul(strip.ravel()[inner].reshape(blocks), wide, out=out.ravel()[inner].reshape(blocks))
        out[:, :edge] = strip[:, :edge] @ left
        out[:, -edge:] = strip[:, -edge:] @ right
        put(top, out.reshape(-1, *x.shape[1:]))

    with one_thread:
        if threads == 1:
            for ends in pairwise(tops):
                one(ends)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, pairwise(tops)))


def _edges(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernels [s/2, s/2] of the first and of the last rows: the other half of what they meet is their mirror."""
    half = len(kernel) // 2
    return kernel[half:, half:] + kernel[half:, :half][:, ::-1], kernel[:half, :half] + kernel[:half, half:][:, ::-1]


def filtered(x: np.ndarray, kernel: np.ndarray, threads: int = 1) -> np.ndarray:
    """f32[H, W, C]: f32 or u8[H, W, C], filtered."""
    out = np.empty(x.shape, np.float32)

    def put(top: int, strip: np.ndarray) -> None:
        out[top : top + len(strip)] = strip

    in_strips(x, kernel, put, threads)
    return out


def pixels(x: np.ndarray, kernel: np.ndarray, threads: int = 1) -> np.ndarray:
    """u8[H, W, C]: f32[H, W, C] in [-1/2, 1/2], filtered, halves rounded up."""
    out = np.empty(x.shape, np.uint8)

    def put(top: int, strip: np.ndarray) -> None:
        strip *= np.float32(255)
        strip += np.float32(128)
        out[top : top + len(strip)] = np.clip(strip, 0, 255, out=strip)

    in_strips(x, kernel, put, threads)
    return out
