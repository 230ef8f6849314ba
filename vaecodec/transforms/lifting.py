"""The CDF 9/7 wavelet by lifting (Daubechies and Sweldens 1998, section 7.7), in NumPy, and in any arithmetic.

    samples --even, odd--> four steps, each adds to the ones a multiple of the sum of two of the others --> low, high

Arrays are planes, [P, H, W]; a picture's edges are mirrored at its first and its last sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

STEPS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
NORM = 1.149604398860241  # of low, whose inverse is that of high: their noise is then nearly that of the samples

Halves = tuple[np.ndarray, np.ndarray]


# By axis: the first sample along it, the last, all but the first, all but the last; the even ones, the odd ones.
RUNS = slice(0, 1), slice(-1, None), slice(1, None), slice(0, -1), slice(0, None, 2), slice(1, None, 2)
AT: dict[int, list[Any]] = {1: [(slice(None), run) for run in RUNS], 2: [(..., run) for run in RUNS]}


class Arithmetic(Protocol):
    """What samples are, and a multiple of them."""

    def begin(self, samples: np.ndarray) -> np.ndarray:
        """A copy."""

    def times(self, samples: np.ndarray, factor: float) -> np.ndarray:
        """samples * factor, in their place."""


class Real:
    """In floats."""

    def begin(self, samples: np.ndarray) -> np.ndarray:
        return np.array(samples, order="C")

    def times(self, samples: np.ndarray, factor: float) -> np.ndarray:
        samples *= samples.dtype.type(factor)
        return samples


def _step(a: Arithmetic, even: np.ndarray, odd: np.ndarray, n: int, sign: int, axis: int) -> None:
    """Step n of STEPS, or back with sign -1: each odd sample gets of the even ones before and after it (n = 0, 2), or
    each even one of the odd ones; of the last, or the first, the one that there is twice.
    """
    target, other, edge, inner = _roles(even, odd, n, axis)
    after, before = AT[axis][2:4]
    target[edge] += a.times(2 * other[edge], sign * STEPS[n])
    target[inner] += a.times(other[after] + other[before], sign * STEPS[n])


def _roles(even: np.ndarray, odd: np.ndarray, n: int, axis: int) -> tuple[np.ndarray, np.ndarray, Any, Any]:
    """(what step n changes, by what, its sample that has one neighbour, twice, its others)."""
    first, last, after, before = AT[axis][:4]
    return (odd, even, last, before) if n % 2 == 0 else (even, odd, first, after)


def join(low: np.ndarray, high: np.ndarray, axis: int, a: Arithmetic) -> np.ndarray:
    """Two halves along an axis (1 or 2) of [P, H, W] -> the samples, twice as many along it."""
    even, odd = a.times(a.begin(low), 1 / NORM), a.times(a.begin(high), NORM)
    for n in (3, 2, 1, 0):
        _step(a, even, odd, n, -1, axis)
    shape = list(even.shape)
    shape[axis] *= 2
    out = np.empty(shape, even.dtype)
    out[AT[axis][4]], out[AT[axis][5]] = even, odd
    return out


def part(x: np.ndarray, axis: int, a: Arithmetic) -> Halves:
    """The inverse of join: an even number of samples along an axis -> (low, high)."""
    even, odd = (a.begin(x[half]) for half in AT[axis][4:])
    for n in range(4):
        _step(a, even, odd, n, 1, axis)
    return a.times(even, NORM), a.times(odd, 1 / NORM)


def inverse(low: np.ndarray, bands: np.ndarray, a: Arithmetic) -> np.ndarray:
    """low [C, h, w] and bands [3 C, h, w] (detail along rows, along columns, along both) -> [C, 2h, 2w]."""
    across, down, both = np.split(bands, 3)
    return join(join(low, across, 2, a), join(down, both, 2, a), 1, a)


def forward(x: np.ndarray, a: Arithmetic) -> Halves:
    """[C, H, W], sides even -> (low [C, H/2, W/2], bands [3 C, H/2, W/2]): the inverse of inverse."""
    return _separated(x, part, a)


def _separated(x: np.ndarray, along: Callable[..., Halves], a: Arithmetic) -> Halves:
    (low, across), (down, both) = (along(half, 2, a) for half in along(x, 1, a))
    return low, np.concatenate([across, down, both])


def part_adjoint(x: np.ndarray, axis: int, a: Arithmetic) -> Halves:
    """The adjoint of join: gradients with respect to samples -> with respect to (low, high)."""
    even, odd = (a.begin(x[half]) for half in AT[axis][4:])
    for n in range(4):
        target, other, edge, inner = _roles(even, odd, n, axis)
        other[edge] += a.times(2 * target[edge], -STEPS[n])
        shared = a.times(target[inner].copy(), -STEPS[n])
        for some in AT[axis][2:4]:
            other[some] += shared
    return a.times(even, 1 / NORM), a.times(odd, NORM)


def inverse_adjoint(x: np.ndarray, a: Arithmetic) -> Halves:
    """What inverse does to gradients, [C, H, W] -> (low, bands), as forward has them; close to forward itself."""
    return _separated(x, part_adjoint, a)


REAL = Real()
