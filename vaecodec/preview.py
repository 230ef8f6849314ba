"""A picture at a fraction of its size: means of what the inverse wavelet transform makes of the latents.

Every symbol is still decoded and checked: that takes most of the time, and a preview of a damaged file would lie.
"""

from __future__ import annotations

import numpy as np

from vaecodec import pyramid
from vaecodec.context import UNIT
from vaecodec.weights import Model

FACTORS = (1, 2, 4, 8, 16)


def check(factor: int) -> None:
    """Raises ValueError on a reduction that there is not."""
    if factor not in FACTORS:
        raise ValueError(f"reduce is {factor!r}, expected one of {', '.join(map(str, FACTORS))}")


def render(model: Model, y: np.ndarray, factor: int, step: int) -> np.ndarray:
    """u8[16h / factor, 16w / factor, C] of y f32[h, w, 256 C], unit 2**-6: means of its samples, halves rounded up."""
    gain = model.vector("inverse_gain", step) * np.float32(1.0 / UNIT)
    return _reduced(pyramid.samples(y * gain), factor)


def _reduced(pixels: np.ndarray, factor: int) -> np.ndarray:
    """u8[H / factor, W / factor, C]: means of f32[H, W, C] in [-1/2, 1/2], halves rounded up."""
    if factor > 1:
        height, width, channels = pixels.shape
        pixels = pixels.reshape(height // factor, factor, width // factor, factor, channels).mean((1, 3))
    return np.clip(pixels * np.float32(255) + np.float32(128), 0, 255).astype(np.uint8)
