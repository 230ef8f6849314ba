"""Interpolate the gains of a model between its quality anchors, in integers, so that all machines have the same gains.

A model stores the base-2 logarithm of each gain at 8 anchors, in units of 2**-12.  At a quality index between them the
logarithm is interpolated linearly and rounded; the gain is 2 to that power, by a table of mantissas.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vaecodec.config import ANCHORS, INDICES_PER_ANCHOR

LOG_BITS = 12
MANTISSA_BITS = 13  # mantissas are 2**13 .. 2**14
MULTIPLIER_BITS = 12  # unit of the multipliers of activations
MULTIPLIER_MAX = 32767


@lru_cache(maxsize=1)
def mantissas() -> np.ndarray:
    """i32[4096]: round(2**(13 + i / 4096)); no entry is near a half, so any correct exponential gives these."""
    return np.rint(2.0 ** (MANTISSA_BITS + np.arange(1 << LOG_BITS) / (1 << LOG_BITS))).astype(np.int32)


def interpolate(anchors: np.ndarray, quality_index: int) -> np.ndarray:
    """Logarithms i64[n], unit 2**-12, at a quality index, from those at the anchors, i32[8, n]."""
    first = min(quality_index // INDICES_PER_ANCHOR, ANCHORS - 2)
    distance = quality_index - first * INDICES_PER_ANCHOR
    low, high = anchors[first].astype(np.int64), anchors[first + 1].astype(np.int64)
    return (low * (INDICES_PER_ANCHOR - distance) + high * distance + INDICES_PER_ANCHOR // 2) // INDICES_PER_ANCHOR


def scaled_gains(logarithms: np.ndarray, output_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(mantissa i32[n], shift i32[n]): (x * mantissa + 2**(shift - 1)) >> shift is x times 2**(log + output_bits)."""
    mantissa = mantissas()[logarithms & ((1 << LOG_BITS) - 1)]
    return mantissa, (MANTISSA_BITS - output_bits - (logarithms >> LOG_BITS)).astype(np.int32)


def multipliers(logarithms: np.ndarray) -> np.ndarray:
    """i32[n], unit 2**-12, at most 32767: 2**log, rounded halves up."""
    mantissa = mantissas()[logarithms & ((1 << LOG_BITS) - 1)].astype(np.int64)
    shift = MANTISSA_BITS - MULTIPLIER_BITS - (logarithms >> LOG_BITS)
    left, right = np.clip(-shift, 0, 20), np.clip(shift, 0, 30)
    return np.minimum(((mantissa << left) + (1 << right >> 1)) >> right, MULTIPLIER_MAX).astype(np.int32)
