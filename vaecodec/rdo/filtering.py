"""Which filter a picture gets: the weights that leave the least squared error, where they are worth their bytes.

    what the synthesis makes, the picture --normal equations of each class--> weights --rounded--> Filter, or none

Equations of tiles, or of parts of them, are summed; whoever has them needs no pixels any more.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from vaecodec.native.restoration import FitSums, fit_sums
from vaecodec.rdo import wiener
from vaecodec.rdo.wiener import REACH, WEIGHTS
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.restoration import CLASSES, LIMITS, OTHER_SHIFT, Filter
from vaecodec.transforms.restoration import MAX_SHIFT as MOST_SHIFT
from vaecodec.transforms.tiling import Box

MOST = 127
SQUARED_UNITS = 64.0  # of the core's sums, which are in eighths of a level
RIDGE = 1e-6  # of the mean of the diagonal
FINE = LIMITS[CLASSES[-1]]  # the limits of other numbers of classes are among these


class Normal(NamedTuple):
    """Normal equations of least squares: matrix f64[n, n] and right side f64[n]."""

    matrix: np.ndarray
    right: np.ndarray

    def __add__(self, other: Normal) -> Normal:  # type: ignore[override]
        return Normal(self.matrix + other.matrix, self.right + other.right)

    def solved(self) -> np.ndarray:
        """f64[n]: the weights."""
        size = max(1, len(self.right))
        ridge = RIDGE * np.trace(self.matrix) / size + 1e-9
        return np.linalg.solve(self.matrix + ridge * np.eye(len(self.right)), self.right)

    def gained(self, weights: np.ndarray) -> float:
        """By how much these weights lower the squared error."""
        return float(2 * weights @ self.right - weights @ self.matrix @ weights)


def _zero(size: int) -> Normal:
    return Normal(np.zeros((size, size)), np.zeros(size))


class Equations(NamedTuple):
    """Of the first colour, all classes of the finest division beside each other, and of all others together."""

    first: Normal
    others: Normal

    def __add__(self, more: Equations) -> Equations:  # type: ignore[override]
        return Equations(self.first + more.first, self.others + more.others)

    def times(self, factor: float) -> Equations:
        """Those of so many times as many samples."""
        return Equations(*(Normal(factor * one.matrix, factor * one.right) for one in self))

    def best(self, worth: float) -> Filter | None:
        """The filter that lowers `worth` * squared error (in bits) most beyond its own bits; None where none does."""
        others = _rounded(self.others.solved(), OTHER_SHIFT)
        gained = self.others.gained(np.ldexp(others, -OTHER_SHIFT))
        found, most = None, 0.0
        for count in CLASSES:
            merged = self._merged(count)
            solved = merged.solved().reshape(count, WEIGHTS)
            shifts = [_shift(one) for one in solved]
            weights = np.stack([_rounded(*one) for one in zip(solved, shifts, strict=True)])
            better = merged.gained(np.ldexp(weights, -np.array(shifts)[:, None]).ravel())
            made = Filter(weights, np.array(shifts, np.uint8), others)
            profit = worth * (gained + better) - 8 * len(made.to_bytes())
            if profit > most:
                found, most = made, profit
        return found

    def _merged(self, count: int) -> Normal:
        """Of so many classes, each the sum of some that are next to each other."""
        place = np.searchsorted(LIMITS[count], (*FINE, np.inf), "left")
        join = np.kron(np.arange(count)[:, None] == place, np.eye(WEIGHTS))
        return Normal(join @ self.first.matrix @ join.T, join @ self.first.right)


def none(channels: int) -> Equations:
    """Those of no samples."""
    return Equations(_zero(CLASSES[-1] * WEIGHTS), _zero(wiener.others_of(channels)))


def equations(made: np.ndarray, pixels: np.ndarray, area: Box, step: float, every: int = 1) -> Equations:
    """Of the samples in `area` of what the synthesis makes, f32[H, W, C], and of the picture [H, W, C].

    Both are on a scale of 255, and so is the quantisation step.  Of `every` so many samples one stands for all.
    """
    planes, wanted = wiener.turned(made), wiener.turned(pixels - made)
    found = none(len(planes))
    width = area.right - area.left
    rows = max(1, wiener.SAMPLES // width)
    ramps = [wiener.ramp(limit * step / 64) for limit in FINE]
    for top in range(area.top, area.bottom, rows):
        bottom = min(top + rows, area.bottom)
        outer = (slice(None), slice(top, bottom + 2 * REACH), slice(area.left, area.right + 2 * REACH))
        inner = (slice(None), slice(top + REACH, bottom + REACH), slice(area.left + REACH, area.right + REACH))
        found = found + _strip(planes[outer], wanted[inner], ramps, every)
    return found.times(every)


def _strip(planes: np.ndarray, wanted: np.ndarray, ramps: list[wiener.Ramp], every: int) -> Equations:
    sums, active = wiener.basis(planes[0])[:, ::every], wiener.activity(planes[0]).ravel()[::every]
    basis, near = _less_centre(sums, wiener.COUNTS), _less_centre(wiener.nearest_of(sums), wiener.NEAREST)
    rising = [np.ones_like(active), *(ramp(active) for ramp in ramps), np.zeros_like(active)]
    parts = [np.subtract(low, high) * basis for low, high in pairwise(rising)]
    own = [_less_centre(wiener.nearest(plane)[:, ::every], wiener.NEAREST) for plane in planes[1:]]
    wanted = wanted.reshape(len(wanted), -1)[:, ::every]
    return Equations(_normal(np.concatenate(parts), wanted[0]), _others(own, near, wanted[1:]))


def _others(own: list[np.ndarray], near: np.ndarray, wanted: np.ndarray) -> Normal:
    """Of the colours but the first: the nearest samples of each, [2, n], those of the first, and what is wanted."""
    found = _zero(wiener.others_of(1 + len(own)))
    for n, (one, right) in enumerate(zip(own, wanted, strict=True), 1):
        normal, at = _normal(np.concatenate([one, near]), right), [0, 1, 2 * n, 2 * n + 1]
        found.matrix[np.ix_(at, at)] += normal.matrix
        found.right[at] += normal.right
    return found


def of_one_class(
    levels: np.ndarray,
    pixels: np.ndarray,
    area: Box,
    every: int,
    rotation: np.ndarray,
    threads: Threads = ONE_THREAD,
) -> Equations:
    """Those of all samples in one class, by one in `every` rows of `area`: sooner had than classes are.

    levels i16[H, W, C], unit 2**-6, pixels u8[H, W, C], rotation i32[C, C] of the core.  Sums are exact.
    """
    first = area.top + min(every, area.bottom - area.top) // 2
    rows = range(first, area.bottom, every)
    sums: list[FitSums] = []

    def add(strip: tuple[int, int]) -> None:
        lines = rows[slice(*strip)]
        if lines:
            box = lines[0], area.left, lines[-1] + 1, area.right
            sums.append(fit_sums(levels, pixels, box, every, rotation))

    threads.over_rows(len(rows), add)
    total = FitSums(*(np.sum(field, axis=0) for field in zip(*sums, strict=True)))
    found = none(levels.shape[2])
    unit = (area.bottom - area.top) / len(rows) / SQUARED_UNITS
    found.first.matrix[:WEIGHTS, :WEIGHTS], found.first.right[:WEIGHTS] = unit * total.first, unit * total.first_right
    for n, (matrix, right) in enumerate(zip(total.others, total.others_right, strict=True), 1):
        at = [0, 1, 2 * n, 2 * n + 1]
        found.others.matrix[np.ix_(at, at)] += unit * matrix
        found.others.right[at] += unit * right
    return found


def pixels_of_levels(levels: np.ndarray) -> np.ndarray:
    """f32[H, W, C] on a scale of 0 to 255, of i16 in units of 2**-6 around the middle."""
    return levels * np.float32(1 / 64) + np.float32(127.5)


def _less_centre(basis: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Sums of so many samples each, less as many times the centre, which is the last row."""
    return basis[:-1] - np.array(counts, basis.dtype)[:, None] * basis[-1]


def _normal(basis: np.ndarray, right: np.ndarray) -> Normal:
    return Normal((basis @ basis.T).astype(np.float64), (basis @ right).astype(np.float64))


def _shift(weights: np.ndarray) -> int:
    """The finest unit, 2**-shift, that holds all of them; or 1."""
    largest, shift = float(np.abs(weights).max()), MOST_SHIFT
    while shift and largest * 2.0**shift > MOST:
        shift -= 1
    return shift


def _rounded(weights: np.ndarray, shift: int) -> np.ndarray:
    return np.clip(np.rint(weights * 2.0**shift), -MOST, MOST).astype(np.int8)
