"""Define the architecture of photograph models, once, over an arithmetic.

Every function takes `ops`, an arithmetic that holds the weights and defines what a number is, so that the networks that
are trained and those that are deployed cannot differ:

    training.layers.Float              float32 in TensorFlow: the transforms in training
    training.layers.Quantised         floats rounded as the integers of the core: the prior in training
    rdo.synthesis_gradients.Reverse    floats with gradients by their inputs, in NumPy: encoders
    exact.Exact                        integers in NumPy: generative models
    training.layers.Shapes             no numbers: collects shapes of weights and counts multiply-accumulates

Arrays are channels-last: [..., h, w, C].  H W are pixels of C samples each; h = H/16, w = W/16 latent cells; M = 256 C
latent channels.
"""

from __future__ import annotations

from typing import Any, Protocol

from vaecodec.config import Config

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
