"""Map values of any type to integers from 0 on, such that a bound on the integers bounds the values.

    INTEGERS     value = low + n
    QUOTIENTS    value = (low + n) / unit      floats that are exact multiples of 1 / unit, such as counts and decimals
    AFFINE       value = low + n * unit        other floats, lossy
    ORDERED      the bits of f32 as integers in the order of the values, lossless

All arithmetic is float64 with one rounding an operation, and one more to the type: the same on every machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.arrays.prediction import TOP_MAX

INTEGERS, QUOTIENTS, AFFINE, ORDERED = range(4)
UNITS = (1, 2, 4, 8, 16, 64, 256, 1024, 65536, 255, 65535, 10, 100, 1000, 10_000, 100_000, 1_000_000)
PROBE = 1000  # values that rule out most units
AFFINE_BOUNDS = (127, 7)  # integer bounds of an affine scale; rounding to integers costs half of one
NUMBER_MAX = 2.0**52


class Scale(NamedTuple):
    """The values that integers in 0..top stand for; `unit` is for quotients and affine scales."""

    kind: int
    low: float
    unit: float
    top: int


def _ordered(values: np.ndarray) -> np.ndarray:
    """f32 -> i64 in -2**31..2**31 - 1, in the order of the values, NaNs at the ends; all bits are kept."""
    bits = values.view("<i4").astype(np.int64)
    return np.where(bits < 0, -(1 << 31) - 1 - bits, bits)


def to_integers(values: np.ndarray, scale: Scale) -> np.ndarray:
    """The nearest integers i64 in 0..top; `values` are finite unless the scale is ordered."""
    if scale.kind == ORDERED:
        return _ordered(values) - int(scale.low)
    if scale.kind == INTEGERS:
        return values.astype(np.int64) - int(scale.low)
    wide = values.astype(np.float64)
    numbers = wide * scale.unit - scale.low if scale.kind == QUOTIENTS else (wide - scale.low) / scale.unit
    return np.clip(np.rint(numbers), 0, scale.top).astype(np.int64)


def to_values(numbers: np.ndarray, scale: Scale, dtype: np.dtype) -> np.ndarray:
    """The values, of this type, of integers in 0..top; inverse of to_integers."""
    if scale.kind == ORDERED:
        bits = numbers.astype(np.int64) + int(scale.low)
        return np.where(bits < 0, -(1 << 31) - 1 - bits, bits).astype("<i4").view(dtype)
    if scale.kind == INTEGERS:
        return (numbers.astype(np.int64) + int(scale.low)).astype(dtype)
    wide = numbers.astype(np.float64)
    with np.errstate(all="ignore"):  # a damaged scale may leave the type's range
        if scale.kind == QUOTIENTS:
            wide += scale.low
            wide /= scale.unit
        else:
            wide *= scale.unit
            wide += scale.low
        return wide.astype(dtype)


def choose_scale(values: np.ndarray, max_error: float) -> tuple[Scale, int] | None:
    """(scale, bound on the integers) for finite values [n], n > 0; None where no scale fits."""
    if values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        return Scale(INTEGERS, low, 1, high - low), int(min(max_error, high - low))
    quotients = _quotient_scale(values)
    if quotients is not None:
        reach = max_error * quotients.unit
        # An affine scale uses the whole bound, of which whole steps may leave a part.
        if reach < 0.5 or 2 * int(reach) + 1 >= 1.9 * reach:
            return quotients, int(min(reach, quotients.top))
    if max_error > 0:
        minimum, maximum = float(values.min()), float(values.max())
        for bound in AFFINE_BOUNDS:
            unit = max_error / (bound + 0.51)
            top = (maximum - minimum) / unit if unit > 0 else np.inf
            if top < TOP_MAX - 1:
                return Scale(AFFINE, minimum, unit, int(np.ceil(top))), bound
    return None


def ordered_scale(values: np.ndarray) -> Scale:
    """The scale that keeps all bits of f32[n], n > 0, NaNs and infinities included."""
    numbers = _ordered(values)
    low, high = int(numbers.min()), int(numbers.max())
    return Scale(ORDERED, low, 1, high - low)


def _quotient_scale(values: np.ndarray) -> Scale | None:
    """The scale of values that are exact multiples of 1 / unit for one of UNITS."""
    for unit in UNITS:
        for part in (values[:: max(1, len(values) // PROBE)], values):
            with np.errstate(over="ignore", invalid="ignore"):
                wide = np.rint(part.astype(np.float64) * unit)
            if not np.abs(wide).max() < NUMBER_MAX or wide.max() - wide.min() > TOP_MAX:
                break
            scale = Scale(QUOTIENTS, float(wide.min()), float(unit), int(wide.max() - wide.min()))
            if to_values(to_integers(part, scale), scale, part.dtype).tobytes() != part.tobytes():
                break
        else:
            return scale
    return None
