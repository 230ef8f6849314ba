"""Planes of integers from coarse to fine: each stage predicts points that lie between known ones.

    o . o     o . o     o B o     o B o        o known, A B C the three stages of a level
    . . .  >  . A .  >  . A .  >  C A C        then the same at half the distance
    o . o     o . o     o B o     o B o

A generator for both directions, as octaves.walk: it yields which context each residual has and is sent residuals.
Predictions are sums of integers carried in floats, in a type in which none can be rounded, so that both sides and all
machines have the same.  Arrays are [P, H, W]: P planes that are coded together, none of which sees another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

import numpy as np

from vaecodec.entropy.adaptive import EXPECTED_UNIT, contexts

PREDICT_BITS, EXPECT_BITS = 10, 12
PREDICT_MAX, EXPECT_MAX = 1 << 13, 1 << 12  # sums of the weights' magnitudes
TOP_MAX = (1 << 33) - 1  # of the integers: with the sums above, float64 is exact with bits to spare
SMALL_TOP = 255  # up to it float32 is: 2**12 * 16 * 255 < 2**24
MARGIN = 3
BAND = 1 << 16  # points that are predicted at once

Offset = tuple[int, int]
Where = tuple[slice, slice, slice]


class Kind(NamedTuple):
    """One of the three stages of a level: the parity of its points, and the known points around, nearest four first."""

    parity: Offset
    around: tuple[Offset, ...]


def _mirrored(*corners: Offset) -> tuple[Offset, ...]:
    return tuple(at for y, x in corners for at in sorted({(y, x), (y, -x), (-y, x), (-y, -x)}))


KINDS = (
    Kind((1, 1), _mirrored((1, 1), (1, 3), (3, 1))),
    Kind((0, 1), _mirrored((0, 1), (1, 0), (1, 2), (2, 1), (0, 3), (3, 0))),
    Kind((1, 0), _mirrored((0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (0, 3), (3, 0))),
)
SQUARE = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))
CENTRE = SQUARE.index((0, 0))


class Guide(NamedTuple):
    """A picture that is known before a plane: float[P, H, W], integers in 0..top.

    It is one of the plane itself (a base, without `errors`), or another plane, with the magnitudes of its residuals.
    """

    values: np.ndarray
    errors: np.ndarray | None = None


class Weights(NamedTuple):
    """Integers i16: of the differences that predict, unit 2**-10, and of the magnitudes that say how well, 2**-12."""

    predict: np.ndarray
    expect: np.ndarray


class Stage(NamedTuple):
    """What is known around some points of a stage, all float, integers, of one shape (or none, where all are alike)."""

    mean: np.ndarray  # of the nearest four, times four
    differences: list[np.ndarray]  # from that mean, times four
    magnitudes: list[np.ndarray]  # at most 16 * top


class Question(NamedTuple):
    """Contexts u8[n] of some points, their predictions float[p, h, w], and where in the planes they lie."""

    rows: np.ndarray
    predicted: np.ndarray
    where: Where


class View:
    """Planes of a level as the points of one stage see them: mirrored at their edges."""

    def __init__(self, plane: np.ndarray, level: int, kind: Kind) -> None:
        self._parity = kind.parity
        grid = plane[:, :: 1 << level, :: 1 << level]
        # Mirrored at the first and the last, so that points keep their parity; not where there is only one.
        self._padded = np.pad(grid, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)), "reflect")

    def at(self, offset: Offset, band: Where) -> np.ndarray:
        """float[p, h, w]: the values at an offset from some points of the stage."""
        begin = [MARGIN + odd + step for odd, step in zip(self._parity, offset, strict=True)]
        rows, columns = (slice(a + 2 * s.start, a + 2 * s.stop - 1, 2) for a, s in zip(begin, band[1:], strict=True))
        return self._padded[band[0], rows, columns]


class Scene:
    """All that one stage can use, to be looked at in bands."""

    def __init__(self, known: Guide, guides: list[Guide], level: int, kind: int, step: int, top: int) -> None:
        self.level, self.kind, self.guides, self.step, self.top = level, kind, guides, step, top
        self.shape = points(known.values.shape, level, kind)
        self.sizes = sizes(kind, guides)
        _bridge(known.values, level)
        everything = [known, *guides]
        self._values = [View(guide.values, level, KINDS[kind]) for guide in everything]
        errors = [guide.errors for guide in everything]
        self._errors = [None if one is None else View(one, level, KINDS[kind]) for one in errors]

    def bands(self) -> Iterator[Where]:
        """All points of the stage, some BAND of them at a time: whole planes, or rows of one."""
        planes, height, width = self.shape
        rows = max(1, BAND // width)
        together = max(1, rows // height)
        for plane in range(0, planes, together):
            for row in range(0, height, rows):
                last = min(planes, plane + together), min(height, row + rows)
                yield slice(plane, last[0]), slice(row, last[1]), slice(0, width)

    def where(self, band: Where) -> Where:
        """A band in the planes."""
        ends, level = zip(KINDS[self.kind].parity, band[1:], strict=True), self.level
        rows, columns = (slice((2 * s.start + odd) << level, 2 * s.stop << level, 2 << level) for odd, s in ends)
        return band[0], rows, columns

    def look(self, band: Where) -> Stage:
        """What is known around the points of a band; docs/reference/array-chunks.md lists it in this order."""
        around = KINDS[self.kind].around
        known = [self._values[0].at(at, band) for at in around]
        mean = _sum(known[:4])
        differences = [4 * value - mean for value in known]
        residuals = self._errors[0]
        assert residuals is not None
        magnitudes = [
            np.asarray(min(self.step, 16 * self.top), mean.dtype),
            _sum([np.abs(one) for one in differences[:4]]),
            _sum([np.abs(one) for one in differences[4:8]]),
            4 * _sum([residuals.at(at, band) for at in around[:4]]),
            4 * _sum([residuals.at(at, band) for at in around[4:8]]),
        ]
        for values, errors in zip(self._values[1:], self._errors[1:], strict=True):
            nearest = [values.at(at, band) for at in around[:4]]
            own = _sum(nearest)
            square = [4 * values.at(at, band) - own for at in SQUARE]
            differences += square
            magnitudes += [4 * np.abs(square[CENTRE]), _sum([np.abs(4 * value - own) for value in nearest])]
            if errors is None:
                differences.append(4 * values.at((0, 0), band) - mean)
                magnitudes.append(4 * np.abs(differences[-1]))
            else:
                magnitudes += [16 * errors.at((0, 0), band), 4 * _sum([errors.at(at, band) for at in around[:4]])]
        return Stage(mean, differences, magnitudes)


Choose = Callable[[Scene], Weights]


def sizes(kind: int, guides: list[Guide]) -> tuple[int, int]:
    """How many weights of each sort a stage has."""
    bases = sum(guide.errors is None for guide in guides)
    return len(KINDS[kind].around) + len(SQUARE) * len(guides) + bases, 5 + 4 * len(guides) - bases


def default(kind: int, guides: list[Guide], follow: bool) -> Weights:
    """Cubic interpolation, nearly; or with `follow` the mean, and what the last guide does beside its own mean."""
    predict, expect = (np.zeros(size, np.int16) for size in sizes(kind, guides))
    if follow:
        at = len(KINDS[kind].around) + len(SQUARE) * (len(guides) - 1) + CENTRE
        predict[at + sum(guide.errors is None for guide in guides[:-1])] = 1 << PREDICT_BITS
    else:
        predict[[n for n, at in enumerate(KINDS[kind].around) if {*map(abs, at)} in ({0, 3}, {1, 3})]] = -32
    expect[:5] = 400, 30, 0, 70, 30
    return Weights(predict, expect)


def stages(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(level, kind) from the coarsest on, without empty ones; points of a level are 2**level apart once it is done."""
    for level in reversed(range((max(shape[1:]) - 1).bit_length())):
        for kind in range(len(KINDS)):
            if 0 not in points(shape, level, kind):
                yield level, kind


def points(shape: tuple[int, ...], level: int, kind: int) -> tuple[int, int, int]:
    """[P, h, w] of a stage."""
    spans = zip(shape[1:], KINDS[kind].parity, strict=True)
    height, width = (len(range(odd << level, size, 2 << level)) for size, odd in spans)
    return shape[0], height, width


def walk(
    shape: tuple[int, int, int], top: int, step: int, guides: list[Guide], choose: Choose
) -> Generator[Question, np.ndarray, Guide]:
    """Yields Questions and is sent residuals i64[n]; returns the planes, float[P, H, W] in 0..top, and their errors.

    A value is its prediction plus `step` times its residual, clipped.
    """
    kind = np.float32 if top <= SMALL_TOP else np.float64
    known = Guide(np.zeros(shape, kind), np.zeros(shape, kind))
    first = (slice(None), slice(0, 1), slice(0, 1))
    predicted = np.full((shape[0], 1, 1), top // 2, kind)
    if guides:
        predicted = guides[-1].values[first].astype(kind)
    rows = contexts(np.full(shape[0], EXPECTED_UNIT * top // (8 * step), np.float64))
    known.values[first] = settle(predicted, (yield Question(rows, predicted, first)), step, top)
    for level, which in stages(shape):
        scene = Scene(known, guides, level, which, step, top)
        weights = choose(scene)
        for band in scene.bands():
            predicted, rows = answer(scene.look(band), weights, step, top)
            where = scene.where(band)
            values = settle(predicted, (yield Question(rows, predicted, where)), step, top)
            known.values[where] = values
            np.abs(values - predicted, out=known.errors[where])  # type: ignore[index]
    return known


def settle(predicted: np.ndarray, residuals: np.ndarray, step: int, top: int) -> np.ndarray:
    """The values that residuals i64[n] stand for."""
    moved = residuals.reshape(predicted.shape) * np.float64(step)
    moved += predicted
    return np.clip(moved, 0, top, out=moved).astype(predicted.dtype, copy=False)


def answer(stage: Stage, weights: Weights, step: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """(predictions float[...], contexts u8[n])."""
    total = stage.mean * np.float32(1 << PREDICT_BITS)
    total += np.float32(1 << (PREDICT_BITS + 1))
    _add(total, stage.differences, weights.predict)
    total *= np.float32(2.0 ** -(PREDICT_BITS + 2))
    expected = np.zeros_like(total)
    _add(expected, stage.magnitudes, weights.expect)
    expected /= expected.dtype.type((step << EXPECT_BITS) // EXPECTED_UNIT)
    return np.clip(np.floor(total, out=total), 0, top, out=total), contexts(np.floor(expected, out=expected).ravel())


def _add(total: np.ndarray, terms: list[np.ndarray], weights: np.ndarray) -> None:
    for term, weight in zip(terms, weights.tolist(), strict=True):
        if weight:
            total += term * total.dtype.type(weight)


def _sum(terms: list[np.ndarray]) -> np.ndarray:
    return terms[0] + terms[1] + terms[2] + terms[3]


def _bridge(plane: np.ndarray, level: int) -> None:
    """Where a level has one row or one column, its new points themselves stand for what would lie beside them: they
    begin as the means of the known ones before and after."""
    grid = plane[:, :: 1 << level, :: 1 << level]
    if 1 not in grid.shape[1:]:
        return
    line = grid[:, 0] if grid.shape[1] == 1 else grid[:, :, 0]
    before = line[:, : line.shape[1] - 1 : 2]
    after = np.concatenate([line[:, 2::2], before[:, -1:]], 1)[:, : before.shape[1]]
    line[:, 1::2] = np.floor((before + after) / 2)
