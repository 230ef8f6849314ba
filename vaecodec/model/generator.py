"""The frozen generative model: exact networks and tables, looked through before anything is computed with them.

integer/*      kernels and biases of encoder, decoder and phases, and of values: its statistics
discrete/*     tables of `discrete`                       calibration/*  quantiles of scores (see scoring)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vaecodec.entropy.tables import TOTAL
from vaecodec.model import discrete, generative, grids
from vaecodec.model.checks import check_integers, require
from vaecodec.model.discrete import EDGE_BITS, SHAPES, Tables
from vaecodec.model.generative import PHASES, VALUES, Generative
from vaecodec.transforms.integer import ACTIVATION_MAX, Layer, prepare

Arrays = Mapping[str, np.ndarray]
KINDS = Tables(*(np.dtype("<i2" if name == "centres" else "<i4") for name in Tables._fields))  # type: ignore[arg-type]
# What a table may hold: so that all of `discrete` stays below 2**53, and no sum of weights is 0.
RANGES = {
    "edges": (-(8 << EDGE_BITS), 8 << EDGE_BITS),
    "centres": (-ACTIVATION_MAX, ACTIVATION_MAX),
    "cumulative": (0, TOTAL),
    "inverse": (1, 1 << 20),
    "ink": (1, TOTAL - 1),
    "exp": (1, TOTAL),
}


class Generator(NamedTuple):
    """A frozen generative model, ready to code and to draw with."""

    name: str
    id: str  # 32 hexadecimal digits
    config: Generative
    layers: dict[str, Layer]
    tables: Tables
    arrays: dict[str, np.ndarray]  # all tensors of the file, by name
    notes: dict[str, Any]
    shipped: bool = False  # with the package

    @property
    def ops(self) -> grids.Exact:
        """The arithmetic of its networks."""
        return grids.Exact(self.layers)


def make(name: str, id: str, config: Generative, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> Generator:
    """A model from what its file says; raises ModelError, KeyError on what is missing."""
    prefix = "integer/"
    check_integers(arrays, prefix)
    layers = prepare({name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)})
    tables = Tables(*(arrays[f"discrete/{field}"] for field in Tables._fields))
    check_tables(tables)
    check_networks(config, layers)
    return Generator(name, id, config, layers, tables, arrays, notes)


def check_tables(tables: Tables) -> None:
    """Raises ModelError on types, shapes, ranges and orders that `discrete` does not expect."""
    for name, table, shape, kind in zip(Tables._fields, tables, SHAPES, KINDS, strict=True):
        low, high = RANGES[name]
        found = f"discrete/{name} has shape {list(table.shape)} and type {table.dtype}"
        require(table.shape == shape and table.dtype == kind, f"{found}, expected {list(shape)} and {kind}")
        require(low <= table.min() and table.max() <= high, f"discrete/{name} is out of range")
    for name in ("edges", "cumulative"):
        require((np.diff(getattr(tables, name)) >= 0).all(), f"discrete/{name} falls")
    require(tables.cumulative[0] == 0 and tables.cumulative[-1] == TOTAL, "discrete/cumulative does not end in 1")


class Fitting(grids.Exact):
    """grids.Exact, which looks at the shape of each layer before it uses it."""

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

    def mix(self, name: str, x: np.ndarray) -> np.ndarray:
        self._expect(name, x.shape[1] * x.shape[2], x.shape[1] * x.shape[2])
        return super().mix(name, x)


def check_networks(config: Generative, layers: dict[str, Layer]) -> None:
    """Runs the networks over one picture; raises ModelError, or KeyError where a layer is missing."""
    ops = Fitting(layers)
    generative.encoder(ops, config, np.zeros((1, config.side, config.side, 1), np.float32))
    features = generative.decoder(ops, config, np.zeros((1, 1, 1, config.latents), np.float32))
    for number in range(PHASES):
        before = np.zeros((*features.shape[:3], number), np.float32) if number else None
        out = generative.phase(ops, config, number, features, before)
    ops._expect("values", config.natural, VALUES)
    discrete.values(Tables(*[np.ones(shape, np.int32) for shape in SHAPES]), layers["values"], out[0, 0, :, 1:])
