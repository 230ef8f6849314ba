"""Price bits for the eye: errors hide where much happens, so bits are dearer there than in flat regions.

    wavelet coefficients of brightness --> activity of 8 x 8 pixels --> price of a bit in squares of each octave

Everything up to the price, of which there are a few, is exact in integers: the bytes of files depend on no processor.
Decoders need not know of prices.  Steps of quantisation are tilted, too.
"""

from __future__ import annotations

import numpy as np

from vaecodec.prior import OCTAVES
from vaecodec.transforms.networks import PIXEL_BITS
from vaecodec.transforms.wavelet import SUBBANDS, Coefficients

# Found on training images by SSIMULACRA2 (docs/decisions/0025-prices-for-the-eye.md).
TILT = 3  # of steps: larger ones in octaves 0 and 1, whose errors are seen less, and smaller ones in 3 and 4
EXPONENT = 0.5  # of the activity, in its price
FLOOR = 4.0  # levels out of 255 that count as activity everywhere
TYPICAL = 50.0  # activity, with the floor, at which a bit has the price 1

# Refinement lowers the squared error, and would take back what the analysis does for the eye.  So its goal is an image
# between the original and what the analysis gives without quantisation, this many tenths of the way.
TENTHS = 4
# It is allowed less of the error of effort 1 at low quality, where an equal error has a lower score of SSIMULACRA2.
REMISSION, FULL_SHARE, SHARE_RANGE = 0.04, 660, 400

LEVELS_PER_OCTAVE = 8  # of activities, which double in an octave of levels
UNIT = 255 / (48 * 9 << PIXEL_BITS)  # of sums of activities, in levels out of 255


def tilt_of(tune: str) -> int:
    """The tilt of quantisation steps, for a file header."""
    return TILT if tune == "eye" else 0


def share_of_error(quality_index: int) -> float:
    """How much of the squared error of effort 1 refinement is allowed, so that SSIMULACRA2 is that of effort 1."""
    return 1 - REMISSION * min(max(0, FULL_SHARE - quality_index), SHARE_RANGE) / SHARE_RANGE


def goal_of_refinement(pixels: np.ndarray, unquantised: np.ndarray) -> np.ndarray:
    """u8[H, W, C]: what refinement comes close to, from the original and its analysis without quantisation."""
    tenths = (10 - TENTHS) * pixels.astype(np.uint16) + TENTHS * unquantised.astype(np.uint16)
    return ((tenths + 5) // 10).astype(np.uint8)


def _thresholds() -> np.ndarray:
    """i64[n]: sums of activities from which on the next level begins."""
    activities = FLOOR * 2.0 ** (np.arange(1, 64) / LEVELS_PER_OCTAVE) - FLOOR
    return np.rint(activities / UNIT).astype(np.int64)


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
