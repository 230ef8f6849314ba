"""What a model file must be before anything is computed with it: whoever made it may wish harm.

The id tells damage from another model, not a good model from a bad one: anyone can compute it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vaecodec import network, tables
from vaecodec.coding import SYMBOL_MAX
from vaecodec.config import ANCHORS, LEVELS, MAX_SCALES, Config
from vaecodec.context import Prior
from vaecodec.errors import ModelError
from vaecodec.integer import ACTIVATION_MAX, Exact
from vaecodec.octaves import Levels, Scaled
from vaecodec.pyramid import LOWEST, OCTAVES
from vaecodec.strays import FLAG
from vaecodec.tables import Tables

Arrays = Mapping[str, np.ndarray]

MAX_INTEGERS = 1 << 24  # entries of all integer layers
# With these, and kernels and biases of 16 and 32 bits, all that `octaves` and `integer` compute beyond what
# integer.prepare bounds stays below 2**53.
LEVEL_MAX = {"inverse_gain": 2**27, "bias": 2**20, "lowest": 2**20, "start": 2**16}
COMPANDED_MAX = 1 << 16  # entries of the table that activations of values are looked up in, on either side of 0
ANCHOR_MAX = 40.0  # of a logarithm: its exponential is finite, and so is that of its negative


def require(condition: Any, message: str) -> None:
    """Raises ModelError with `message` unless `condition` holds."""
    if not condition:
        raise ModelError(message)


def check_arrays(config: Config, arrays: Arrays) -> None:
    """Types, shapes and ranges of all but the shapes of layers; raises ModelError, or KeyError on what is missing."""
    _check_tables(arrays)
    check_integers(arrays)
    _check_octaves(arrays)
    bands = 3 * (OCTAVES + 1) * config.channels
    widths = {"bias": config.prior + OCTAVES * config.coarser, "lowest": len(LOWEST) * config.hyper_width}
    widths |= {"start": 2 * config.channels, "inverse_gain": bands}
    for name, width in widths.items():
        _check_shape(arrays, f"levels/{name}", (LEVELS, width), "<i4")
        level = arrays[f"levels/{name}"].astype(np.int64)
        require(np.abs(level).max() <= LEVEL_MAX[name], f"levels/{name} is out of range")
    anchors = {"inverse_gain": config.latents, "synthesis/fine": config.fine, "synthesis/out": config.fine}
    optional = {"gain": config.latents, "analysis/fine": config.fine, "analysis/out": config.coarse}
    anchors.update({name: width for name, width in optional.items() if f"anchors/{name}" in arrays})
    for name, width in anchors.items():
        _check_shape(arrays, f"anchors/{name}", (ANCHORS, width), "<f4")
        require((np.abs(arrays[f"anchors/{name}"]) <= ANCHOR_MAX).all(), f"anchors/{name} is out of range")
    for name, array in arrays.items():
        if name.startswith("weights/"):
            require(array.dtype.str == "<f2", f"{name} has type {array.dtype}, expected float16")
            exponent = array.view(np.uint16) & 0x7C00  # many times as fast as np.isfinite
            require((exponent != 0x7C00).all(), f"{name} has values that are not finite")
        elif name.startswith("start/"):
            require(array.dtype.str == "<f4" and np.isfinite(array).all(), f"{name} is not finite float32")
        elif name.startswith("litert/"):
            require(array.dtype == np.uint8 and array.ndim == 1, f"{name} is not bytes")


def _check_octaves(arrays: Arrays) -> None:
    """What octaves has beside levels and layers."""
    steps = arrays["companding"]
    require(
        steps.dtype.str == "<i4" and steps.ndim == 1 and 1 <= len(steps) <= ACTIVATION_MAX, "companding is no i32[n]"
    )
    require(steps[0] > 0 and (np.diff(steps) > 0).all() and steps[-1] <= COMPANDED_MAX, "companding does not rise")
    _check_shape(arrays, "centroids", (len(arrays["tables/low"]) - 1, 2), "|i1")
    require((arrays["levels/inverse_gain"] > 0).all(), "levels/inverse_gain is not above 0")
    require(len(arrays["tables/low"]) > FLAG + 1, "it has no row for flags")


def check_integers(arrays: Arrays) -> None:
    """Types and number of the weights of integer layers; raises ModelError."""
    integers = {name: array for name, array in arrays.items() if name.startswith("integer/")}
    require(sum(array.size for array in integers.values()) <= MAX_INTEGERS, "its integer layers are too large")
    for name, array in integers.items():
        wanted = "<i4" if name.endswith("/bias") else "<i2"
        require(array.dtype.str == wanted, f"{name} has type {array.dtype}, expected {np.dtype(wanted)}")


def _check_tables(arrays: Arrays) -> None:
    found = Tables(*(arrays[f"tables/{name}"] for name in Tables._fields))
    tables.check(found)
    count = len(found.low)
    require(1 < count <= 1 + MAX_SCALES, f"it has {count} probability tables, expected 2 to {1 + MAX_SCALES}")
    low = found.low.astype(np.int64)
    reach = max(-low.min(), (low + found.last - 1).max())
    require(reach <= SYMBOL_MAX, f"its tables reach to symbol {reach}, expected at most {SYMBOL_MAX}")
    uniform = found.row(count - 1)
    require(low[-1] == 0 and len(uniform) == 256 and (uniform == 1 << 16).all(), "the last row is not that of bytes")


def _check_shape(arrays: Arrays, name: str, shape: tuple[int, ...], kind: str) -> None:
    found = arrays[name]
    require(
        found.shape == shape and found.dtype.str == kind,
        f"{name} has shape {found.shape} and type {found.dtype}, expected {shape} and {np.dtype(kind)}",
    )


class Fitting(Exact):
    """The arithmetic of the prior, which looks at the shape of each layer before it uses it."""

    def _expect(self, name: str, *shape: int) -> None:
        layer = self.layers[name]
        require(
            layer.kernel.shape == shape and layer.bias.shape == shape[-1:],
            f"integer/{name} has shape {list(layer.kernel.shape)}, expected {list(shape)}",
        )

    def dense(self, name: str, x: np.ndarray, channels: int, relu: bool = False, small: bool = False) -> np.ndarray:
        self._expect(name, x.shape[-1], channels)
        return super().dense(name, x, channels, relu, small)

    def depthwise(self, name: str, x: np.ndarray) -> np.ndarray:
        self._expect(name, 3, 3, x.shape[-1])
        return super().depthwise(name, x)

    def gate(self, name: str, x: np.ndarray) -> np.ndarray:
        self._expect(name, x.shape[-1], 2 * x.shape[-1])
        return super().gate(name, x)


class FittingOctaves(Fitting, Scaled):
    """The same for the octaves."""

    def distribution(self, name: str, x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        self._expect(name, x.shape[-1], 2 * count)
        return super().distribution(name, x, count)


def check_prior(prior: Prior) -> None:
    """Runs the prior's networks over one cell; raises ModelError, or KeyError where a layer is missing."""
    config, channels = prior.config, prior.config.channels
    ops = FittingOctaves(prior.layers, Levels(*(field[0] for field in prior.levels)))
    for octave in range(OCTAVES + 1):
        count = 14 * channels + network.PASSED * (octave < OCTAVES)
        features = network.octave_features(ops, config, octave, np.zeros((1, 1, count), np.float32))
        network.octave_first(ops, config, octave, features)
        network.octave_second(ops, config, octave, features, np.zeros((1, 1, 12 * channels), np.float32))
    for part in range(len(LOWEST)):
        network.lowest_part(ops, config, part, np.zeros((1, 1, 10 * channels), np.float32))
