"""The integer networks and tables of a prior, from the tensors of a model file.

    prior/context/<octave>/...   the networks of an octave          levels/bias           what their features are given
    prior/lowest/<part>/...      those of the lowest coefficients   levels/lowest, start  the same for these
    levels/inverse_gain          steps of each subband, in steps of the low-pass image
    companding, centroids        how values are seen, and what symbols stand for

Quality indices are conditioned on in levels of 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vaecodec.config import LEVELS, Config
from vaecodec.errors import ModelError
from vaecodec.native import prior as networks

OCTAVES = 4  # the coarsest octave of a tile: it lies within the low-pass image of the transforms
SUBBANDS = 3
ZERO_INDEX = 0  # symbols of this table index are 0 and are not coded
LEVEL_BIAS_MAX, START_MAX, GAIN_MAX = 1 << 20, 1 << 16, 1 << 14
COMPANDED_MAX, ACTIVATION_MAX, MAX_SCALES = 1 << 16, 1023, 256
PREFIX = "prior/"

Arrays = Mapping[str, np.ndarray]


class Distributions(NamedTuple):
    """Table indices u8[n] and means i32[n], unit 2**-6 quantisation steps, of the coefficients of a part."""

    indices: np.ndarray
    loc: np.ndarray


class Prior:
    """All that chooses a probability, but the frequency tables; raises ModelError where tensors do not fit.

    `scales` is the number of tables that coefficients are coded with; table 0 among them is not coded.
    """

    def __init__(self, config: Config, arrays: Arrays, scales: int) -> None:
        self.config, self.channels, self.scales = config, config.channels, scales
        widths = [config.prior, *[config.coarser] * OCTAVES]
        self._ends = np.cumsum(widths)
        self._bias = level_tensor(arrays, "bias", int(self._ends[-1]), LEVEL_BIAS_MAX)
        self._lowest_bias = level_tensor(
            arrays, "lowest", (networks.LOWEST_PARTS - 1) * config.hyper_width, LEVEL_BIAS_MAX
        )
        self._start = level_tensor(arrays, "start", 2 * self.channels, START_MAX)
        self._inverse_gain = level_tensor(arrays, "inverse_gain", SUBBANDS * (OCTAVES + 1) * self.channels, GAIN_MAX)
        if self._inverse_gain.min() < 1:
            raise ModelError("levels/inverse_gain is not above 0")
        self.centroids = _expect(arrays, "centroids", np.int8, (scales, 2))
        self.companding = self._companding(arrays)
        weights = {name[len(PREFIX) :]: array for name, array in arrays.items() if name.startswith(PREFIX)}
        for name, array in weights.items():
            if array.dtype != (np.int32 if name.endswith("/bias") else np.int16):
                raise ModelError(f"{PREFIX}{name} has type {array.dtype}")
        try:
            self.octaves = [
                networks.load_octave(weights, octave, self.companding, scales) for octave in range(OCTAVES + 1)
            ]
            self.lowest = networks.load_lowest(weights, self.companding, scales)
        except KeyError as exc:
            raise ModelError(f"the prior has no {PREFIX}{exc.args[0]}") from exc
        except ValueError as exc:
            raise ModelError(f"the prior's layers: {exc}") from exc
        found = [(layers.colours, layers.features) for layers in self.octaves]
        enter = self.lowest.parts[0].enter.kernel.shape
        if found != [(self.channels, width) for width in widths] or enter != (10 * self.channels, config.hyper_width):
            raise ModelError("the prior's layers have other widths than its configuration")

    def bias(self, octave: int, level: int) -> np.ndarray:
        """i32[features]: what the features of an octave are given at a level."""
        return self._bias[level, self._ends[octave] - self.octaves[octave].features : self._ends[octave]]

    def lowest_bias(self, level: int) -> np.ndarray:
        """i32[4 * hyper_width]: the same for each part of the lowest coefficients but the first."""
        return self._lowest_bias[level]

    def start(self, level: int) -> np.ndarray:
        """i32[2 C]: means, then table indices, of the first part of the lowest coefficients."""
        return self._start[level]

    def inverse_gain(self, octave: int, level: int) -> np.ndarray:
        """i32[3 C], unit 2**-10: of each subband, in steps of the low-pass image."""
        width = SUBBANDS * self.channels
        return np.ascontiguousarray(self._inverse_gain[level, octave * width : (octave + 1) * width])

    def _companding(self, arrays: Arrays) -> np.ndarray:
        steps = arrays.get("companding")
        if steps is None or steps.dtype != np.int32 or steps.ndim != 1 or not 1 <= len(steps) <= ACTIVATION_MAX:
            raise ModelError(f"companding is not i32[n] with n in 1..{ACTIVATION_MAX}")
        if steps[0] < 1 or (np.diff(steps) <= 0).any() or steps[-1] > COMPANDED_MAX:
            raise ModelError(f"companding does not rise from 1 to at most {COMPANDED_MAX}")
        return networks.companding_table(steps)


def level_tensor(arrays: Arrays, name: str, width: int, most: int) -> np.ndarray:
    """levels/`name` i32[LEVELS, width] within +-most; raises ModelError."""
    found = _expect(arrays, f"levels/{name}", np.int32, (LEVELS, width))
    if np.abs(found.astype(np.int64)).max() > most:
        raise ModelError(f"levels/{name} is out of range")
    return found


def _expect(arrays: Arrays, name: str, kind: type, shape: tuple[int, ...]) -> np.ndarray:
    found = arrays.get(name)
    if found is None or found.dtype != kind or found.shape != shape:
        what = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
        raise ModelError(f"{name} is {what}, expected {np.dtype(kind)}{list(shape)}")
    return np.ascontiguousarray(found)
