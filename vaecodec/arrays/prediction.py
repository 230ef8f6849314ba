"""Map values to integers and predict these from coarse to fine: each stage predicts points between known ones.

    o . o     o . o     o B o     o B o        o known; A, B, C the three stages of a level
    . . .  >  . A .  >  . A .  >  C A C        then the same at half the distance
    o . o     o . o     o B o     o B o

Arrays are [P, H, W]: P planes are coded together, and none is predicted from another of them.  Predictions are sums of
integers in a float type that holds all of them exactly, so encoder and decoder agree on every machine.  The format is
described in docs/reference/array-chunks.md.

Values of any type become integers from 0 on, such that a bound on the integers bounds the values:

    INTEGERS     value = low + n
    QUOTIENTS    value = (low + n) / unit      floats that are exact multiples of 1 / unit, such as counts and decimals
    AFFINE       value = low + n * unit        other floats, lossy
    ORDERED      the bits of f32 as integers in the order of the values, lossless

All that is float64 with one rounding an operation, and one more to the type: the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from vaecodec.entropy.adaptive import EXPECTED_UNIT, contexts

PREDICT_BITS, EXPECT_BITS = 10, 12
PREDICT_MAX, EXPECT_MAX = 1 << 13, 1 << 12  # sums of the weights' magnitudes
TOP_MAX = (1 << 33) - 1  # of the integers: with the sums above, float64 is exact with bits to spare
FLOAT32_TOP = 255  # up to it float32 is exact: 2**12 * 16 * 255 < 2**24
MARGIN = 3
STRIP_POINTS = 1 << 16  # predicted at once

Offset = tuple[int, int]  # (rows, columns)
Index = tuple[slice, slice, slice]  # of planes, rows and columns


class Kind(NamedTuple):
    """One of the three stages of a level: the parity of its points, and the offsets of known points, nearest first."""

    parity: Offset
    neighbours: tuple[Offset, ...]


def _all_signs(*offsets: Offset) -> tuple[Offset, ...]:
    return tuple(signed for y, x in offsets for signed in sorted({(y, x), (y, -x), (-y, x), (-y, -x)}))


KINDS = (
    Kind((1, 1), _all_signs((1, 1), (1, 3), (3, 1))),
    Kind((0, 1), _all_signs((0, 1), (1, 0), (1, 2), (2, 1), (0, 3), (3, 0))),
    Kind((1, 0), _all_signs((0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (0, 3), (3, 0))),
)
SQUARE = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))
CENTRE = SQUARE.index((0, 0))


class Guide(NamedTuple):
    """Planes known before others: float[P, H, W], integers in 0..top.

    A guide is an approximation of the planes themselves (a base, without `errors`), or other planes, with the
    magnitudes of their prediction errors.
    """

    values: np.ndarray
    errors: np.ndarray | None = None


class Weights(NamedTuple):
    """Weights i16 of differences for the prediction, unit 2**-10, and of magnitudes for its expected error, 2**-12."""

    predict: np.ndarray
    expect: np.ndarray


class Features(NamedTuple):
    """What is known around some points: float arrays of integers, of one shape, or scalars."""

    mean: np.ndarray  # of the nearest four, times four
    differences: list[np.ndarray]  # from that mean, times four
    magnitudes: list[np.ndarray]  # at most 16 * top


class Stage:
    """The points of one stage, and the planes that predict them."""

    def __init__(self, known: Guide, guides: list[Guide], level: int, kind: int, step: int, top: int) -> None:
        self.level, self.kind, self.guides, self.step, self.top = level, kind, guides, step, top
        self.shape = stage_shape(known.values.shape, level, kind)
        self.weight_counts = weight_counts(kind, guides)
        _interpolate_line(known.values, level)
        self._values = [self._pad(plane.values) for plane in (known, *guides)]
        self._errors = [None if plane.errors is None else self._pad(plane.errors) for plane in (known, *guides)]

    def _pad(self, plane: np.ndarray) -> np.ndarray:
        """Mirror a level of a plane at its first and last points, which keeps the parity of points."""
        level = plane[:, :: 1 << self.level, :: 1 << self.level]
        return np.pad(level, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)), "reflect")

    def strips(self) -> Iterator[Index]:
        """Split the points of the stage into about STRIP_POINTS each: whole planes, or rows of one."""
        planes, height, width = self.shape
        rows = max(1, STRIP_POINTS // width)
        together = max(1, rows // height)
        for plane in range(0, planes, together):
            for row in range(0, height, rows):
                yield slice(plane, min(planes, plane + together)), slice(row, min(height, row + rows)), slice(0, width)

    def where(self, strip: Index) -> Index:
        """The index of a strip's points in the planes."""
        axes, level = zip(KINDS[self.kind].parity, strip[1:], strict=True), self.level
        rows, columns = (slice((2 * s.start + odd) << level, 2 * s.stop << level, 2 << level) for odd, s in axes)
        return strip[0], rows, columns

    def features(self, strip: Index) -> Features:
        """The features of a strip, in the order of docs/reference/array-chunks.md."""

        def at(padded: np.ndarray, offset: Offset) -> np.ndarray:
            first = [MARGIN + odd + shift for odd, shift in zip(KINDS[self.kind].parity, offset, strict=True)]
            axes = zip(first, strip[1:], strict=True)
            rows, columns = (slice(a + 2 * s.start, a + 2 * s.stop - 1, 2) for a, s in axes)
            return padded[strip[0], rows, columns]

        neighbours = KINDS[self.kind].neighbours
        known = [at(self._values[0], offset) for offset in neighbours]
        mean = _sum(known[:4])
        differences = [4 * value - mean for value in known]
        own_errors = self._errors[0]
        assert own_errors is not None
        magnitudes = [
            np.asarray(min(self.step, 16 * self.top), mean.dtype),
            _sum([np.abs(difference) for difference in differences[:4]]),
            _sum([np.abs(difference) for difference in differences[4:8]]),
            4 * _sum([at(own_errors, offset) for offset in neighbours[:4]]),
            4 * _sum([at(own_errors, offset) for offset in neighbours[4:8]]),
        ]
        for values, errors in zip(self._values[1:], self._errors[1:], strict=True):
            nearest = [at(values, offset) for offset in neighbours[:4]]
            guide_mean = _sum(nearest)
            square = [4 * at(values, offset) - guide_mean for offset in SQUARE]
            differences += square
            magnitudes += [4 * np.abs(square[CENTRE]), _sum([np.abs(4 * value - guide_mean) for value in nearest])]
            if errors is None:
                differences.append(4 * at(values, (0, 0)) - mean)
                magnitudes.append(4 * np.abs(differences[-1]))
            else:
                magnitudes += [16 * at(errors, (0, 0)), 4 * _sum([at(errors, offset) for offset in neighbours[:4]])]
        return Features(mean, differences, magnitudes)


def weight_counts(kind: int, guides: list[Guide]) -> tuple[int, int]:
    """The numbers of weights (predict, expect) of a stage."""
    bases = sum(guide.errors is None for guide in guides)
    return len(KINDS[kind].neighbours) + len(SQUARE) * len(guides) + bases, 5 + 4 * len(guides) - bases


def default_weights(kind: int, guides: list[Guide], follow: bool) -> Weights:
    """Approximately cubic interpolation; with `follow` the mean, and the last guide's difference from its own mean."""
    predict, expect = (np.zeros(count, np.int16) for count in weight_counts(kind, guides))
    if follow:
        centre = len(KINDS[kind].neighbours) + len(SQUARE) * (len(guides) - 1) + CENTRE
        predict[centre + sum(guide.errors is None for guide in guides[:-1])] = 1 << PREDICT_BITS
    else:
        predict[[n for n, at in enumerate(KINDS[kind].neighbours) if {*map(abs, at)} in ({0, 3}, {1, 3})]] = -32
    expect[:5] = 400, 30, 0, 70, 30
    return Weights(predict, expect)


def stages(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(level, kind) of all stages with points, from the coarsest on; after a level, points 2**level apart are known."""
    for level in reversed(range((max(shape[1:]) - 1).bit_length())):
        for kind in range(len(KINDS)):
            if 0 not in stage_shape(shape, level, kind):
                yield level, kind


def stage_shape(shape: tuple[int, ...], level: int, kind: int) -> tuple[int, int, int]:
    """[P, h, w] of the points of a stage in planes of this shape."""
    axes = zip(shape[1:], KINDS[kind].parity, strict=True)
    height, width = (len(range(odd << level, size, 2 << level)) for size, odd in axes)
    return shape[0], height, width


def code_plane(
    shape: tuple[int, int, int],
    top: int,
    step: int,
    guides: list[Guide],
    choose_weights: Callable[[Stage], Weights],
    code_residuals: Callable[[Index, np.ndarray, np.ndarray], np.ndarray],
) -> Guide:
    """Encode or decode P planes: float[P, H, W] in 0..top, and the magnitudes of their prediction errors.

    A value is its prediction plus `step` times its residual, clipped.

    Args:
        code_residuals: Called with the index of points, their predictions float[p, h, w] and contexts u8[n]; returns
            their residuals i64[n].
    """
    dtype = np.float32 if top <= FLOAT32_TOP else np.float64
    known = Guide(np.zeros(shape, dtype), errors := np.zeros(shape, dtype))

    def code(where: Index, predicted: np.ndarray, context: np.ndarray) -> None:
        values = code_residuals(where, predicted, context).reshape(predicted.shape) * np.float64(step)
        values += predicted
        known.values[where] = np.clip(values, 0, top, out=values)

    first = (slice(None), slice(0, 1), slice(0, 1))
    predicted = guides[-1].values[first].astype(dtype) if guides else np.full((shape[0], 1, 1), top // 2, dtype)
    code(first, predicted, contexts(np.full(shape[0], EXPECTED_UNIT * top // (8 * step), np.float64)))
    for level, kind in stages(shape):
        stage = Stage(known, guides, level, kind, step, top)
        weights = choose_weights(stage)
        for strip in stage.strips():
            predicted, context = predict(stage.features(strip), weights, step, top)
            where = stage.where(strip)
            code(where, predicted, context)
            np.abs(known.values[where] - predicted, out=errors[where])
    return known


def predict(features: Features, weights: Weights, step: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """(predictions float[...], contexts u8[n])."""
    total = features.mean * np.float32(1 << PREDICT_BITS)
    total += np.float32(1 << (PREDICT_BITS + 1))
    _add_weighted(total, features.differences, weights.predict)
    total *= np.float32(2.0 ** -(PREDICT_BITS + 2))
    expected = np.zeros_like(total)
    _add_weighted(expected, features.magnitudes, weights.expect)
    expected /= expected.dtype.type((step << EXPECT_BITS) // EXPECTED_UNIT)
    return np.clip(np.floor(total, out=total), 0, top, out=total), contexts(np.floor(expected, out=expected).ravel())


def _add_weighted(total: np.ndarray, terms: list[np.ndarray], weights: np.ndarray) -> None:
    for term, weight in zip(terms, weights.tolist(), strict=True):
        if weight:
            total += term * total.dtype.type(weight)


def _sum(terms: list[np.ndarray]) -> np.ndarray:
    total: np.ndarray = terms[0] + terms[1] + terms[2] + terms[3]
    return total


def _interpolate_line(plane: np.ndarray, level: int) -> None:
    """Set the new points of a level of one row or column to the means of the known points before and after.

    There, the points themselves take the place of those beside them, which a plane of more rows and columns has.
    """
    grid = plane[:, :: 1 << level, :: 1 << level]
    if 1 not in grid.shape[1:]:
        return
    line = grid[:, 0] if grid.shape[1] == 1 else grid[:, :, 0]
    before = line[:, : line.shape[1] - 1 : 2]
    after = np.concatenate([line[:, 2::2], before[:, -1:]], 1)[:, : before.shape[1]]
    line[:, 1::2] = np.floor((before + after) / 2)


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
        if values.itemsize == 8:  # the difference fits an i64, which the values may not
            return (values - np.array(int(scale.low)).astype(values.dtype)).astype(np.int64)
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
        if dtype.itemsize == 8:
            return numbers.astype(dtype) + np.array(int(scale.low)).astype(dtype)
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
        low, high = _float_below(int(values.min())), int(values.max())
        return (Scale(INTEGERS, low, 1, high - low), int(min(max_error, high - low))) if high - low <= TOP_MAX else None
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


def _float_below(number: int) -> int:
    """The largest float64 that is not above an integer: the integer itself, up to 2**53."""
    nearest = float(number)
    return int(nearest if nearest <= number else np.nextafter(nearest, -np.inf))


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
