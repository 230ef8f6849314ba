"""An image at a fraction of its size, from the linear part of the synthesis alone: means of its samples.

Every symbol is still decoded and checked: that takes most of the time, and a preview of a damaged file would lie.
"""

from __future__ import annotations

import numpy as np

FACTORS = (1, 2, 4, 8, 16)
SAMPLE_BITS = 14  # samples are in units of 2**-14 of 255 levels


def check(factor: int) -> None:
    """Raises ValueError on a reduction that there is not."""
    if factor not in FACTORS:
        raise ValueError(f"reduce is {factor!r}, expected one of {', '.join(map(str, FACTORS))}")


def reduced(samples: np.ndarray, factor: int) -> np.ndarray:
    """u8[H / factor, W / factor, C]: means of samples i16[H, W, C], unit 2**-14, halves rounded up."""
    height, width, channels = samples.shape
    squares = samples.reshape(height // factor, factor, width // factor, factor, channels)
    sums = squares.sum(3, dtype=np.int32).sum(1, dtype=np.int64)
    bits = SAMPLE_BITS + 2 * (factor.bit_length() - 1)
    return np.clip((255 * sums + (128 << bits)) >> bits, 0, 255).astype(np.uint8)
