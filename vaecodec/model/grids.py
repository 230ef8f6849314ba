"""Exact integer networks over batches [B, h, w, C], with what `generative` asks for beyond `network`."""

from __future__ import annotations

import numpy as np

from vaecodec.transforms import integer


class Exact(integer.Exact):
    """integer.Exact on batches."""

    def depthwise(self, name: str, x: np.ndarray) -> np.ndarray:
        layer, (height, width) = self.layers[name], x.shape[1:3]
        padded = np.pad(x.astype(layer.kernel.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
        total = np.zeros(x.shape, layer.kernel.dtype) + layer.bias
        for n in range(9):
            top, left = divmod(n, 3)
            total += padded[:, top : top + height, left : left + width] * layer.kernel[top, left]
        return self._round(total)

    def mix(self, name: str, x: np.ndarray) -> np.ndarray:
        """Every channel of [B, h, w, C] through one layer from cells to cells."""
        batch, height, width, channels = x.shape
        rows = x.reshape(batch, height * width, channels).transpose(0, 2, 1).reshape(-1, height * width)
        t = self._round(self.layers[name].product(rows)).reshape(batch, channels, height * width)
        return t.transpose(0, 2, 1).reshape(x.shape)

    def neighbours(self, x: np.ndarray) -> np.ndarray:
        """[B, h, w, C] -> [B, h, w, 9C]: those of the 3x3 cells around each, zeros outside."""
        height, width = x.shape[1:3]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        parts = [padded[:, t : t + height, s : s + width] for t in range(3) for s in range(3)]
        return np.concatenate(parts, -1)

    def flatten(self, x: np.ndarray) -> np.ndarray:
        """[B, h, w, C] -> [B, 1, 1, h * w * C]."""
        return x.reshape(len(x), 1, 1, -1)

    def unflatten(self, x: np.ndarray, side: int) -> np.ndarray:
        """[B, 1, 1, side * side * C] -> [B, side, side, C]."""
        return x.reshape(len(x), side, side, -1)

    def shuffle(self, x: np.ndarray, r: int) -> np.ndarray:
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height, width, r, r, channels // (r * r)).transpose(0, 1, 3, 2, 4, 5)
        return np.ascontiguousarray(x).reshape(batch, height * r, width * r, -1)

    def unshuffle(self, x: np.ndarray, r: int) -> np.ndarray:
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // r, r, width // r, r, channels).transpose(0, 1, 3, 2, 4, 5)
        return np.ascontiguousarray(x).reshape(batch, height // r, width // r, -1)

    def concat(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Channels of both."""
        return np.concatenate([x, y], -1)
