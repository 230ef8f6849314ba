"""Store and prepare the restoration filter of an image: its encoder fits it, and its file carries it.

The filter adds weighted sums of neighbours to each sample, after the colour transform (least squares by Wiener; in
video: Tsai et al. 2013, Adaptive Loop Filtering for Video Coding).  Channel 0 has nine weights: for samples 1, 2 and 3
away along a row, a column and both diagonals.  It has nine of each class of samples, by the activity around them; the
weights change gradually from class to class.  All other channels share two weights, for the nearest samples, and each
has two for those of channel 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.errors import FormatError
from vaecodec.native.transforms import FilterWeights
from vaecodec.transforms.networks import LOG_BITS, MANTISSA_BITS, mantissas

WEIGHTS = 9
CLASSES = (1, 2, 4)
# Activities between classes, in 64ths of the quantisation step of the lowest coefficients (measured); weights change
# from two thirds to four thirds of each.
LIMITS: dict[int, tuple[int, ...]] = {1: (), 2: (6,), 4: (2, 6, 19)}
RAMPS = {2: 8088, 6: 2696, 19: 851}  # by limit: 16 * 3 * 2**12 * 64 / (255 * NORM**8 * limit)
RAMP_MAX = 65535
MAX_SHIFT = 15  # a unit of weights is 2**-shift
OTHER_SHIFT = 9  # of the channels but the first


class Filter(NamedTuple):
    """Weights i8[K, 9] of channel 0 by class, in units of 2**-shift u8[K], and i8[2 C] of the others, in 2**-9.

    `others` holds the two shared weights, then the two for channel 0 of each; it is empty if there is one channel.
    """

    first: np.ndarray
    shifts: np.ndarray
    others: np.ndarray

    def to_bytes(self) -> bytes:
        """Serialise for the header: a byte for the number of classes, shift and weights of each, then the others."""
        data = bytes([CLASSES.index(len(self.first))])
        for shift, weights in zip(self.shifts.tolist(), self.first, strict=True):
            data += bytes([shift]) + weights.tobytes()
        return data + self.others.tobytes()

    def weights(self, colors: np.ndarray, low_logarithm: int) -> FilterWeights:
        """Weights for the core, given log2, unit 2**-12, of the quantisation step of the lowest coefficients."""
        ramps = [_ramp(limit, low_logarithm) for limit in LIMITS[len(self.first)]]
        arrays = (np.asarray(array, np.int32) for array in (self.first, self.shifts, ramps, self.others))
        return FilterWeights(colors, *arrays)


def from_bytes(data: bytes, channels: int) -> Filter:
    """The inverse of Filter.to_bytes; raises FormatError if `data` is not a filter of so many channels."""
    others = 2 * channels if channels > 1 else 0
    if not data or data[0] >= len(CLASSES) or len(data) != 1 + (1 + WEIGHTS) * CLASSES[data[0]] + others:
        raise FormatError(f"the header gives a filter of {len(data)} bytes, which this version does not know")
    weights = np.frombuffer(data, np.int8, offset=1)
    first = weights[: len(weights) - others].reshape(-1, 1 + WEIGHTS)
    if not (first[:, 0].min() >= 0 and first[:, 0].max() <= MAX_SHIFT):
        raise FormatError(f"the header gives a filter in units below 2**-{MAX_SHIFT}")
    return Filter(first[:, 1:], first[:, 0].astype(np.uint8), weights[len(weights) - others :])


def _ramp(limit: int, low_logarithm: int) -> int:
    """Slope of the change between two classes: (activity * ramp) >> 12 goes from 256 to 512."""
    mantissa, power = mantissas()[-low_logarithm & ((1 << LOG_BITS) - 1)], -low_logarithm >> LOG_BITS
    scaled, shift = RAMPS[limit] * int(mantissa), MANTISSA_BITS + 4 - power
    return min(scaled >> shift if shift > 0 else scaled << -shift, RAMP_MAX)
