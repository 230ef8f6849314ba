"""Weigh the squared error by place: the prices of the bits of coefficients, for the eye and from weights of pixels."""

from __future__ import annotations

import numpy as np

from vaecodec.config import STRIDE
from vaecodec.prior import LOWEST_PARTS, OCTAVES, PARTS
from vaecodec.rdo import eye
from vaecodec.transforms import Box
from vaecodec.transforms.wavelet import SUBBANDS, Coefficients

LEAST_WEIGHT = 1 / 64  # a bit costs at most 64 times as much as where the weight is 1

Prices = list[np.ndarray | None]  # f32[n] of the coefficients of each part of a tile, None for 1


def prices_of_tile(tune: str, coefficients: Coefficients, weights: np.ndarray | None = None) -> Prices | None:
    """Prices of the coefficients of a tile; None where all are 1.

    Args:
        tune: "eye" or "psnr".
        coefficients: those of the tile, unit 2**-14.
        weights: f32[16 h, 16 w], 0..1, of its pixels.
    """
    squares = eye.prices_of_squares(coefficients) if tune == "eye" else None
    if weights is not None:
        of_weights = squares_of_weights(weights, coefficients.cells)
        squares = of_weights if squares is None else [a * b for a, b in zip(squares, of_weights, strict=True)]
    return None if squares is None else prices_of_parts(squares, len(coefficients.low))


def squares_of_weights(weights: np.ndarray, cells: tuple[int, int]) -> list[np.ndarray]:
    """Prices f32[h, w] of a bit in the squares of 2 x 2 coefficients of each octave, finest first.

    A bit is worth as much error as the largest weight of a pixel in the square allows.

    Args:
        weights: f32[16 h, 16 w], 0..1, of the pixels of the tile.
        cells: (h, w) of the tile.
    """
    prices = []
    for octave in range(OCTAVES + 1):
        side = 4 << octave  # pixels of a square
        rows, columns = -(-cells[0] * STRIDE // side), -(-cells[1] * STRIDE // side)
        padding = (0, rows * side - weights.shape[0]), (0, columns * side - weights.shape[1])
        squares = np.pad(weights, padding).reshape(rows, side, columns, side).max((1, 3))
        prices.append(1 / np.maximum(squares, LEAST_WEIGHT).astype(np.float32))
    return prices


def weights_of_pixels(prices: Prices, inner: Box, cells: tuple[int, int], within: tuple[int, int]) -> np.ndarray:
    """Weights f64[16 h, 16 w] of the squared errors of a tile and its halo: the inverse of prices; 0 beyond the image.

    Multiples of 2**-12, such that sums of whole numbers times weights are exact.

    Args:
        prices: of the tile.
        inner: cells of the tile.
        cells: (h, w) of the tile and its halo.
        within: (rows, columns) of the pixels that belong to the image.
    """
    price = prices[LOWEST_PARTS + 2 * (OCTAVES - 1)]
    assert price is not None
    height, width = (2 * side for side in inner.shape)  # squares of octave 1, of 8 x 8 pixels
    weights = np.rint(4096 / price.reshape(height, width, -1)[..., 0].astype(np.float64)) / 4096
    weights = weights.repeat(8, 0).repeat(8, 1)
    rows = STRIDE * inner.top, STRIDE * (cells[0] - inner.bottom)
    columns = STRIDE * inner.left, STRIDE * (cells[1] - inner.right)
    weights = np.pad(weights, [rows, columns], "edge")
    weights[within[0] :] = 0
    weights[:, within[1] :] = 0
    return weights


def prices_of_parts(squares: list[np.ndarray], channels: int) -> Prices:
    """Prices f32[n] of the coefficients of each part, from those of squares; the lowest keep theirs."""
    prices: Prices = [None] * PARTS
    for octave, price in enumerate(squares):
        first = LOWEST_PARTS + 2 * (OCTAVES - octave)
        prices[first] = prices[first + 1] = np.repeat(price.ravel(), 2 * SUBBANDS * channels)
    return prices
