"""The architecture, written once over an arithmetic.

Every function takes `ops`, which knows the weights and what a number is:

    layers.Float        float32 in TensorFlow: the transforms
    layers.Quantised    float in TensorFlow, rounded as the integers will be: the prior, in training
    integer.Exact       integers in NumPy: the prior, in every encoder and decoder
    layers.Shapes       no numbers at all: collects weight shapes and counts multiply-accumulates

so that what is trained and what decodes cannot drift apart.  Arrays are channels-last: [..., h, w, C].
Letters: H W pixels, of C samples each; h = H/16, w = W/16 latent cells; M = 256 C latent channels.
"""

from __future__ import annotations

from typing import Any

from vaecodec.config import Config

Array = Any
PASSED = 8  # channels that the network of an octave hands to each cell of the next finer one


def block(ops: Any, name: str, x: Array) -> Array:
    """[..., h, w, C] -> the same: a depthwise-separable residual block, then a gated pointwise one."""
    channels = ops.channels(x)
    t = ops.dense(f"{name}/in", x, channels, relu=True)
    t = ops.depthwise(f"{name}/space", t)
    x = ops.add(x, ops.dense(f"{name}/out", t, channels, small=True))
    t = ops.gate(f"{name}/gate", x)
    return ops.add(x, ops.dense(f"{name}/mix", t, channels, small=True))


def analysis(ops: Any, config: Config, x: Array) -> Array:
    """g_a: [..., H, W, C] in [-1/2, 1/2], H and W multiples of 16 -> y [..., h, w, M].

    Wavelet coefficients carry the picture, and the network adds what a linear transform cannot do.
    """
    return ops.add(analysis_residual(ops, config, x), ops.coefficients(x))


def analysis_residual(ops: Any, config: Config, x: Array) -> Array:
    """What the network adds to the coefficients, [..., h, w, M]."""
    t = ops.dense("analysis/fine", ops.unshuffle(x, 8), config.fine)
    t = ops.condition("analysis/fine", t)
    for n in range(config.fine_blocks):
        t = block(ops, f"analysis/fine{n}", t)
    t = ops.dense("analysis/coarse", ops.unshuffle(t, 2), config.coarse)
    for n in range(config.coarse_blocks):
        t = block(ops, f"analysis/coarse{n}", t)
    return ops.dense("analysis/latents", ops.condition("analysis/out", t), config.latents, small=True)


def synthesis(ops: Any, config: Config, y: Array) -> Array:
    """g_s: y [..., h, w, M] -> [..., H, W, C] in [-1/2, 1/2] up to overshoot: the mirror image of analysis."""
    linear = ops.samples(y)
    return ops.add(linear, synthesis_residual(ops, config, y, linear))


def synthesis_residual(ops: Any, config: Config, y: Array, linear: Array) -> Array:
    """What the network adds to the picture [..., H, W, C] that is `linear` in y, and which it sees, too."""
    seen = ops.dense("synthesis/skip", ops.unshuffle(linear, 8), config.fine)
    t = ops.dense("synthesis/latents", y, config.coarse)
    for n in range(config.coarse_blocks):
        t = block(ops, f"synthesis/coarse{n}", t)
    t = ops.shuffle(ops.dense("synthesis/coarse", t, 4 * config.fine), 2)
    t = ops.condition("synthesis/fine", ops.add(t, seen))
    for n in range(config.fine_blocks):
        t = block(ops, f"synthesis/fine{n}", t)
    t = ops.condition("synthesis/out", t)
    return ops.shuffle(ops.dense("synthesis/fine", t, 64 * config.channels, small=True), 8)


def octave_features(ops: Any, config: Config, octave: int, seen: Array) -> Array:
    """What is known before an octave's bands, of cells of 2x2 positions, [..., h, w, n] -> features [..., prior].

    `seen` are the details of the low-pass picture, 4 C, and the bands of the next coarser octave, 3 C, both companded;
    what that octave's network passes on, PASSED (of octave 4 there is none); and the magnitudes of the first 7 C.
    """
    t = ops.dense(f"context/{octave}/in", seen, config.prior_of(octave))
    return block(ops, f"context/{octave}/block", ops.condition(f"context/{octave}", t))


def octave_first(ops: Any, config: Config, octave: int, features: Array) -> tuple[Array, Array]:
    """(means, scale indices) [..., 6 C] of the first half of an octave's coefficients."""
    return ops.distribution(f"context/{octave}/first", features, 6 * config.channels)


def octave_second(ops: Any, config: Config, octave: int, features: Array, known: Array) -> tuple[Array, ...]:
    """The same of the second half, and, but of octave 0, what is passed on to the next finer one, of the four cells
    in the place of one, [..., 4 PASSED]; `known` [..., 12 C] is the first half, companded, and its magnitudes."""
    t = ops.add(features, ops.dense(f"context/{octave}/known", known, config.prior_of(octave)))
    t = block(ops, f"context/{octave}/after", t)
    found = ops.distribution(f"context/{octave}/second", t, 6 * config.channels)
    return (*found, ops.dense(f"context/{octave}/pass", t, 4 * PASSED)) if octave else found


def lowest_part(ops: Any, config: Config, part: int, seen: Array) -> tuple[Array, Array]:
    """(means, less those of their four neighbours, scale indices) [..., C] of a part of the lowest coefficients.

    `seen` [..., 10 C] are those neighbours less their mean, and the mean, companded, and the magnitudes of all these.
    """
    t = ops.dense(f"lowest/{part}/in", seen, config.hyper_width)
    t = ops.rectify(ops.condition(f"lowest/{part}", t))
    t = ops.dense(f"lowest/{part}/middle", t, config.hyper_width, relu=True)
    return ops.distribution(f"lowest/{part}/out", t, config.channels)
