"""The CDF 9/7 wavelet by lifting (Daubechies and Sweldens 1998, section 7.7), in NumPy: in floats, and in integers.

    samples --even, odd--> four steps, each adds to the ones a multiple of the sum of two of the others --> low, high

Arrays are planes, [P, H, W]; a picture's edges are mirrored at its first and its last sample.  In integers a step
rounds, halves up, so that all machines have the same; what comes out is then not quite what went in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

STEPS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
NORM = (
    1.149604398860241  # of low, whose inverse is that of high: noise of the halves is then nearly that of the samples
)
FRACTION = 12  # bits of the multipliers, in integers
REACH = 1 << 16  # integers are clipped to this: then none of what follows reaches 2**31

Halves = tuple[np.ndarray, np.ndarray]


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


class Whole:
    """In i32, within REACH at the beginning: multipliers are rounded to FRACTION bits, products to integers."""

    def begin(self, samples: np.ndarray) -> np.ndarray:
        return np.clip(samples, -REACH, REACH, order="C")

    def times(self, samples: np.ndarray, factor: float) -> np.ndarray:
        samples *= np.int32(np.floor(factor * (1 << FRACTION) + 0.5))
        samples += np.int32(1 << (FRACTION - 1))
        samples >>= np.int32(FRACTION)
        return samples


def _step(a: Arithmetic, even: np.ndarray, odd: np.ndarray, n: int, sign: int, axis: int) -> None:
    """Step n of STEPS, or back with sign -1: each odd sample gets of the even ones before and after it (n = 0, 2), or
    each even one of the odd ones; of the last, or the first, the one that there is twice.
    """
    target, other = (np.moveaxis(x, axis, 0) for x in ((odd, even) if n % 2 == 0 else (even, odd)))
    edge, inner = _edge(n)
    target[edge] += a.times(2 * other[edge], sign * STEPS[n])
    target[inner] += a.times(other[1:] + other[:-1], sign * STEPS[n])


def _edge(n: int) -> tuple[slice, slice]:
    """(the sample that has one neighbour, twice; the others) of what step n changes."""
    return (slice(-1, None), slice(0, -1)) if n % 2 == 0 else (slice(0, 1), slice(1, None))


def join(low: np.ndarray, high: np.ndarray, axis: int, a: Arithmetic) -> np.ndarray:
    """Two halves along an axis (1 or 2) of [P, H, W] -> the samples, twice as many along it."""
    even, odd = a.times(a.begin(low), 1 / NORM), a.times(a.begin(high), NORM)
    for n in (3, 2, 1, 0):
        _step(a, even, odd, n, -1, axis)
    shape = list(even.shape)
    shape[axis] *= 2
    out = np.empty(shape, even.dtype)
    evens, odds = _halves(out, axis)
    evens[:], odds[:] = even, odd
    return out


def part(x: np.ndarray, axis: int, a: Arithmetic) -> Halves:
    """The inverse of join: an even number of samples along an axis -> (low, high)."""
    even, odd = map(a.begin, _halves(x, axis))
    for n in range(4):
        _step(a, even, odd, n, 1, axis)
    return a.times(even, NORM), a.times(odd, 1 / NORM)


def _halves(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Views of the even and of the odd samples along an axis."""
    whole = np.moveaxis(x, axis, 0)
    return np.moveaxis(whole[0::2], 0, axis), np.moveaxis(whole[1::2], 0, axis)


def inverse(low: np.ndarray, bands: np.ndarray, a: Arithmetic) -> np.ndarray:
    """low [C, h, w] and bands [3 C, h, w] (detail along rows, along columns, along both) -> [C, 2h, 2w]."""
    across, down, both = np.split(bands, 3)
    return join(join(low, across, 2, a), join(down, both, 2, a), 1, a)


def forward(x: np.ndarray, a: Arithmetic) -> Halves:
    """[C, H, W], sides even -> (low [C, H/2, W/2], bands [3 C, H/2, W/2]): the inverse of inverse."""
    return _separated(x, part, a)


def _separated(x: np.ndarray, along: Callable[..., Halves], a: Arithmetic) -> Halves:
    top, bottom = along(x, 1, a)
    (low, across), (down, both) = along(top, 2, a), along(bottom, 2, a)
    return low, np.concatenate([across, down, both])


def part_adjoint(x: np.ndarray, axis: int, a: Arithmetic) -> Halves:
    """The adjoint of join: gradients with respect to samples -> with respect to (low, high)."""
    even, odd = map(a.begin, _halves(x, axis))
    for n in range(4):
        target, other = (np.moveaxis(half, axis, 0) for half in ((odd, even) if n % 2 == 0 else (even, odd)))
        edge, inner = _edge(n)
        other[edge] += a.times(2 * target[edge], -STEPS[n])
        shared = a.times(target[inner].copy(), -STEPS[n])
        other[1:] += shared
        other[:-1] += shared
    return a.times(even, 1 / NORM), a.times(odd, NORM)


def inverse_adjoint(x: np.ndarray, a: Arithmetic) -> Halves:
    """What inverse does to gradients, [C, H, W] -> (low, bands), as forward has them; close to forward itself."""
    return _separated(x, part_adjoint, a)


REAL, WHOLE = Real(), Whole()
