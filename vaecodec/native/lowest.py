"""The prior of a tile's lowest coefficients, which are coded in five parts before any octave.

Every fourth coefficient of every fourth row comes first, by itself.  Each further part lies between four coefficients
of parts before it: between their corners, then between their sides, twice.  A small network sees those four.  There
is one lowest coefficient in 1024 samples, so this is NumPy around the dense kernel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from vaecodec.native.networks import Dense, dense
from vaecodec.native.prior import SCALES_MAX, Weights, load_dense
from vaecodec.native.reference.networks import rounded
from vaecodec.native.reference.prior import INDEX_SHIFT, LOC_SHIFT, compand

GRID = 4  # rows and columns from one coefficient of the first part to the next
DISTANCES = ((2, True), (2, False), (1, True), (1, False))  # of the four around, and whether they are at the corners
PARTS = 1 + len(DISTANCES)


class PartNetwork(NamedTuple):
    """The network of one part but the first."""

    enter: Dense
    middle: Dense  # relu
    out: Dense  # sums: means, then scale indices


class Network(NamedTuple):
    parts: list[PartNetwork]
    companding: np.ndarray  # as in prior.Octave
    scales: int


def load_network(weights: Weights, companding: np.ndarray, scales: int) -> Network:
    """The networks of the lowest coefficients from integer tensors by name.

    Raises ValueError where shapes do not fit each other, or sums could overflow, and KeyError where one is missing.
    """
    parts = []
    for part in range(PARTS - 1):
        enter, middle = load_dense(weights, f"lowest/{part}/in"), load_dense(weights, f"lowest/{part}/middle", "relu")
        parts.append(PartNetwork(enter, middle, load_dense(weights, f"lowest/{part}/out", "sums")))
        inputs, width = enter.kernel.shape
        if inputs % 10 or middle.kernel.shape != (width, width) or parts[-1].out.kernel.shape != (width, inputs // 5):
            raise ValueError("the layers of the lowest coefficients' networks do not fit each other")
    if len({network.enter.kernel.shape for network in parts}) > 1 or not 1 <= scales <= SCALES_MAX:
        raise ValueError("the networks of the lowest coefficients do not fit each other")
    return Network(parts, companding, scales)


class Lowest:
    """The lowest coefficients i32[h, w, C] of a tile, as far as they are known.

    For each part in order: `distribution`, then `put` with the values that were coded.
    """

    def __init__(self, network: Network, size: tuple[int, int], vectors: np.ndarray, start: np.ndarray) -> None:
        """`vectors` i32[4 * width] is added in the networks; `start` i32[2C] is of the first part: means, indices."""
        self._network, self._size, self._start = network, size, start
        self._vectors = vectors.reshape(PARTS - 1, -1)
        self._known = np.zeros((size[0] * size[1], len(start) // 2), np.int32)
        self._places, self._around = places(*size), neighbours(*size)

    def distribution(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """(table indices u8, means i32) [n, C]."""
        count, channels = len(self._places[part]), self._known.shape[1]
        if part == 0:
            loc, index = self._start[:channels], np.clip(self._start[channels:], 0, self._network.scales - 1)
            return np.tile(index.astype(np.uint8), (count, 1)), np.tile(loc.astype(np.int32), (count, 1))
        near = self._known[self._around[part - 1]]
        mean = (near.sum(0, dtype=np.int32) + 2) >> 2
        x = compand(self._network.companding, np.concatenate([*(near - mean), mean], -1))
        sums = self._sums(part - 1, np.concatenate([x, np.abs(x)], -1))
        loc = rounded(sums[:, :channels], LOC_SHIFT).astype(np.int32) + mean
        index = np.clip(rounded(sums[:, channels:], INDEX_SHIFT), 0, self._network.scales - 1)
        return index.astype(np.uint8), loc

    def put(self, part: int, values: np.ndarray) -> None:
        """i32[n, C] of a part."""
        self._known[self._places[part]] = values

    def planes(self) -> np.ndarray:
        """i32[C, h, w]."""
        return np.ascontiguousarray(self._known.T).reshape(-1, *self._size)

    def _sums(self, number: int, x: np.ndarray) -> np.ndarray:
        network = self._network.parts[number]
        t = np.maximum(dense(network.enter, x, vector=self._vectors[number]), 0)
        return dense(network.out, dense(network.middle, t))


def parts_of(row: Any, column: Any) -> list[Any]:
    """Which of the coefficients at these rows and columns (arrays or tensors) are in each part."""
    found = [(row % GRID == 0) & (column % GRID == 0)]
    for distance, corners in DISTANCES:
        if corners:
            found.append((row % (2 * distance) == distance) & (column % (2 * distance) == distance))
        else:
            here = (row % distance == 0) & (column % distance == 0)
            found.append(here & ((row // distance + column // distance) % 2 == 1))
    return found


@lru_cache(maxsize=64)
def places(height: int, width: int) -> list[np.ndarray]:
    """i64[n] of each part: the places of its coefficients, counted in rows from the top."""
    return [np.flatnonzero(part) for part in parts_of(*np.indices((height, width)))]


@lru_cache(maxsize=64)
def neighbours(height: int, width: int) -> list[np.ndarray]:
    """i64[4, n] of each part but the first: the places of the four that each coefficient lies between.

    Beyond an edge it is the one opposite; where there is none either, those at the other two sides.
    """
    found = []
    for part, (distance, corners) in zip(places(height, width)[1:], DISTANCES, strict=True):
        row, column = np.divmod(part, width)
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
