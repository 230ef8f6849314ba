"""Values of any type <-> integers from 0 on, such that a bound on the values is one on the integers.

    integers     value = low + n
    quotients    value = (low + n) / unit      floats that are multiples of 1 / unit to the last bit: counts, decimals
    affine       value = low + n * unit        other floats, lossy
    ordered      the bits of f32 as integers that are in the order of the values, without loss

All in float64, one rounding an operation, and one more to the type: so it is the same on every machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.arrays.lattice import TOP_MAX

INTEGERS, QUOTIENTS, AFFINE, ORDERED = range(4)
UNITS = (1, 2, 4, 8, 16, 64, 256, 1024, 65536, 255, 65535, 10, 100, 1000, 10_000, 100_000, 1_000_000)
PROBE = 1000  # values that tell at once that a unit is not the one
FINE = (127, 7)  # steps from a value to the bound; half of one is what rounding to integers costs
NUMBER_MAX = 2.0**52


class Scale(NamedTuple):
    """How integers in 0..top stand for values; `unit` is for quotients and affine."""

    kind: int
    low: float
    unit: float
    top: int


def ordered(values: np.ndarray) -> np.ndarray:
    """f32 -> i64, -2**31.. 2**31 - 1, in the order of the values, NaNs at the ends; all bits are kept."""
    bits = values.view("<i4").astype(np.int64)
    return np.where(bits < 0, -(1 << 31) - 1 - bits, bits)


def integers(values: np.ndarray, scale: Scale) -> np.ndarray:
    """i64 of the shape of `values`, which are finite but for kind ordered: the nearest integers in 0..top."""
    if scale.kind == ORDERED:
        return ordered(values) - int(scale.low)
    if scale.kind == INTEGERS:
        return values.astype(np.int64) - int(scale.low)
    wide = values.astype(np.float64)
    found = wide * scale.unit - scale.low if scale.kind == QUOTIENTS else (wide - scale.low) / scale.unit
    return np.clip(np.rint(found), 0, scale.top).astype(np.int64)


def values(numbers: np.ndarray, scale: Scale, kind: np.dtype) -> np.ndarray:
    """The values, of this type, that integers (of any type, in 0..top) stand for."""
    if scale.kind == ORDERED:
        bits = numbers.astype(np.int64) + int(scale.low)
        return np.where(bits < 0, -(1 << 31) - 1 - bits, bits).astype("<i4").view(kind)
    if scale.kind == INTEGERS:
        return (numbers.astype(np.int64) + int(scale.low)).astype(kind)
    wide = numbers.astype(np.float64)
    with np.errstate(all="ignore"):  # a damaged scale may leave the type's range
        if scale.kind == QUOTIENTS:
            wide += scale.low
            wide /= scale.unit
        else:
            wide *= scale.unit
            wide += scale.low
        return wide.astype(kind)


def choose(found: np.ndarray, max_error: float) -> tuple[Scale, int] | None:
    """(scale, bound on the integers) for values [n], n > 0, all finite; None where there is no such scale."""
    if found.dtype.kind in "iu":
        low, high = int(found.min()), int(found.max())
        return Scale(INTEGERS, low, 1, high - low), int(min(max_error, high - low))
    quotient = _quotient(found)
    if quotient is not None:
        reach = max_error * quotient.unit
        # An affine scale could use the whole bound, of which whole steps may leave some.
        if reach < 0.5 or 2 * int(reach) + 1 >= 1.9 * reach:
            return quotient, int(min(reach, quotient.top))
    return _affine(found, max_error) if max_error > 0 else None


def _affine(found: np.ndarray, max_error: float) -> tuple[Scale, int] | None:
    low, high = float(found.min()), float(found.max())
    for fine in FINE:
        unit = max_error / (fine + 0.51)
        top = (high - low) / unit if unit > 0 else np.inf
        if top < TOP_MAX - 1:
            return Scale(AFFINE, low, unit, int(np.ceil(top))), fine
    return None


def choose_ordered(found: np.ndarray) -> Scale:
    """The scale that keeps all bits of f32[n], n > 0, NaNs and infinities too."""
    bits = ordered(found)
    low, high = int(bits.min()), int(bits.max())
    return Scale(ORDERED, low, 1, high - low)


def _quotient(finite: np.ndarray) -> Scale | None:
    """The scale of values that are multiples of one of UNITS to the last bit."""
    for unit in UNITS:
        for part in (finite[:: max(1, len(finite) // PROBE)], finite):
            with np.errstate(over="ignore", invalid="ignore"):
                wide = np.rint(part.astype(np.float64) * unit)
            if not np.abs(wide).max() < NUMBER_MAX or wide.max() - wide.min() > TOP_MAX:
                break
            scale = Scale(QUOTIENTS, float(wide.min()), float(unit), int(wide.max() - wide.min()))
            if values(integers(part, scale), scale, part.dtype).tobytes() != part.tobytes():
                break
        else:
            return scale
    return None
