"""Wavelet coefficients as latents: four octaves of a picture, so that a cell of 16x16 pixels has as many as samples.

    pixels --rotation of colours--> planes --lifting, four times--> bands of each octave, and a low-pass picture at 1/16

    y [h, w, 256 C] of a cell:   octave 0, finest    3 C bands of 8x8 coefficients, in rows
                                 octaves 1, 2, 3     3 C bands of 4x4, 2x2 and 1
                                 the low-pass        C

Octave 4, the last that the prior knows, is made of a tile's low-pass picture alone: `fifth`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from vaecodec.bases import rotation
from vaecodec.cells import Each
from vaecodec.config import CELL, STRIDE
from vaecodec.integer import one_thread
from vaecodec.lifting import REAL, Arithmetic, Halves, forward, inverse, inverse_adjoint

OCTAVES = 4  # in y; one more within a tile
BANDS = 3


class Planes(NamedTuple):
    """low [C, h, w], and bands [3 C, n h, n w] of each octave, finest first: n = 8, 4, 2, 1."""

    low: np.ndarray
    bands: list[np.ndarray]


def blocks(channels: int) -> Iterator[tuple[slice, int]]:
    """(channels of y, side n of their blocks) of each octave, finest first."""
    first = 0
    for octave in range(OCTAVES):
        side = STRIDE >> (octave + 1)
        last = first + BANDS * channels * side * side
        yield slice(first, last), side
        first = last


def unpack(y: np.ndarray) -> Planes:
    """[h, w, 256 C] -> its planes, contiguous."""
    h, w, channels = y.shape[0], y.shape[1], y.shape[2] // CELL
    bands = []
    for part, side in blocks(channels):
        block = y[..., part].reshape(h, w, -1, side, side)
        bands.append(np.ascontiguousarray(block.transpose(2, 0, 3, 1, 4)).reshape(-1, h * side, w * side))
    return Planes(np.ascontiguousarray(y[..., -channels:].transpose(2, 0, 1)), bands)


def pack(planes: Planes) -> np.ndarray:
    """The inverse of unpack, in the type of low."""
    channels, h, w = planes.low.shape
    y = np.empty((h, w, CELL * channels), planes.low.dtype)
    for (part, side), band in zip(blocks(channels), planes.bands, strict=True):
        block = band.reshape(-1, h, side, w, side).transpose(1, 3, 0, 2, 4)
        y[..., part] = block.reshape(h, w, -1)
    y[..., -channels:] = planes.low.transpose(1, 2, 0)
    return y


@lru_cache(maxsize=16)
def _rotation(channels: int) -> np.ndarray:
    return rotation(channels).astype(np.float32)


def coefficients(x: np.ndarray, each: Each = map) -> np.ndarray:
    """f32[H, W, C], sides multiples of 16 -> y f32[h, w, 256 C]; `each` as in lifting.inverse."""
    return _octaves(x, partial(forward, each=each))


def samples_adjoint(x: np.ndarray) -> np.ndarray:
    """What samples does to gradients: f32[H, W, C] -> f32[h, w, 256 C]."""
    return _octaves(x, inverse_adjoint)


def _octaves(x: np.ndarray, analyse: Callable[..., Halves]) -> np.ndarray:
    with one_thread:
        low = np.ascontiguousarray((x @ _rotation(x.shape[2]).T).transpose(2, 0, 1))
    bands = []
    for _ in range(OCTAVES):
        low, octave = analyse(low, REAL)
        bands.append(octave)
    return pack(Planes(low, bands))


def samples(y: np.ndarray, each: Each = map) -> np.ndarray:
    """The inverse of coefficients: f32[h, w, 256 C] -> f32[H, W, C]."""
    low = restored(unpack(y), REAL, each)
    channels = len(low)
    with one_thread:
        return (low.reshape(channels, -1).T @ _rotation(channels)).reshape(*low.shape[1:], channels)


def restored(planes: Planes, arithmetic: Arithmetic = REAL, each: Each = map) -> np.ndarray:
    """[C, H, W] of all octaves."""
    low = planes.low
    for octave in reversed(planes.bands):
        low = inverse(low, octave, arithmetic, each)
    return low


def fifth(low: np.ndarray) -> Halves:
    """low [C, h, w] of a tile -> (lowest [C, h', w'], bands [3 C, h', w']), h' = h / 2, w' = w / 2, rounded up."""
    edge = [(0, 0), (0, low.shape[1] % 2), (0, low.shape[2] % 2)]
    return forward(np.pad(low, edge, "edge"), REAL)


def fifth_adjoint(low: np.ndarray) -> Halves:
    """Gradients with respect to low -> with respect to what fifth makes of it."""
    edge = [(0, 0), (0, low.shape[1] % 2), (0, low.shape[2] % 2)]
    return inverse_adjoint(np.pad(low, edge), REAL)


@lru_cache(maxsize=16)
def halves(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of 2x2 positions, numbered by row, column, band and colour, that are coded first and second.

    Position, band and colour by turns, like a chessboard: each lies among some of the other half.
    """
    row, column, band, colour = np.indices((2, 2, BANDS, channels))
    odd = (row + column + band + colour).ravel() % 2
    return np.flatnonzero(odd == 0), np.flatnonzero(odd)


def to_cells(planes: np.ndarray) -> np.ndarray:
    """[P, H, W] -> [h, w, 4 P] of each 2x2 positions, by row, column and plane; 0 where sides are odd."""
    wide = np.pad(planes, [(0, 0), (0, planes.shape[1] % 2), (0, planes.shape[2] % 2)])
    count, height, width = wide.shape
    cells = wide.reshape(count, height // 2, 2, width // 2, 2).transpose(1, 3, 2, 4, 0)
    return np.ascontiguousarray(cells).reshape(height // 2, width // 2, 4 * count)


def from_halves(first: np.ndarray, second: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Halves [h * w, 6 C] of the coefficients of an octave -> its bands [3 C, H, W]."""
    channels, (height, width) = first.shape[1] // 6, shape
    down, along = -(-height // 2), -(-width // 2)
    out = np.empty((BANDS * channels, 2 * down, 2 * along), first.dtype)
    for half, numbers in zip((first, second), halves(channels), strict=True):
        for column, number in enumerate(numbers.tolist()):
            place, plane = divmod(number, BANDS * channels)
            out[plane, place // 2 :: 2, place % 2 :: 2] = half[:, column].reshape(down, along)
    return out[:, :height, :width]


def to_halves(bands: np.ndarray) -> list[np.ndarray]:
    """The inverse of from_halves: [3 C, H, W] -> two of [h * w, 6 C]."""
    cells = to_cells(bands)
    return [cells.reshape(-1, cells.shape[2])[:, numbers] for numbers in halves(len(bands) // BANDS)]
