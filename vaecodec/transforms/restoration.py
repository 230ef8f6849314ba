"""A restoration filter for one image, which its encoder fits and its file carries.

    rotated colours --sums of samples around each--> weighted --> what is added to them

Weights are those of least squares (Wiener's; in video: Tsai et al. 2013, Adaptive Loop Filtering for Video Coding).
The first colour has nine, for samples 1, 2 and 3 away along a row, a column and both diagonals, and nine of each class
of samples, by how much happens around them; from class to class weights go over gradually.  All other colours share
two, for the nearest samples, and each has two for those of the first colour.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.errors import FormatError
from vaecodec.native.transforms import FilterWeights
from vaecodec.transforms.gains import LOG_BITS, MANTISSA_BITS, mantissas

WEIGHTS = 9
CLASSES = (1, 2, 4)
# Activities around which one class goes over to the next, from two thirds to four thirds of them, in 64ths of the
# quantisation step of the lowest coefficients: measured.
LIMITS: dict[int, tuple[int, ...]] = {1: (), 2: (6,), 4: (2, 6, 19)}
RAMPS = {2: 8088, 6: 2696, 19: 851}  # by limit: 16 * 3 * 2**12 * 64 / (255 * NORM**8 * limit)
RAMP_MAX = 65535
MAX_SHIFT = 15  # a unit of weights is 2**-shift
OTHER_SHIFT = 9  # of the colours but the first


class Filter(NamedTuple):
    """Weights i8[K, 9] of the first colour, units 2**-shift u8[K], and i8[2 C] of the others, units 2**-9: the two that
    they share, then two for the first colour of each; where there is one colour, none.
    """

    first: np.ndarray
    shifts: np.ndarray
    others: np.ndarray

    def to_bytes(self) -> bytes:
        """As HEAD has it: a byte that says how many classes there are, shift and weights of each, then the others."""
        kind = CLASSES.index(len(self.first))
        each = (bytes([shift]) + row.tobytes() for shift, row in zip(self.shifts.tolist(), self.first, strict=True))
        return bytes([kind]) + b"".join(each) + self.others.tobytes()

    def weights(self, rotation: np.ndarray, low_logarithm: int) -> FilterWeights:
        """Those of the core, where the logarithm of the gain of the lowest coefficients is given, unit 2**-12."""
        ramps = [_ramp(limit, low_logarithm) for limit in LIMITS[len(self.first)]]
        whole = (np.asarray(each, np.int32) for each in (self.first, self.shifts, ramps, self.others))
        return FilterWeights(rotation, *whole)


def from_bytes(data: bytes, channels: int) -> Filter:
    """The inverse of Filter.to_bytes; raises FormatError on what it does not make of a filter of so many colours."""
    others = 2 * channels if channels > 1 else 0
    if not data or data[0] >= len(CLASSES) or len(data) != 1 + (1 + WEIGHTS) * CLASSES[data[0]] + others:
        raise FormatError(f"the header gives a filter of {len(data)} bytes, which this version does not know")
    weights = np.frombuffer(data, np.int8, offset=1)
    first = weights[: len(weights) - others].reshape(-1, 1 + WEIGHTS)
    if not (first[:, 0].min() >= 0 and first[:, 0].max() <= MAX_SHIFT):
        raise FormatError(f"the header gives a filter in units below 2**-{MAX_SHIFT}")
    return Filter(first[:, 1:], first[:, 0].astype(np.uint8), weights[len(weights) - others :])


def _ramp(limit: int, low_logarithm: int) -> int:
    """How fast a class gives way to the next around a limit: (activity * ramp) >> 12 is 256 to 512 on the way."""
    mantissa, power = mantissas()[-low_logarithm & ((1 << LOG_BITS) - 1)], -low_logarithm >> LOG_BITS
    scaled, shift = RAMPS[limit] * int(mantissa), MANTISSA_BITS + 4 - power
    return min(scaled >> shift if shift > 0 else scaled << -shift, RAMP_MAX)
