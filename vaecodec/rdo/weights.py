"""Weigh the squared error by place: the prices of the bits of coefficients, from weights of pixels."""

from __future__ import annotations

import numpy as np

from vaecodec.config import STRIDE
from vaecodec.prior.context_model import LOWEST_PARTS, OCTAVES, PARTS
from vaecodec.transforms.wavelet import SUBBANDS

LEAST_WEIGHT = 1 / 64  # a bit costs at most 64 times as much as where the weight is 1


def prices_of_parts(weights: np.ndarray, cells: tuple[int, int], channels: int) -> list[np.ndarray | None]:
    """Prices f32[n] of the coefficients of each part of a tile, None for 1.

    A bit is worth as much error as the largest weight of a pixel in the square of the coefficient allows.  The lowest
    coefficients have few bits, and keep their price.

    Args:
        weights: f32[16 h, 16 w], 0..1, of the pixels of the tile.
        cells: (h, w) of the tile.
        channels: C.
    """
    prices: list[np.ndarray | None] = [None] * PARTS
    for octave in range(OCTAVES + 1):
        side = 4 << octave  # pixels of a square of 2 x 2 coefficients
        rows, columns = -(-cells[0] * STRIDE // side), -(-cells[1] * STRIDE // side)
        padding = (0, rows * side - weights.shape[0]), (0, columns * side - weights.shape[1])
        squares = np.pad(weights, padding).reshape(rows, side, columns, side).max((1, 3))
        price = 1 / np.maximum(squares, LEAST_WEIGHT).astype(np.float32)
        first = LOWEST_PARTS + 2 * (OCTAVES - octave)
        prices[first] = prices[first + 1] = np.repeat(price.ravel(), 2 * SUBBANDS * channels)
    return prices
