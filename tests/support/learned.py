"""A codec with the interface of CompressAI's models: uniform quantisation of pixels, and zlib."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np


class Quantiser:
    """Quantises levels of 0..255 in steps; strings are two groups of one string each, as a hyperprior's."""

    def __init__(self, step: int) -> None:
        self.step = step

    def compress(self, x: np.ndarray) -> dict[str, Any]:
        """x f32[1, 3, H, W] in 0..1, with sides that 64 divides -> strings and the shape of z."""
        assert x.dtype == np.float32 and x.shape[:2] == (1, 3) and not x.shape[2] % 64 and not x.shape[3] % 64
        levels = np.rint(x[0] * 255 / self.step).astype(np.uint8)
        strings = [[zlib.compress(levels[:1].tobytes())], [zlib.compress(levels[1:].tobytes())]]
        return {"strings": strings, "shape": (x.shape[2] // 64, x.shape[3] // 64)}

    def decompress(self, strings: list[list[bytes]], shape: tuple[int, int]) -> dict[str, Any]:
        """The inverse of compress, up to quantisation."""
        size = 64 * shape[0], 64 * shape[1]
        planes = b"".join(zlib.decompress(group[0]) for group in strings)
        levels = np.frombuffer(planes, np.uint8).reshape(1, 3, *size)
        return {"x_hat": levels.astype(np.float32) * self.step / 255}
