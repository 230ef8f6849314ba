"""Fit the restoration filter of an image by least squares.

    decoded and original pixels --normal equations of each class--> weights --quantised--> Filter, or none

Weights minimise the squared error (Wiener filter; in video: Tsai et al. 2013, Adaptive Loop Filtering for Video
Coding).  The first channel of the rotated colours has nine weights in each class of samples, for the samples 1, 2 and 3
away along a row, a column and both diagonals.  A class is a range of local activity, and weights change gradually from
one class to the next.  All other channels share two weights, for their nearest samples, and have two each for those of
the first channel.  Equations of tiles, or of parts of them, are added; no pixels are needed after that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.native.transforms import ClassSums, FitSums, fit_class_sums, fit_sums
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms import CLASS_LIMITS, FILTER_CLASSES, FILTER_MAX_SHIFT, OTHER_SHIFT, Box, Filter

MAX_WEIGHT = 127
SQUARED_UNITS = 64.0  # of the sums of `fit_sums`, which are in eighths of a level
FINEST_LIMITS = CLASS_LIMITS[FILTER_CLASSES[-1]]  # contain the limits of fewer classes

DISTANCES = (1, 2, 3)
WEIGHTS = 3 * len(DISTANCES)  # along rows, along columns and diagonally at each distance
ACTIVITY_SCALE = 1 << 12  # activity() returns this many times the activity, since its three means have integer weights
FIT_SAMPLES, MAX_SPARSITY = 1 << 17, 5  # fit one class to this many samples of a tile, at least one row in MAX_SPARSITY
RIDGE = 1e-6  # of the mean of the diagonal of normal equations


class NormalEquations(NamedTuple):
    """Normal equations of least squares: matrix f64[n, n] and right side f64[n]."""

    matrix: np.ndarray
    right: np.ndarray

    @classmethod
    def zero(cls, size: int) -> NormalEquations:
        return cls(np.zeros((size, size)), np.zeros(size))

    @classmethod
    def of_samples(cls, basis: np.ndarray, residual: np.ndarray) -> NormalEquations:
        """Build them from basis f32[n, samples] and what it should approximate, f32[samples]."""
        return cls((basis @ basis.T).astype(np.float64), (basis @ residual).astype(np.float64))

    def __add__(self, other: NormalEquations) -> NormalEquations:  # type: ignore[override]
        return NormalEquations(self.matrix + other.matrix, self.right + other.right)

    def solve(self) -> np.ndarray:
        """f64[n]: the weights."""
        ridge = RIDGE * np.trace(self.matrix) / max(1, len(self.right)) + 1e-9
        return np.linalg.solve(self.matrix + ridge * np.eye(len(self.right)), self.right)

    def error_reduction(self, weights: np.ndarray) -> float:
        """By how much these weights lower the squared error."""
        return float(2 * weights @ self.right - weights @ self.matrix @ weights)


class Equations(NamedTuple):
    """Equations of the first channel, with the weights of all classes side by side, and of all other channels."""

    first: NormalEquations
    others: NormalEquations

    @classmethod
    def zero(cls, channels: int) -> Equations:
        others = 2 * channels if channels > 1 else 0
        return cls(NormalEquations.zero(FILTER_CLASSES[-1] * WEIGHTS), NormalEquations.zero(others))

    def __add__(self, other: Equations) -> Equations:  # type: ignore[override]
        return Equations(self.first + other.first, self.others + other.others)

    def best_filter(self, bits_per_error: float) -> Filter | None:
        """Choose the filter that saves most bits; None where every filter costs more bits than it saves.

        Args:
            bits_per_error: bits that a squared error of 1, on a scale of 255, is worth.
        """
        others = _quantised(self.others.solve(), OTHER_SHIFT)
        others_reduction = self.others.error_reduction(np.ldexp(others, -OTHER_SHIFT))
        best, best_saving = None, 0.0
        for count in FILTER_CLASSES:
            equations = self._with_classes(count)
            solution = equations.solve().reshape(count, WEIGHTS)
            shifts = [_finest_shift(weights) for weights in solution]
            first = np.stack([_quantised(*pair) for pair in zip(solution, shifts, strict=True)])
            reduction = equations.error_reduction(np.ldexp(first, -np.array(shifts)[:, None]).ravel())
            candidate = Filter(first, np.array(shifts, np.uint8), others)
            saving = bits_per_error * (others_reduction + reduction) - 8 * len(candidate.to_bytes())
            if saving > best_saving:
                best, best_saving = candidate, saving
        return best

    def _with_classes(self, count: int) -> NormalEquations:
        """Equations of the first channel with fewer classes, each the sum of neighbouring ones."""
        place = np.searchsorted(CLASS_LIMITS[count], (*FINEST_LIMITS, np.inf), "left")
        join = np.kron(np.arange(count)[:, None] == place, np.eye(WEIGHTS))
        return NormalEquations(join @ self.first.matrix @ join.T, join @ self.first.right)


def _finest_shift(weights: np.ndarray) -> int:
    """The finest unit, 2**-shift, in which all weights fit; or 1."""
    largest, shift = float(np.abs(weights).max()), FILTER_MAX_SHIFT
    while shift and largest * 2.0**shift > MAX_WEIGHT:
        shift -= 1
    return shift


def _quantised(weights: np.ndarray, shift: int) -> np.ndarray:
    return np.clip(np.rint(weights * 2.0**shift), -MAX_WEIGHT, MAX_WEIGHT).astype(np.int8)


def sparsity(area: Box) -> int:
    """One in how many rows of an area suffices for one class."""
    return min(max(1, area.shape[0] * area.shape[1] // FIT_SAMPLES), MAX_SPARSITY)


def fit_one_class(
    levels: np.ndarray,
    pixels: np.ndarray,
    area: Box,
    every: int,
    rotation: np.ndarray,
    threads: Threads = ONE_THREAD,
) -> Equations:
    """Sum the equations of one class for all samples, in exact integers: faster than several classes.

    Args:
        levels: decoded samples i16[H, W, C] in units of 2**-6, before the filter.
        pixels: the original, u8[H, W, C].
        area: pixels to use.
        every: use one in this many rows.
        rotation: i32[C, C] of the core.
        threads: share the rows.
    """
    rows = range(area.top + min(every, area.bottom - area.top) // 2, area.bottom, every)
    sums: list[FitSums] = []

    def add_strip(strip: tuple[int, int]) -> None:
        if lines := rows[slice(*strip)]:
            box = lines[0], area.left, lines[-1] + 1, area.right
            sums.append(fit_sums(levels, pixels, box, every, rotation))

    threads.over_rows(len(rows), add_strip)
    total = FitSums(*(np.sum(field, axis=0) for field in zip(*sums, strict=True)))
    equations = Equations.zero(levels.shape[2])
    first, others = equations
    unit = (area.bottom - area.top) / len(rows) / SQUARED_UNITS
    first.matrix[:WEIGHTS, :WEIGHTS], first.right[:WEIGHTS] = (
        unit * total.first,
        unit * total.first_right,
    )
    for channel, (matrix, right) in enumerate(zip(total.others, total.others_right, strict=True), 1):
        at = [0, 1, 2 * channel, 2 * channel + 1]
        others.matrix[np.ix_(at, at)] += unit * matrix
        others.right[at] += unit * right
    return equations


def fit_all_classes(
    levels: np.ndarray,
    pixels: np.ndarray,
    area: Box,
    step_size: float,
    every: int,
    rotation: np.ndarray,
    threads: Threads = ONE_THREAD,
) -> Equations:
    """Sum the equations of all classes as `fit_classes` does, with the native core, from arrays as of `fit_one_class`.

    Args:
        levels: decoded samples i16[H, W, C] in units of 2**-6, before the filter.
        pixels: the original, u8[H, W, C].
        area: pixels to use.
        step_size: the quantisation step on a scale of 255.
        every: use one in this many rows.
        rotation: i32[C, C] of the core.
        threads: share the rows.
    """
    others = fit_one_class(levels, pixels, area, every, rotation, threads).others
    rows = range(area.top + min(every, area.bottom - area.top) // 2, area.bottom, every)
    ramps = np.array([Ramp.around(limit * step_size / 64) for limit in FINEST_LIMITS], np.float32)
    sums: dict[int, ClassSums] = {}

    def add_strip(strip: tuple[int, int]) -> None:
        if lines := rows[slice(*strip)]:
            box = lines[0], area.left, lines[-1] + 1, area.right
            sums[strip[0]] = fit_class_sums(levels, pixels, box, every, rotation, ramps)

    threads.over_rows(len(rows), add_strip)
    matrix, right = (np.sum(field, axis=0) for field in zip(*(sums[top] for top in sorted(sums)), strict=True))
    unit = (area.bottom - area.top) / len(rows) / SQUARED_UNITS
    return Equations(NormalEquations(unit * matrix, unit * right), others)


class Ramp(NamedTuple):
    """A function of the activity that rises from 0 to 1; `slope` is 1 / (end - begin)."""

    begin: np.float32
    slope: np.float32

    @classmethod
    def around(cls, limit: float) -> Ramp:
        """The ramp from two thirds to four thirds of a limit of classes."""
        return cls(np.float32(limit * ACTIVITY_SCALE * 2 / 3), np.float32(1.5 / (limit * ACTIVITY_SCALE)))

    def __call__(self, active: np.ndarray) -> np.ndarray:
        out = active - self.begin
        out *= self.slope
        return np.clip(out, 0, 1, out=out)
