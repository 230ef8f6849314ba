"""Which of the lowest coefficients of a tile are coded together, and between which others they lie."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

# Of parts 2 to 5: how far their neighbours are, and whether these are at corners or beside them.
LOWEST_STEPS = ((2, True), (2, False), (1, True), (1, False))


def lowest_parts(row: Any, column: Any) -> list[Any]:
    """Which coefficients, of these rows and columns, are in each part, coarse to fine.

    Every fourth of every fourth row stands by itself; the others lie between four of those before, first between their
    corners and then between their sides.
    """
    parts = [(row % 4 == 0) & (column % 4 == 0)]
    for distance, corners in LOWEST_STEPS:
        if corners:
            parts.append((row % (2 * distance) == distance) & (column % (2 * distance) == distance))
        else:
            on_grid = (row % distance == 0) & (column % distance == 0)
            parts.append(on_grid & ((row // distance + column // distance) % 2 == 1))
    return parts


@lru_cache(maxsize=64)
def lowest_places(height: int, width: int) -> list[np.ndarray]:
    """i64[n] of each part of the coefficients [h, w]: places from the top, row by row."""
    return [np.flatnonzero(part) for part in lowest_parts(*np.indices((height, width)))]


@lru_cache(maxsize=64)
def lowest_neighbours(height: int, width: int) -> list[np.ndarray]:
    """i64[4, n] of each part but the first: the places of the four that each coefficient lies between.

    Where one is beyond the edge, it is the one on the opposite side; where both are, those of the other direction.
    """
    found = []
    for places, (distance, corners) in zip(lowest_places(height, width)[1:], LOWEST_STEPS, strict=True):
        row, column = np.divmod(places, width)
        up, down = _either_side(row, distance, height)
        left, right = _either_side(column, distance, width)
        if corners:
            four = [up * width + left, up * width + right, down * width + left, down * width + right]
        else:
            vertical, across = [up * width + column, down * width + column], [row * width + left, row * width + right]
            four = [*(across if height <= distance else vertical), *(vertical if width <= distance else across)]
        found.append(np.stack(four))
    return found


def _either_side(place: np.ndarray, distance: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.where(place >= distance, place - distance, place + distance)
    after = np.where(place + distance < count, place + distance, place - distance)
    return before, after
