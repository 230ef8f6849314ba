"""Wavelet coefficients of an image: four octaves of detail and a low-pass image, in planes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.config import STRIDE

OCTAVES = 4  # of the transforms; one more within a tile
SUBBANDS = 3  # detail along rows, along columns, along both


class Coefficients(NamedTuple):
    """Planes of i32: low [C, h, w], and bands[o] [3 C, 8h >> o, 8w >> o] of octave o, the finest first.

    Plane b * C + c of an octave is subband b of colour c.
    """

    bands: list[np.ndarray]
    low: np.ndarray

    @property
    def cells(self) -> tuple[int, int]:
        """(h, w): blocks of 16 x 16 pixels."""
        return self.low.shape[1], self.low.shape[2]

    def planes(self) -> list[np.ndarray]:
        """Those of each octave, then the low-pass image."""
        return [*self.bands, self.low]

    def part(self, top: int, left: int, bottom: int, right: int) -> Coefficients:
        """Views of a rectangle of cells."""
        made = [
            plane[:, side * top : side * bottom, side * left : side * right]
            for plane, side in zip(self.planes(), SIDES, strict=True)
        ]
        return Coefficients(made[:-1], made[-1])


SIDES = [STRIDE >> (octave + 1) for octave in range(OCTAVES)] + [1]  # coefficients of a cell, each way


def empty(channels: int, cells: tuple[int, int], dtype: type = np.int32) -> Coefficients:
    """Planes to be filled."""
    counts = [SUBBANDS * channels] * OCTAVES + [channels]
    shapes = [(count, side * cells[0], side * cells[1]) for count, side in zip(counts, SIDES, strict=True)]
    planes: list[np.ndarray] = [np.empty(shape, dtype) for shape in shapes]
    return Coefficients(planes[:-1], planes[-1])


Half = np.ndarray  # [h, w, 6 C]: half of the coefficients of an octave, in squares of 2 x 2 places


class Values(NamedTuple):
    """What the symbols of a tile stand for, i32 in units of 2**-6 quantisation steps, within +-2**16.

    `halves[o]` are the two halves of octave o, 0 to 3; `low` [C, h, w] is the low-pass image of the tile.
    """

    halves: list[tuple[Half, Half]]
    low: np.ndarray
