"""Define and load generative models: a VAE of small images, its architecture written once over an arithmetic.

    x --encoder--> posterior Normal(mean, scale)      z ~ Normal(0, 1)
    z --decoder--> features --likelihood, four phases--> x

Pixels are coded in four phases, the corners of each 2x2 square.  A phase sees the latent and the phases before it, so
the latent holds what an image shows, and the phases hold what neighbouring pixels share.

Letters: S side of an image in pixels; L latents; C width; F width at S/2; K parameters of a density.  Arrays are
[B, h, w, channels]; `ops` is grid_layers.Quantised in training, exact.Exact in use, grid_layers.Shapes for neither.

Tensors of a model file:

    integer/*      kernels and biases of encoder, decoder, phases and values
    discrete/*     tables of `discrete`
    calibration/*  quantiles of scores (see generative.scoring)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from vaecodec.entropy.tables import TOTAL
from vaecodec.errors import require
from vaecodec.model.discrete import FORMATS, VALUES, Tables
from vaecodec.model.exact import Exact, Layer, prepare
from vaecodec.model.network import Arithmetic

Array = Any

PHASES = 4
ORDER = (0, 3, 1, 2)  # of the corners, which unshuffle numbers by rows: top left first, then bottom right
LATENT_BITS = 8  # latents enter the decoder in units of 2**-8: an activation unit, four times enlarged
MAX_INTEGERS = 1 << 24  # entries of all integer layers


@dataclass(frozen=True)
class Generative:
    """Widths and depths of one model; two models with equal fields have the same architecture."""

    kind: ClassVar[str] = "generative"  # tells the JSON of this architecture from that of Config

    side: int = 28  # S, a multiple of 4
    latents: int = 32  # L
    width: int = 56  # C, at S/4
    blocks: int = 2
    squeezed: int = 8  # channels at S/4 before the latents
    expanded: int = 12  # channels at S/4 after the latents
    fine: int = 32  # F, at S/2
    natural: int = 6  # K

    def to_dict(self) -> dict[str, Any]:
        """The kind and the fields as a JSON-ready mapping."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Generative:
        """The inverse of to_dict; raises ValueError on a missing, unknown or non-positive field."""
        names = {field.name for field in fields(cls)}
        if set(values) != names | {"kind"} or values["kind"] != cls.kind:
            raise ValueError(f"config has fields {sorted(values)}, expected kind {cls.kind} and {sorted(names)}")
        values = {name: value for name, value in values.items() if name != "kind"}
        for name, value in values.items():
            if type(value) is not int or not 1 <= value <= 1024:
                raise ValueError(f"config field {name} is {value!r}, expected an integer in 1..1024")
        if values["side"] % 4 or values["side"] > 64:
            raise ValueError(f"config field side is {values['side']}, expected a multiple of 4 up to 64")
        return cls(**values)

    @property
    def cells(self) -> int:
        """S/4."""
        return self.side // 4


GENERATIVE = {"digits": Generative()}


class GridArithmetic(Arithmetic, Protocol):
    """Adds operations over all cells of an image."""

    def mix(self, name: str, x: Array) -> Array:
        """A linear layer from cells to cells, the same for every channel."""

    def neighbours(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, h, w, 9C]: the 3x3 cells around each, zeros outside."""

    def flatten(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, 1, 1, h * w * C]."""

    def unflatten(self, x: Array, side: int) -> Array:
        """[B, 1, 1, side * side * C] -> [B, side, side, C]."""

    def concat(self, x: Array, y: Array) -> Array:
        """Channels of both."""


def residual(ops: GridArithmetic, name: str, x: Array, everywhere: bool) -> Array:
    """[B, h, w, C] -> the same: adds to each cell a function of its 3x3 neighbours, or of all cells (`everywhere`).

    The latter is one linear layer from cells to cells, the same for all channels (Tolstikhin et al. 2021, section 2),
    so that one latent moves a whole figure.
    """
    channels = ops.channels(x)
    t = ops.dense(f"{name}/in", x, channels, relu=True)
    t = ops.mix(f"{name}/cells", t) if everywhere else ops.depthwise(f"{name}/space", t)
    return ops.add(x, ops.dense(f"{name}/out", t, channels, small=True))


def encoder(ops: GridArithmetic, config: Generative, x: Array) -> Array:
    """x [B, S, S, 1] in units of 2**-6 -> [B, 1, 1, 2L]: means of z, then logarithms of its scales."""
    t = ops.dense("encoder/in", ops.unshuffle(x, 4), config.width)
    for n in range(config.blocks):
        t = residual(ops, f"encoder/block{n}", t, n % 2 == 1)
    t = ops.dense("encoder/squeeze", t, config.squeezed, relu=True)
    return ops.dense("encoder/out", ops.flatten(t), 2 * config.latents, small=True)


def decoder(ops: GridArithmetic, config: Generative, z: Array) -> Array:
    """z [B, 1, 1, L] -> features [B, S/2, S/2, F]."""
    t = ops.dense("decoder/in", z, config.expanded * config.cells**2)
    t = ops.dense("decoder/expand", ops.unflatten(t, config.cells), config.width)
    for n in range(config.blocks):
        t = residual(ops, f"decoder/block{n}", t, n % 2 == 0)
    return ops.shuffle(ops.dense("decoder/out", t, 4 * config.fine), 2)


def phase(ops: GridArithmetic, config: Generative, number: int, features: Array, before: Array | None) -> Array:
    """Parameters [B, S/2, S/2, 1 + K] of the pixels of a phase.

    `before` [B, S/2, S/2, n] holds the pixels of earlier phases, in units of 2**-6.
    """
    name, t = f"phase{number}", features
    if before is not None:
        t = ops.concat(t, ops.neighbours(before))
    t = ops.dense(f"{name}/in", t, config.fine, relu=True)
    t = ops.dense(f"{name}/middle", t, config.fine, relu=True)
    return ops.dense(f"{name}/out", t, 1 + config.natural, small=True)


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
    def ops(self) -> Exact:
        """The arithmetic of its networks."""
        return Exact(self.layers)


def build_generator(
    name: str, model_id: str, config: Generative, arrays: dict[str, np.ndarray], notes: dict[str, Any]
) -> Generator:
    """A model from the contents of its file; raises ModelError if tensors do not fit, KeyError if one is missing."""
    prefix = "integer/"
    weights = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    require(sum(array.size for array in weights.values()) <= MAX_INTEGERS, "its integer layers are too large")
    for layer, array in weights.items():
        dtype = "<i4" if layer.endswith("/bias") else "<i2"
        require(array.dtype.str == dtype, f"{prefix}{layer} has type {array.dtype}, expected {np.dtype(dtype)}")
    layers = prepare(weights)
    tables = Tables(*(arrays[f"discrete/{field}"] for field in Tables._fields))
    _check_tables(tables)
    _check_networks(config, layers)
    return Generator(name, model_id, config, layers, tables, arrays, notes)


def _check_tables(tables: Tables) -> None:
    """Raise ModelError on types, shapes, ranges and orders that `discrete` does not expect."""
    for name, expected in FORMATS.items():
        table = getattr(tables, name)
        actual = f"discrete/{name} has shape {list(table.shape)} and type {table.dtype}"
        fits = table.shape == (expected.length,) and table.dtype == expected.dtype
        require(fits, f"{actual}, expected [{expected.length}] and {np.dtype(expected.dtype)}")
        require(expected.low <= table.min() and table.max() <= expected.high, f"discrete/{name} is out of range")
    for name in ("edges", "cumulative"):
        require((np.diff(getattr(tables, name)) >= 0).all(), f"discrete/{name} falls")
    require(tables.cumulative[0] == 0 and tables.cumulative[-1] == TOTAL, "discrete/cumulative does not end in 1")


class _CheckedShapes(Exact):
    """Exact arithmetic that compares the shape of each layer with its inputs before using it."""

    def expect(self, name: str, *shape: int) -> None:
        kernel, bias = self.layers[name].kernel, self.layers[name].bias
        fits = kernel.shape == shape and bias.shape == shape[-1:]
        require(fits, f"integer/{name} has shape {list(kernel.shape)}, expected {list(shape)}")

    def dense(self, name: str, x: np.ndarray, channels: int, relu: bool = False, small: bool = False) -> np.ndarray:
        self.expect(name, x.shape[-1], channels)
        return super().dense(name, x, channels, relu, small)

    def depthwise(self, name: str, x: np.ndarray) -> np.ndarray:
        self.expect(name, 3, 3, x.shape[-1])
        return super().depthwise(name, x)

    def mix(self, name: str, x: np.ndarray) -> np.ndarray:
        self.expect(name, x.shape[1] * x.shape[2], x.shape[1] * x.shape[2])
        return super().mix(name, x)


def _check_networks(config: Generative, layers: dict[str, Layer]) -> None:
    """Run the networks over one image of zeros; raises ModelError, or KeyError if a layer is missing."""
    ops = _CheckedShapes(layers)
    encoder(ops, config, np.zeros((1, config.side, config.side, 1), np.float32))
    features = decoder(ops, config, np.zeros((1, 1, 1, config.latents), np.float32))
    for number in range(PHASES):
        before = np.zeros((*features.shape[:3], number), np.float32) if number else None
        phase(ops, config, number, features, before)
    ops.expect("values", config.natural, VALUES)
