"""Define the architecture of photograph models, once, over an arithmetic; and the arithmetic of generative models.

Every function takes `ops`, an arithmetic that holds the weights and defines what a number is, so that the networks that
are trained and those that are deployed cannot differ:

    training.layers.Float              float32 in TensorFlow: the transforms in training
    training.layers.Quantised          floats rounded as the integers of the core: the prior in training
    rdo.float_decoder.Reverse          floats with gradients by their inputs, in NumPy: encoders
    Exact                              integers in NumPy: generative models
    training.layers.Shapes             no numbers: collects shapes of weights and counts multiply-accumulates

Arrays are channels-last: [..., h, w, C].  H W are pixels of C samples each; h = H/16, w = W/16 latent cells; M = 256 C
latent channels.

`Exact` computes with integers that are carried in floats.  A matrix product of integers is exact in any order of
summation, in any library and with any number of threads, if no partial sum can reach 2**24 (float32) or 2**53
(float64).  The bound follows from the weights: `prepare` checks it and picks the type.

    activations   11 bits and sign, unit 2**-6
    weights       unit 2**-9
    products      unit 2**-15, rounded to 2**-6 with halves up
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from vaecodec.config import Config
from vaecodec.errors import ModelError

Array = Any
PASSED = 8  # channels that the network of an octave passes on to each cell of the next finer one


class Arithmetic(Protocol):
    """Operations of all networks; `name` is that of a layer's weights."""

    def channels(self, x: Array) -> int: ...

    def dense(self, name: str, x: Array, channels: int, relu: bool = False, small: bool = False) -> Array:
        """A linear layer of each cell, [..., C] -> [..., channels]; initial weights are `small` near an output."""

    def depthwise(self, name: str, x: Array) -> Array:
        """A 3x3 convolution of each channel."""

    def gate(self, name: str, x: Array) -> Array:
        """relu(a) * b, where a and b are the halves of a linear layer."""

    def add(self, x: Array, y: Array) -> Array: ...

    def shuffle(self, x: Array, r: int) -> Array:
        """[..., h, w, r * r * C] -> [..., h * r, w * r, C]."""

    def unshuffle(self, x: Array, r: int) -> Array:
        """The inverse of shuffle."""


class ConditionedArithmetic(Arithmetic, Protocol):
    """Adds `condition`: multiplies by a vector of a quality, or adds one."""

    def condition(self, name: str, x: Array) -> Array: ...


class AnalysisArithmetic(ConditionedArithmetic, Protocol):
    """Adds `forward_dwt`: colour transform and wavelet, [..., H, W, C] -> [..., h, w, M]."""

    def forward_dwt(self, x: Array) -> Array: ...


class SynthesisArithmetic(ConditionedArithmetic, Protocol):
    """Adds `inverse_dwt`, the inverse of forward_dwt."""

    def inverse_dwt(self, y: Array) -> Array: ...


class PriorArithmetic(ConditionedArithmetic, Protocol):
    """Adds outputs of the prior: `distribution` makes means and scale indices, [..., count] each."""

    def rectify(self, x: Array) -> Array: ...

    def distribution(self, name: str, x: Array, count: int) -> tuple[Array, ...]: ...


def block(ops: Arithmetic, name: str, x: Array) -> Array:
    """[..., h, w, C] -> the same: a depthwise-separable residual block, then a gated pointwise one."""
    channels = ops.channels(x)
    t = ops.dense(f"{name}/in", x, channels, relu=True)
    t = ops.depthwise(f"{name}/space", t)
    x = ops.add(x, ops.dense(f"{name}/out", t, channels, small=True))
    t = ops.gate(f"{name}/gate", x)
    return ops.add(x, ops.dense(f"{name}/mix", t, channels, small=True))


def analysis(ops: AnalysisArithmetic, config: Config, x: Array) -> Array:
    """g_a: [..., H, W, C] in [-1/2, 1/2], H and W multiples of 16 -> y [..., h, w, M]."""
    return ops.add(analysis_residual(ops, config, x), ops.forward_dwt(x))


def analysis_residual(ops: ConditionedArithmetic, config: Config, x: Array) -> Array:
    """What the network adds to the wavelet coefficients, [..., h, w, M]."""
    config = config.of_analysis
    t = ops.dense("analysis/fine", ops.unshuffle(x, 8), config.fine)
    t = ops.condition("analysis/fine", t)
    for n in range(config.fine_blocks):
        t = block(ops, f"analysis/fine{n}", t)
    t = ops.dense("analysis/coarse", ops.unshuffle(t, 2), config.coarse)
    for n in range(config.coarse_blocks):
        t = block(ops, f"analysis/coarse{n}", t)
    return ops.dense("analysis/latents", ops.condition("analysis/out", t), config.latents, small=True)


def synthesis(ops: SynthesisArithmetic, config: Config, y: Array) -> Array:
    """g_s: y [..., h, w, M] -> [..., H, W, C] in [-1/2, 1/2] up to overshoot: the mirror image of analysis."""
    linear = ops.inverse_dwt(y)
    return ops.add(linear, synthesis_residual(ops, config, y, linear))


def synthesis_residual(ops: ConditionedArithmetic, config: Config, y: Array, linear: Array) -> Array:
    """What the network adds to `linear` [..., H, W, C], the inverse wavelet of y, which is also its input."""
    skip = ops.dense("synthesis/skip", ops.unshuffle(linear, 8), config.fine)
    t = ops.dense("synthesis/latents", y, config.coarse)
    for n in range(config.coarse_blocks):
        t = block(ops, f"synthesis/coarse{n}", t)
    t = ops.shuffle(ops.dense("synthesis/coarse", t, 4 * config.fine), 2)
    t = ops.condition("synthesis/fine", ops.add(t, skip))
    for n in range(config.fine_blocks):
        t = block(ops, f"synthesis/fine{n}", t)
    t = ops.condition("synthesis/out", t)
    return ops.shuffle(ops.dense("synthesis/fine", t, 64 * config.channels, small=True), 8)


def octave_features(ops: PriorArithmetic, config: Config, octave: int, context: Array) -> Array:
    """Context of an octave, [..., h, w, n] of cells of 2x2 positions -> features [..., prior].

    The context is, in this order: 4 C details of the low-pass image and 3 C values of the next coarser octave, both
    companded; the PASSED channels of that octave's network (octave 4 has none); and magnitudes of the first 7 C.
    """
    t = ops.dense(f"context/{octave}/in", context, config.prior_of(octave))
    return block(ops, f"context/{octave}/block", ops.condition(f"context/{octave}", t))


def octave_first(ops: PriorArithmetic, config: Config, octave: int, features: Array) -> tuple[Array, ...]:
    """(means, scale indices) [..., 6 C] of the first half of an octave's coefficients."""
    return ops.distribution(f"context/{octave}/first", features, 6 * config.channels)


def octave_second(
    ops: PriorArithmetic, config: Config, octave: int, features: Array, first: Array
) -> tuple[Array, ...]:
    """(means, scale indices) of the second half; but for octave 0 also [..., 4 PASSED] for the next finer octave.

    `first` [..., 12 C] is the first half, companded, and its magnitudes.  The passed channels are those of the four
    finer cells in the place of one.
    """
    t = ops.add(features, ops.dense(f"context/{octave}/known", first, config.prior_of(octave)))
    t = block(ops, f"context/{octave}/after", t)
    distribution = ops.distribution(f"context/{octave}/second", t, 6 * config.channels)
    return (*distribution, ops.dense(f"context/{octave}/pass", t, 4 * PASSED)) if octave else distribution


def lowest_part(ops: PriorArithmetic, config: Config, part: int, context: Array) -> tuple[Array, ...]:
    """(means less those of their four neighbours, scale indices) [..., C] of a part of the lowest coefficients.

    The context [..., 10 C] is: four neighbours less their mean, and the mean, companded; and magnitudes of all these.
    """
    t = ops.dense(f"lowest/{part}/in", context, config.hyper_width)
    t = ops.rectify(ops.condition(f"lowest/{part}", t))
    t = ops.dense(f"lowest/{part}/middle", t, config.hyper_width, relu=True)
    return ops.distribution(f"lowest/{part}/out", t, config.channels)


ACTIVATION_BITS = 6
ACTIVATION_MAX = 1023
WEIGHT_BITS = 9
PRODUCT_BITS = ACTIVATION_BITS + WEIGHT_BITS
LOC_GAIN = 4.0  # means reach further than activations: +-64
INDEX_GAIN = 8.0  # an activation of 1 is 8 scale indices
GAIN_BITS = 10  # unit of gains: 2**-10

EXACT32, EXACT64 = 2**24, 2**53


class Layer(NamedTuple):
    """Kernel and bias in the float type that keeps every sum exact.

    If only the outputs `wide` need float64, `narrow` is the kernel in float32 for the others.
    """

    kernel: np.ndarray
    bias: np.ndarray
    narrow: np.ndarray | None = None
    wide: np.ndarray | None = None

    def product(self, x: np.ndarray, outputs: slice = slice(None)) -> np.ndarray:
        """[n, C] -> [n, K], or a slice of these outputs, with bias, in a type that holds them."""
        if self.narrow is None or self.wide is None:
            t = x.astype(self.kernel.dtype, copy=False) @ self.kernel[:, outputs]
        else:
            t = x @ self.narrow[:, outputs]
            first, last, _ = outputs.indices(self.kernel.shape[1])
            wide = self.wide[(self.wide >= first) & (self.wide < last)]
            if len(wide):
                t = t.astype(np.float64)
                t[:, wide - first] = x.astype(np.float64) @ self.kernel[:, wide]
        t += self.bias[outputs].astype(t.dtype, copy=False)
        return t


def prepare(weights: Mapping[str, np.ndarray]) -> dict[str, Layer]:
    """Layers by name, in the cheapest exact type, from integer kernels (unit 2**-9) and biases (unit 2**-15).

    Raises ModelError if even float64 could round.
    """
    layers = {}
    for key, value in weights.items():
        name, part = key.rsplit("/", 1)
        if part == "bias":
            continue
        kernel, bias = value.astype(np.float64), weights[f"{name}/bias"].astype(np.float64)
        # Rounding adds half a unit, which must be exact as well.
        bounds = np.abs(kernel).sum(tuple(range(kernel.ndim - 1))) * ACTIVATION_MAX + np.abs(bias) + 2**WEIGHT_BITS
        if bounds.max() >= EXACT64:
            raise ModelError(f"integer layer {name} can reach {bounds.max():.3g}, beyond exact float64")
        wide = np.flatnonzero(bounds >= EXACT32)
        dtype = np.float64 if len(wide) else np.float32
        layer = Layer(np.ascontiguousarray(kernel, dtype), bias.astype(dtype))
        if 0 < len(wide) < len(bounds) and kernel.ndim == 2:
            layer = layer._replace(narrow=np.ascontiguousarray(kernel, np.float32), wide=wide)
        layers[name] = layer
    return layers


def shift(x: np.ndarray, bits: int) -> np.ndarray:
    """round(x / 2**bits), halves up, in place; exact for integers that the float type carries with a bit to spare."""
    x *= 2.0**-bits
    x += 0.5
    return np.floor(x, out=x)


def depthwise(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """[..., h, w, C] convolved channel by channel with [3, 3, C], zero padding, in the kernel's type."""
    *batch, height, width, channels = x.shape
    padded = np.zeros((*batch, height + 2, width + 2, channels), kernel.dtype)
    padded[..., 1:-1, 1:-1, :] = x
    total = padded[..., :height, :width, :] * kernel[0, 0]
    term = np.empty_like(total)
    for n in range(1, 9):
        top, left = divmod(n, 3)
        np.multiply(padded[..., top : top + height, left : left + width, :], kernel[top, left], out=term)
        total += term
    return total


def shuffle(x: np.ndarray, r: int) -> np.ndarray:
    """[..., h, w, r * r * C] -> [..., h * r, w * r, C]."""
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height, width, r, r, channels // (r * r)).swapaxes(-4, -3)
    return np.ascontiguousarray(x).reshape(*batch, height * r, width * r, -1)


def unshuffle(x: np.ndarray, r: int) -> np.ndarray:
    """The inverse of shuffle."""
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height // r, r, width // r, r, channels).swapaxes(-4, -3)
    return np.ascontiguousarray(x).reshape(*batch, height // r, width // r, -1)


class Exact:
    """Implements generative.GridArithmetic on integer-valued floats [B, h, w, C], unit 2**-6."""

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self.layers = layers

    def _clip(self, x: np.ndarray, low: float = -ACTIVATION_MAX) -> np.ndarray:
        return np.clip(x, low, ACTIVATION_MAX, out=x)

    def _round(self, x: np.ndarray, low: float = -ACTIVATION_MAX) -> np.ndarray:
        return self._clip(shift(x, WEIGHT_BITS), low).astype(np.float32, copy=False)

    def channels(self, x: np.ndarray) -> int:
        return x.shape[-1]

    def dense(self, name: str, x: np.ndarray, channels: int, relu: bool = False, small: bool = False) -> np.ndarray:
        t = self.layers[name].product(x.reshape(-1, x.shape[-1]))
        return self._round(t, 0 if relu else -ACTIVATION_MAX).reshape(*x.shape[:-1], channels)

    def depthwise(self, name: str, x: np.ndarray) -> np.ndarray:
        t = depthwise(x, self.layers[name].kernel)
        t += self.layers[name].bias
        return self._round(t)

    def gate(self, name: str, x: np.ndarray) -> np.ndarray:
        rows, middle = x.reshape(-1, x.shape[-1]), x.shape[-1]
        t = self._round(self.layers[name].product(rows, slice(0, middle)), 0)
        t *= self._round(self.layers[name].product(rows, slice(middle, None)))
        return self._clip(shift(t, ACTIVATION_BITS)).reshape(x.shape)

    def mix(self, name: str, x: np.ndarray) -> np.ndarray:
        batch, height, width, channels = x.shape
        rows = x.reshape(batch, height * width, channels).transpose(0, 2, 1).reshape(-1, height * width)
        t = self._round(self.layers[name].product(rows)).reshape(batch, channels, height * width)
        return t.transpose(0, 2, 1).reshape(x.shape)

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Overwrites y."""
        y += x
        return self._clip(y)

    def shuffle(self, x: np.ndarray, r: int) -> np.ndarray:
        return shuffle(x, r)

    def unshuffle(self, x: np.ndarray, r: int) -> np.ndarray:
        return unshuffle(x, r)

    def neighbours(self, x: np.ndarray) -> np.ndarray:
        height, width = x.shape[1:3]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        parts = [padded[:, t : t + height, s : s + width] for t in range(3) for s in range(3)]
        return np.concatenate(parts, -1)

    def flatten(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), 1, 1, -1)

    def unflatten(self, x: np.ndarray, side: int) -> np.ndarray:
        return x.reshape(len(x), side, side, -1)

    def concat(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.concatenate([x, y], -1)
