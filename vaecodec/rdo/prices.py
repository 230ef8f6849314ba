"""Set the price of a bit: by effort, by place for the eye, and by place from weights of pixels.

At every effort the squared error comes to that of effort 1.  The price of a bit makes sure of it: a higher price makes
more symbols 0 or smaller.  The squared error grows with a power of the price, about POWER.

For the eye, errors hide where much happens, so bits are dearer there than in flat regions:

    wavelet coefficients of brightness --> activity of 8 x 8 pixels --> price of a bit in squares of each octave

Everything up to the price, of which there are a few, is exact in integers: the bytes of files depend on no processor.
Decoders need not know of prices.  Steps of quantisation are tilted, too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from vaecodec.arguments import check_effort as check_effort
from vaecodec.config import LAST_ANCHOR, STRIDE
from vaecodec.prior import LOWEST_PARTS, OCTAVES, PARTS
from vaecodec.transforms import Box
from vaecodec.transforms.networks import PIXEL_BITS
from vaecodec.transforms.wavelet import SUBBANDS, Coefficients

ITERATIONS = (0, 1, 2, 3, 5, 7, 10, 14, 22)  # of refinement, for efforts 1 to 9
PRECISE = 3  # the effort from which on squared errors are met closely, and filters may have several classes

# Refinement lowers squared errors.  From effort 3 on a part of that is given up for larger steps: by how much the
# quality index is lowered in the middle of the scale.  Chosen on held-out images.
INDEX_OFFSETS = (0, 0, 10, 14, 18, 20, 22, 23, 23)


# For the eye one iteration gains nothing, and at low quality none does.
EYE_ITERATIONS = (0, 2, 3, 4, 5, 7, 10, 14, 22)
EYE_INDEX_OFFSETS = (0, 10, 14, 16, 18, 20, 22, 23, 23)
EYE_LEAST_INDEX = 430  # below it every effort codes as effort 1
# At low quality many iterations lose what the analysis has gained, so there is a largest effort, by quality index.
EYE_LARGEST_EFFORTS = (510, 4), (730, 9)


class Plan(NamedTuple):
    """How an image is coded at an effort."""

    iterations: int  # of refinement
    quality_index: int  # to code with: lower than what is asked for if refinement makes up for it
    is_precise: bool  # squared errors are met closely, and filters may have several classes


def plan_of(effort: int, asked: int, tune: str) -> Plan:
    """The plan of an effort 1..9 for the quality index that is asked for, and a tune."""
    if tune == "eye":
        if asked < EYE_LEAST_INDEX:
            return Plan(0, asked, False)
        largest = min(effort, _interpolated(EYE_LARGEST_EFFORTS, asked))
        iterations, is_precise = EYE_ITERATIONS[int(largest) - 1], effort > 1
        index_offset = _interpolated(tuple(enumerate(EYE_INDEX_OFFSETS, 1)), largest)  # so that it rises smoothly
    else:
        iterations, is_precise = ITERATIONS[effort - 1], effort >= PRECISE
        index_offset = INDEX_OFFSETS[effort - 1]
    return Plan(iterations, max(0, asked - round(index_offset * (1.3 - 0.6 * asked / LAST_ANCHOR))), is_precise)


def _interpolated(table: tuple[tuple[int, float], ...], place: float) -> float:
    """The value at a place in a table of places and values: linear in between, constant beyond."""
    places, values = zip(*table, strict=True)
    return float(np.interp(place, places, values))


class Tolerance(NamedTuple):
    """Squared errors to accept, and to aim at, in limits."""

    lowest: float
    aim: float
    highest: float


# Chosen on held-out images.  The wide one is met by most first trials at the price that `start` sets.
NARROW, WIDE = Tolerance(0.99, 0.9985, 1.004), Tolerance(0.95, 0.99, 1.01)
POWER = 0.3  # of the price, where targets stay
FOLLOWING = 2.0  # power of the excess by which the price decreases in an iteration; more oscillates
MIN_PRICE, MAX_PRICE = 0.2, 5.0
LEAST_ERROR = 1e-3  # has a logarithm


class Price:
    """The price of a bit, relative to effort 1.

    `limit` is that of the squared error, of which `share` is allowed; without it, the first squared error is the limit.
    """

    def __init__(self, limit: float | None, tolerance: Tolerance = NARROW, share: float = 1.0) -> None:
        self.value, self._tolerance, self._power, self._share = 1.0, tolerance, POWER, share
        self._limit = None if limit is None else share * limit
        self._last: tuple[float, float] | None = None  # logarithms of price and excess

    def exceeds_limit(self, squared_error: float) -> bool:
        """Whether the squared error is too large."""
        if self._limit is None:
            self._limit = self._share * squared_error
        return squared_error > self._tolerance.highest * self._limit

    def meets_limit(self, squared_error: float) -> bool:
        """Whether the squared error is within the limit, and close to it."""
        least = math.log(self._tolerance.lowest / self._tolerance.aim)
        return not self.exceeds_limit(squared_error) and self._excess(squared_error) >= least

    def start(self, squared_error: float) -> None:
        """Set the price of the first iteration, by the squared error to expect of it at the price of effort 1."""
        self.value = 1.0
        self._multiply(-self._excess(squared_error) / POWER)

    def follow(self, squared_error: float) -> None:
        """Change the price for the next iteration, in which targets move."""
        self._multiply(-FOLLOWING * self._excess(squared_error))

    def correct(self, squared_error: float) -> None:
        """Change the price for the same targets (secant method)."""
        place = math.log(self.value), self._excess(squared_error)
        if self._last is not None and place[0] != self._last[0]:
            power = (place[1] - self._last[1]) / (place[0] - self._last[0])
            self._power = min(max(power, POWER / 3), 3 * POWER)
        self._last = place
        self._multiply(-place[1] / self._power)

    def _excess(self, squared_error: float) -> float:
        """The logarithm of a squared error, relative to the one to aim at."""
        assert self._limit is not None
        return math.log(max(squared_error, LEAST_ERROR) / (self._tolerance.aim * max(self._limit, LEAST_ERROR)))

    def _multiply(self, logarithm: float) -> None:
        self.value = min(max(self.value * math.exp(logarithm), MIN_PRICE), MAX_PRICE)


# Found on training images by SSIMULACRA2 (docs/decisions/0025-prices-for-the-eye.md).
TILT = 3  # of steps: larger ones in octaves 0 and 1, whose errors are seen less, and smaller ones in 3 and 4
EXPONENT = 0.5  # of the activity, in its price
FLOOR = 4.0  # levels out of 255 that count as activity everywhere
TYPICAL = 50.0  # activity, with the floor, at which a bit has the price 1

# Refinement lowers the squared error, and would take back what the analysis does for the eye.  So its goal is an image
# between the original and what the analysis gives without quantisation, this many tenths of the way.
TENTHS = 4
# It is allowed less of the error of effort 1, and least at low quality, since a refined image of an equal error has a
# lower score of SSIMULACRA2: a share by quality index.
SHARES = (430, 0.958), (560, 0.966), (640, 0.979), (750, 0.986), (980, 0.997)
EARLY_ITERATIONS, LATE_SHARE = 5, 0.0005  # each iteration beyond the early ones lowers the share by so much
FEW_ITERATIONS = 2  # and at low quality each doubling beyond these, by quality index:
DOUBLING_SHARES = (510, 0.014), (570, 0.009), (650, 0.005), (730, 0.0)

LEVELS_PER_OCTAVE = 8  # of activities, which double in an octave of levels
ACTIVITY_UNIT = 255 / (48 * 9 << PIXEL_BITS)  # of sums of activities, in levels out of 255


def tilt_of(tune: str) -> int:
    """The tilt of quantisation steps, for a file header."""
    return TILT if tune == "eye" else 0


def share_of_error(quality_index: int, iterations: int) -> float:
    """How much of the squared error of effort 1 refinement is allowed, so that SSIMULACRA2 is that of effort 1."""
    late = max(0, iterations - EARLY_ITERATIONS)
    doublings = math.log2(max(iterations, FEW_ITERATIONS) / FEW_ITERATIONS)
    of_doublings = doublings * _interpolated(DOUBLING_SHARES, quality_index)
    return _interpolated(SHARES, quality_index) - LATE_SHARE * late - of_doublings


def goal_of_refinement(pixels: np.ndarray, unquantised: np.ndarray) -> np.ndarray:
    """u8[H, W, C]: what refinement comes close to, from the original and its analysis without quantisation."""
    tenths = (10 - TENTHS) * pixels.astype(np.uint16) + TENTHS * unquantised.astype(np.uint16)
    return ((tenths + 5) // 10).astype(np.uint8)


def _thresholds() -> np.ndarray:
    """i64[n]: sums of activities from which on the next level begins."""
    activities = FLOOR * 2.0 ** (np.arange(1, 64) / LEVELS_PER_OCTAVE) - FLOOR
    return np.rint(activities / ACTIVITY_UNIT).astype(np.int64)


THRESHOLDS = _thresholds()
PRICES = ((FLOOR / TYPICAL * 2.0 ** (np.arange(64) / LEVELS_PER_OCTAVE)) ** EXPONENT).astype(np.float32)


def prices_of_squares(coefficients: Coefficients) -> list[np.ndarray]:
    """Prices f32[h, w] of a bit in the squares of 2 x 2 coefficients of each octave, finest first.

    Args:
        coefficients: those of a tile, unit 2**-14.
    """
    levels = np.searchsorted(THRESHOLDS, _activity(coefficients), "right")
    prices = [PRICES[levels.repeat(2, 0).repeat(2, 1)], PRICES[levels]]
    for _ in range(2, OCTAVES + 1):
        levels = np.pad(levels, [(0, side % 2) for side in levels.shape], "edge")
        levels = _in_twos(levels) >> 2
        prices.append(PRICES[levels])
    return prices


def _activity(coefficients: Coefficients) -> np.ndarray:
    """Sums i32[2h, 2w], unit UNIT, of magnitudes of brightness in the octaves 0 to 2 around each 8 x 8 pixels."""
    channels = len(coefficients.low)
    finest, middle, coarse = (
        np.abs(planes[: SUBBANDS * channels : channels]).sum(0, dtype=np.int32) for planes in coefficients.subbands[:3]
    )
    sums = np.pad(_in_twos(_in_twos(finest)) + 4 * _in_twos(middle) + 16 * coarse, 1, "edge")
    rows = sums[:-2] + sums[1:-1] + sums[2:]
    around: np.ndarray = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return around


def _in_twos(x: np.ndarray) -> np.ndarray:
    """Sums of 2 x 2 neighbours."""
    rows = x[::2] + x[1::2]
    sums: np.ndarray = rows[:, ::2] + rows[:, 1::2]
    return sums


LEAST_WEIGHT = 1 / 64  # a bit costs at most 64 times as much as where the weight is 1

Prices = list[np.ndarray | None]  # f32[n] of the coefficients of each part of a tile, None for 1


def prices_of_tile(tune: str, coefficients: Coefficients, weights: np.ndarray | None = None) -> Prices | None:
    """Prices of the coefficients of a tile; None where all are 1.

    Args:
        tune: "eye" or "psnr".
        coefficients: those of the tile, unit 2**-14.
        weights: f32[16 h, 16 w], 0..1, of its pixels.
    """
    squares = prices_of_squares(coefficients) if tune == "eye" else None
    if weights is not None:
        of_weights = squares_of_weights(weights, coefficients.cells)
        squares = of_weights if squares is None else [a * b for a, b in zip(squares, of_weights, strict=True)]
    return None if squares is None else prices_of_parts(squares, len(coefficients.low))


def squares_of_weights(weights: np.ndarray, cells: tuple[int, int]) -> list[np.ndarray]:
    """Prices f32[h, w] of a bit in the squares of 2 x 2 coefficients of each octave, finest first.

    A bit is worth as much error as the largest weight of a pixel in the square allows.

    Args:
        weights: f32[16 h, 16 w], 0..1, of the pixels of the tile.
        cells: (h, w) of the tile.
    """
    prices = []
    for octave in range(OCTAVES + 1):
        side = 4 << octave  # pixels of a square
        rows, columns = -(-cells[0] * STRIDE // side), -(-cells[1] * STRIDE // side)
        padding = (0, rows * side - weights.shape[0]), (0, columns * side - weights.shape[1])
        squares = np.pad(weights, padding).reshape(rows, side, columns, side).max((1, 3))
        prices.append(1 / np.maximum(squares, LEAST_WEIGHT).astype(np.float32))
    return prices


def weights_of_pixels(prices: Prices, inner: Box, cells: tuple[int, int], within: tuple[int, int]) -> np.ndarray:
    """Weights f64[16 h, 16 w] of the squared errors of a tile and its halo: the inverse of prices; 0 beyond the image.

    Multiples of 2**-12, such that sums of whole numbers times weights are exact.

    Args:
        prices: of the tile.
        inner: cells of the tile.
        cells: (h, w) of the tile and its halo.
        within: (rows, columns) of the pixels that belong to the image.
    """
    price = prices[LOWEST_PARTS + 2 * (OCTAVES - 1)]
    assert price is not None
    height, width = (2 * side for side in inner.shape)  # squares of octave 1, of 8 x 8 pixels
    weights = np.rint(4096 / price.reshape(height, width, -1)[..., 0].astype(np.float64)) / 4096
    weights = weights.repeat(8, 0).repeat(8, 1)
    rows = STRIDE * inner.top, STRIDE * (cells[0] - inner.bottom)
    columns = STRIDE * inner.left, STRIDE * (cells[1] - inner.right)
    weights = np.pad(weights, [rows, columns], "edge")
    weights[within[0] :] = 0
    weights[:, within[1] :] = 0
    return weights


def prices_of_parts(squares: list[np.ndarray], channels: int) -> Prices:
    """Prices f32[n] of the coefficients of each part, from those of squares; the lowest keep theirs."""
    prices: Prices = [None] * PARTS
    for octave, price in enumerate(squares):
        first = LOWEST_PARTS + 2 * (OCTAVES - octave)
        prices[first] = prices[first + 1] = np.repeat(price.ravel(), 2 * SUBBANDS * channels)
    return prices
