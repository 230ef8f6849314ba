"""Define and load generative models: a VAE of small images, its architecture written once over an arithmetic.

    x --encoder--> posterior Normal(mean, scale)      z ~ Normal(0, 1)
    z --decoder--> features --likelihood, four phases--> x

Pixels are coded in four phases, the corners of each 2x2 square.  A phase sees the latent and the phases before it, so
the latent holds what an image shows, and the phases hold what neighbouring pixels share.

Letters: S side of an image in pixels; L latents; C width; F width at S/2; K parameters of a density.  Arrays are
[B, h, w, channels]; `ops` is Quantised in training and exact.Exact in use.

Tensors of a model file:

    integer/*      kernels and biases of encoder, decoder, phases and values
    discrete/*     tables of the densities
    calibration/*  quantiles of scores (see vaecodec.generative)

Densities are integer frequencies that sum to 2**24, exactly:

    posterior(means, scales)   Normal over bins of equal mass under N(0, 1)   (Townsend et al. 2019, section 2.5.1)
    ink(odds)                  whether a pixel is not 0
    values(natural)            the value of a pixel that is not 0

All their factors but powers of two come from the tables in the model file (`training.freezing`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from vaecodec.entropy import PRECISION, TOTAL
from vaecodec.errors import require
from vaecodec.model.network import ACTIVATION_MAX, Arithmetic, Exact, Layer, prepare

VALUES = 255  # of a pixel that is not 0
BINS = 10
COUNT = 1 << BINS
EDGE_BITS = 16  # edges of bins are in units of 2**-16
REACH, KNOT_BITS = 6, 6  # the cumulative Normal is tabulated within +-6, at steps of 2**-6
INVERSE_BITS = 10
SCALE_COUNT = 449  # scales 2**-6 .. 2**1, at steps of 2**(1/64)
SCALE_OFFSET = 384 - 64  # index of a scale, less the activation for its logarithm: 64 stands for 2**0
ODDS_MAX = 1023
EXP_BITS, EXP_ENTRIES = 7, 24 * 128 + 1  # powers of two at steps of 2**-7, down to 2**-24
LOGIT_BITS = 15


class Tables(NamedTuple):
    """Tables of a model; fields are the names of arrays in its file, after discrete/."""

    edges: np.ndarray  # between bins, unit 2**-16
    centres: np.ndarray  # the latent that a bin stands for, unit 2**-8
    cumulative: np.ndarray  # 2**24 times the Normal's cdf at the knots
    inverse: np.ndarray  # 1 / scale, unit 2**-10
    ink: np.ndarray  # frequency of not 0
    exp: np.ndarray  # 2**(24 - n / 128)


class TableFormat(NamedTuple):
    """Length, type and range of a table: within it all results stay below 2**53, and no sum of weights is 0."""

    length: int
    dtype: str
    low: int
    high: int


FORMATS = {
    "edges": TableFormat(COUNT - 1, "<i4", -(8 << EDGE_BITS), 8 << EDGE_BITS),
    "centres": TableFormat(COUNT, "<i2", -ACTIVATION_MAX, ACTIVATION_MAX),
    "cumulative": TableFormat(2 * REACH * 2**KNOT_BITS + 1, "<i4", 0, TOTAL),
    "inverse": TableFormat(SCALE_COUNT, "<i4", 1, 1 << 20),
    "ink": TableFormat(2 * ODDS_MAX + 1, "<i4", 1, TOTAL - 1),
    "exp": TableFormat(EXP_ENTRIES, "<i4", 1, TOTAL),
}


def posterior(tables: Tables, means: np.ndarray, log_scales: np.ndarray) -> np.ndarray:
    """Frequencies i64[n, COUNT] of the bins of Normals; means, unit 2**-8, and log-scales are activations [n].

    The cdf is linear between knots, and every bin keeps at least 1.
    """
    place = tables.edges.astype(np.int64) - (means.astype(np.int64)[:, None] << (EDGE_BITS - 8))
    scale_indices = np.clip(log_scales.astype(np.int64) + SCALE_OFFSET, 0, SCALE_COUNT - 1)
    place *= tables.inverse[scale_indices].astype(np.int64)[:, None]
    place >>= INVERSE_BITS
    np.clip(place, -REACH << EDGE_BITS, (REACH << EDGE_BITS) - 1, out=place)
    place += REACH << EDGE_BITS
    shift = EDGE_BITS - KNOT_BITS
    knot = place >> shift
    place &= (1 << shift) - 1
    steps = np.diff(tables.cumulative.astype(np.int64))
    place *= steps[knot]
    place >>= shift
    place += tables.cumulative[knot]
    place *= TOTAL - COUNT
    place >>= PRECISION
    place += np.arange(1, COUNT)
    return np.diff(place, axis=1, prepend=0, append=TOTAL)


def ink(tables: Tables, odds: np.ndarray) -> np.ndarray:
    """Frequencies i64[n, 2] of 0 and of not 0; odds are activations [n], base-2 logarithms."""
    inked = tables.ink[odds.astype(np.int64) + ODDS_MAX].astype(np.int64)
    return np.stack([TOTAL - inked, inked], -1)


def values(tables: Tables, layer: Layer, natural: np.ndarray) -> np.ndarray:
    """Frequencies i64[n, VALUES] of 1, 2, ...; natural parameters are activations [n, K].

    All IEEE 754 machines round a product and a quotient of doubles alike; floors keep the sum within 2**24.
    """
    logits = layer.product(natural).astype(np.float64, copy=False)
    np.subtract(logits.max(1, keepdims=True), logits, out=logits)
    np.minimum(logits, (EXP_ENTRIES - 1) << (LOGIT_BITS - EXP_BITS), out=logits)
    logits *= 2.0 ** (EXP_BITS - LOGIT_BITS)
    logits += 0.5
    weights = tables.exp[logits.astype(np.int64)].astype(np.float64)
    weights *= (TOTAL - VALUES) / weights.sum(1, keepdims=True)
    freq = weights.astype(np.int64)
    freq += 1
    freq[np.arange(len(freq)), freq.argmax(1)] += TOTAL - freq.sum(1)
    return freq


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
