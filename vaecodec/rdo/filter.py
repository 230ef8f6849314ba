"""Fit the restoration filter of an image by least squares, and apply it in float32 for refinement.

    decoded and original pixels --normal equations of each class--> weights --quantised--> Filter, or none

Weights minimise the squared error (Wiener filter; in video: Tsai et al. 2013, Adaptive Loop Filtering for Video
Coding).  The first channel of the rotated colours has nine weights in each class of samples, for the samples 1, 2 and 3
away along a row, a column and both diagonals.  A class is a range of local activity, and weights change gradually from
one class to the next.  All other channels share two weights, for their nearest samples, and have two each for those of
the first channel.  Equations of tiles, or of parts of them, are added; no pixels are needed after that.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from vaecodec.config import FILTER_REACH
from vaecodec.native.transforms import ClassSums, FitSums, fit_class_sums, fit_sums
from vaecodec.rdo.least_squares import NormalEquations
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms import CLASS_LIMITS, FILTER_CLASSES, FILTER_MAX_SHIFT, OTHER_SHIFT, Box, Filter
from vaecodec.transforms.networks import color_transform

MAX_WEIGHT = 127
SQUARED_UNITS = 64.0  # of the sums of `fit_sums`, which are in eighths of a level
FINEST_LIMITS = CLASS_LIMITS[FILTER_CLASSES[-1]]  # contain the limits of fewer classes

DISTANCES = (1, 2, 3)
WEIGHTS = 3 * len(DISTANCES)  # along rows, along columns and diagonally at each distance
COUNTS = (2, 2, 4) * len(DISTANCES)  # samples in the sum of each weight
NEAREST = (4, 4)  # samples in the sums of the other channels: along rows and columns, diagonally
REACH = FILTER_REACH  # of the activity, which is wider than that of the weights
ACTIVITY_SCALE = 1 << 12  # activity() returns this many times the activity, since its three means have integer weights
STRIP_SAMPLES = 1 << 15  # processed together, to stay in the cache
FIT_SAMPLES, MAX_SPARSITY = 1 << 17, 5  # fit one class to this many samples of a tile, at least one row in MAX_SPARSITY


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


def fit_classes(decoded: np.ndarray, pixels: np.ndarray, area: Box, step_size: float) -> Equations:
    """Sum the equations of all classes over the samples in an area.

    Args:
        decoded: f32[H, W, C] on a scale of 255, before the filter.
        pixels: the original [H, W, C].
        area: pixels to use.
        step_size: the quantisation step on the same scale.
    """
    channels, residuals = _rotated(decoded), _rotated(pixels - decoded)
    equations = Equations.zero(len(channels))
    rows = max(1, STRIP_SAMPLES // (area.right - area.left))
    ramps = [Ramp.around(limit * step_size / 64) for limit in FINEST_LIMITS]
    for top in range(area.top, area.bottom, rows):
        bottom = min(top + rows, area.bottom)
        outer = (slice(None), slice(top, bottom + 2 * REACH), slice(area.left, area.right + 2 * REACH))
        inner = (slice(None), slice(top + REACH, bottom + REACH), slice(area.left + REACH, area.right + REACH))
        equations = equations + _strip_equations(channels[outer], residuals[inner], ramps)
    return equations


def _strip_equations(channels: np.ndarray, residuals: np.ndarray, ramps: list[Ramp]) -> Equations:
    sums, active = _neighbour_sums(channels[0]), _activity(channels[0]).ravel()
    basis = _less_centre(sums, COUNTS)
    nearest = _less_centre(np.stack([sums[0] + sums[1], sums[2], sums[-1]]), NEAREST)
    rising = [np.ones_like(active), *(ramp(active) for ramp in ramps), np.zeros_like(active)]
    classes = [np.subtract(low, high) * basis for low, high in pairwise(rising)]
    residuals = residuals.reshape(len(residuals), -1)
    others = Equations.zero(len(channels)).others
    for n, (channel, residual) in enumerate(zip(channels[1:], residuals[1:], strict=True), 1):
        own = _less_centre(_nearest_sums(channel), NEAREST)
        normal = NormalEquations.of_samples(np.concatenate([own, nearest]), residual)
        at = [0, 1, 2 * n, 2 * n + 1]
        others.matrix[np.ix_(at, at)] += normal.matrix
        others.right[at] += normal.right
    return Equations(NormalEquations.of_samples(np.concatenate(classes), residuals[0]), others)


def _less_centre(sums: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Sums of samples less as many times the centre, which is the last row."""
    return sums[:-1] - np.array(counts, sums.dtype)[:, None] * sums[-1]


def _with_centre(weights: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Append the weight of the centre, such that flat areas stay as they are."""
    return np.concatenate([weights, -(weights @ np.array(counts, weights.dtype))[:, None]], 1)


class FloatFilter:
    """A restoration filter on images f32[H, W, C] on a scale of 255, with its gradient.

    `step_size` is the quantisation step on that scale.
    """

    def __init__(self, weights: Filter, step_size: float) -> None:
        self._ramps = [Ramp.around(limit * step_size / 64) for limit in CLASS_LIMITS[len(weights.first)]]
        first = _with_centre(weights.first.astype(np.float64), COUNTS)
        others = _with_centre(weights.others.astype(np.float64).reshape(-1, 2), NEAREST)
        self._first = np.ldexp(first, -weights.shifts.astype(np.int32)[:, None]).astype(np.float32)
        self._shared, self._own = (np.ldexp(part, -OTHER_SHIFT).astype(np.float32) for part in (others[:1], others[1:]))
        self._rotation = color_transform(1 + len(self._own)).astype(np.float32)
        # One matrix product yields what each class and each other channel adds, from the sums of all channels.
        self._matrix = np.zeros((len(first) + len(self._own), WEIGHTS + 1 + 3 * len(self._own)), np.float32)
        self._matrix[: len(first), : WEIGHTS + 1] = self._first
        for n, own in enumerate(self._own):
            self._matrix[len(first) + n, [0, 1, 2, WEIGHTS]] = own[[0, 0, 1, 2]]
            self._matrix[len(first) + n, WEIGHTS + 1 + 3 * n :][:3] = self._shared[0]
        if len(first) == 1:
            self._matrix = self._rotation.T @ self._matrix  # yields the colours of the image

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Filter an image in place; its sides are at least REACH + 1."""
        channels, (height, width) = _rotated(image), image.shape[:2]
        rows = min(max(1, STRIP_SAMPLES // width), height)
        buffer = np.empty((self._matrix.shape[1], rows * width), np.float32)
        for top in range(0, height, rows):
            strip = image[top : top + rows]
            surrounded = channels[:, top : top + len(strip) + 2 * REACH]
            strip += self._correction(surrounded, buffer[:, : len(strip) * width]).reshape(strip.shape)
        return image

    def _correction(self, channels: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """f32[h w, C]: what is added to the samples inside channels f32[C, h + 2 REACH, w + 2 REACH]."""
        _neighbour_sums(channels[0], sums[: WEIGHTS + 1])
        for n, channel in enumerate(channels[1:]):
            _nearest_sums(channel, sums[WEIGHTS + 1 + 3 * n :][:3])
        if not self._ramps:
            return sums.T @ self._matrix.T
        first, others = np.split(self._matrix @ sums, [len(self._first)])
        active = _activity(channels[0]).ravel()
        for change, ramp in zip(np.subtract(first[1:], first[:-1], out=first[1:]), self._ramps, strict=True):
            change *= ramp(active)
            first[0] += change
        return np.concatenate([first[:1], others]).T @ self._rotation

    def adjoint(self, image: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Propagate a gradient f32[H, W, C] back through the filtering of `image`.

        Classes are held fixed, and mirrored samples beyond the edges are left out.
        """
        slopes = _rotated(gradient)[:, REACH:-REACH, REACH:-REACH]
        weights = self._first[0]
        if self._ramps:
            active = _activity(_rotated(image)[0])
            for ramp, change in zip(self._ramps, np.diff(self._first, axis=0), strict=True):
                weights = weights + ramp(active)[..., None] * change
        out = np.stack([_spread(slopes[0], weights), *(_spread(slope, self._shared[0]) for slope in slopes[1:])])
        for slope, own in zip(slopes[1:], self._own, strict=True):
            out[0] += _spread(slope, own)
        return gradient + (out.reshape(len(out), -1).T @ self._rotation).reshape(gradient.shape)


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


def _rotated(image: np.ndarray) -> np.ndarray:
    """f32[C, H + 2 REACH, W + 2 REACH]: channels of the rotated colours of [H, W, C], mirrored at the edges."""
    height, width, channels = image.shape
    matrix, rows = color_transform(channels).astype(np.float32), max(1, STRIP_SAMPLES // width)
    planes = np.empty((channels, height + 2 * REACH, width + 2 * REACH), np.float32)
    inside = planes[:, REACH:-REACH, REACH:-REACH]
    for top in range(0, height, rows):
        strip = image[top : top + rows]
        inside[:, top : top + len(strip)] = (matrix @ strip.reshape(-1, channels).T).reshape(channels, -1, width)
    out = planes
    for _ in range(2):
        planes[:, :REACH] = planes[:, 2 * REACH : REACH : -1]
        planes[:, -REACH:] = planes[:, -REACH - 2 : -2 * REACH - 2 : -1]
        planes = planes.swapaxes(1, 2)
    return out


def _shifted(plane: np.ndarray, down: int, along: int) -> np.ndarray:
    """[h, w] of [h + 2 REACH, w + 2 REACH], displaced by this many rows and columns."""
    height, width = plane.shape[0] - 2 * REACH, plane.shape[1] - 2 * REACH
    return plane[REACH + down : REACH + down + height, REACH + along : REACH + along + width]


def _row_pairs(plane: np.ndarray, distance: int) -> np.ndarray:
    """[h + 2 distance, w]: sums of the two samples in a row that are this far from each sample."""
    rows, width = slice(REACH - distance, distance - REACH or None), plane.shape[1] - 2 * REACH
    left, right = REACH - distance, REACH + distance
    return plane[rows, left : left + width] + plane[rows, right : right + width]


def _neighbour_sums(plane: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """f[10, h w]: the nine sums around each sample of a plane with its margin of REACH, and the sample itself."""
    centre = _shifted(plane, 0, 0)
    out = np.empty((WEIGHTS + 1, centre.size), plane.dtype) if out is None else out
    sums = out.reshape(-1, *centre.shape)
    for n, distance in enumerate(DISTANCES):
        pairs = _row_pairs(plane, distance)
        sums[3 * n] = pairs[distance:-distance]
        np.add(_shifted(plane, -distance, 0), _shifted(plane, distance, 0), out=sums[3 * n + 1])
        np.add(pairs[: -2 * distance], pairs[2 * distance :], out=sums[3 * n + 2])
    sums[-1] = centre
    return out


def _nearest_sums(plane: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """f[3, h w]: sums of the nearest samples along rows and columns, and diagonally; and the sample itself."""
    centre, pairs = _shifted(plane, 0, 0), _row_pairs(plane, 1)
    out = np.empty((3, centre.size), plane.dtype) if out is None else out
    sums = out.reshape(-1, *centre.shape)
    np.add(_shifted(plane, -1, 0), _shifted(plane, 1, 0), out=sums[0])
    sums[0] += pairs[1:-1]
    np.add(pairs[:-2], pairs[2:], out=sums[1])
    sums[2] = centre
    return out


def _activity(plane: np.ndarray) -> np.ndarray:
    """f[h, w]: distance of samples from the local mean, smoothed twice; times ACTIVITY_SCALE."""
    distance = 16 * plane[1:-1, 1:-1] - _local_mean(plane, 1)
    return _local_mean(_local_mean(np.abs(distance, out=distance), 1), 2)


def _local_mean(plane: np.ndarray, distance: int) -> np.ndarray:
    """16 times the mean of nine samples at this distance, weighted 1, 2, 1 along rows and columns."""
    rows = plane[distance:-distance] * plane.dtype.type(2)
    rows += plane[: -2 * distance]
    rows += plane[2 * distance :]
    out = rows[:, distance:-distance] * plane.dtype.type(2)
    out += rows[:, : -2 * distance]
    out += rows[:, 2 * distance :]
    return out


def _spread(slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The adjoint of sums around samples [h, w], with weights [n] or [h, w, n]; the last is that of the centre."""
    out = slopes * weights[..., -1]
    if weights.shape[-1] == len(NEAREST) + 1:
        weights = weights[..., [0, 0, 1]]
    for n in range(weights.shape[-1] // 3):
        along, down, diagonal = (slopes * weights[..., 3 * n + k] for k in range(3))
        far = DISTANCES[n]
        out[:, far:] += along[:, :-far]
        out[:, :-far] += along[:, far:]
        out[far:] += down[:-far]
        out[:-far] += down[far:]
        out[far:, far:] += diagonal[:-far, :-far]
        out[:-far, :-far] += diagonal[far:, far:]
        out[far:, :-far] += diagonal[:-far, far:]
        out[:-far, far:] += diagonal[far:, :-far]
    return out
