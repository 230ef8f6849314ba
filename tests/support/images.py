"""Make synthetic images from seeds."""

from __future__ import annotations

import numpy as np


def synthetic_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """u8[height, width, 3]: smooth shapes, an edge and a little noise, different for every seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 32.0
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-2, 2, (3, 3))]
    pixels = 128 + 70 * np.stack(waves, -1) + 40 * (x > y)[..., None] + rng.normal(0, 3, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def synthetic_channels(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """u8[height, width, channels]: each channel resembles its neighbours."""
    rgb = synthetic_image(height, width, seed).astype(np.float64)
    position = np.linspace(0, 2, channels)
    return np.stack([rgb @ np.clip(1 - np.abs(np.arange(3) - p), 0, 1) for p in position], -1).round().astype(np.uint8)
