"""The layers of native.networks in NumPy, in wide integers: short, and equal to the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vaecodec.native.networks import Block, Dense, Depthwise

MULTIPLIER_BITS = 12


def rounded(x: np.ndarray, bits: np.ndarray | int) -> np.ndarray:
    """round(x / 2**bits), halves up, of integers."""
    return (x + ((np.int64(1) << bits) >> 1)) >> bits


def dense(
    layer: Dense,
    x: np.ndarray,
    vector: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    multiplier: np.ndarray | None = None,
) -> np.ndarray:
    """i16[..., inputs] -> i16[..., channels], or i32 of the form "sums"."""
    limit = layer.limit
    # Products of int16 and their sums are exact in float64, whose matrix product is far faster than that of int64.
    sums = (x.astype(np.float64) @ layer.kernel.astype(np.float64)).astype(np.int64) + layer.bias
    if layer.form == "sums":
        return sums.astype(np.int32)
    t = rounded(sums, layer.shifts)
    if layer.form == "gate":
        a, b = np.clip(t[..., : layer.channels], 0, limit), np.clip(t[..., layer.channels :], -limit, limit)
        t = rounded(a * b, layer.gate)
    t = np.clip(t, 0 if layer.form == "relu" else -limit, limit)
    if vector is not None:
        t = np.clip(t + vector, -limit, limit)
    if residual is not None:
        t = np.clip(t + residual, -limit, limit)
    if multiplier is not None:
        t = rounded(t * multiplier, MULTIPLIER_BITS)
    return np.clip(t, -limit, limit).astype(np.int16)


def depthwise(layer: Depthwise, x: np.ndarray) -> np.ndarray:
    """i16[h, w, C] -> the same, as if it were zero around."""
    wide = np.pad(x.astype(np.int32), [(1, 1), (1, 1), (0, 0)])
    (height, width), taps = x.shape[:2], layer.kernel.astype(np.int32)
    sums = np.zeros(x.shape, np.int64) + layer.bias
    for row, column in np.ndindex(3, 3):
        sums += wide[row : row + height, column : column + width] * taps[row, column]
    return np.clip(rounded(sums, layer.shifts), -layer.limit, layer.limit).astype(np.int16)


def block(layers: Block, x: np.ndarray, strip: tuple[int, int], multiplier: np.ndarray | None = None) -> np.ndarray:
    """Rows `strip` of the block of i16[h, w, C]."""
    top, bottom = strip
    above = int(top > 0)
    seen = x[top - above : bottom + 1]  # a row of either side, where there is one
    spread = depthwise(layers.space, dense(layers.enter, seen))[above : above + bottom - top]
    x = dense(layers.out, spread, residual=x[top:bottom])
    return dense(layers.mix, dense(layers.gate, x), residual=x, multiplier=multiplier)
