"""VAE -> frozen model: the one bridge from training to deployment.

Entropy networks become integers, densities become tables, transforms become LiteRT flatbuffers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec import float_transforms, network, wavelet_freezing
from vaecodec.config import (
    ANCHORS,
    LEVEL_STEPS,
    LEVELS,
    SCALE_MIN,
    SCALE_RATIO,
    SCALES,
    STEPS,
    STRIDE,
    SUBSTEPS,
    Config,
)
from vaecodec.context import HYPER_GROUPS
from vaecodec.densities import conditional, factorized, masses
from vaecodec.errors import CodecError
from vaecodec.generative import Generative
from vaecodec.integer import (
    ACTIVATION_BITS,
    ACTIVATION_MAX,
    GAIN_BITS,
    INDEX_BITS,
    PRODUCT_BITS,
    WEIGHT_BITS,
    Conditions,
)
from vaecodec.layers import Float, interleaved
from vaecodec.tables import Tables, build, integer_frequencies
from vaecodec.training import averaged_weights
from vaecodec.vae import specification
from vaecodec.weights import identify, pack_model

TAIL = 2.0**-21  # a table ends where less than this is left on a side; the escape covers the rest
WIDEST = 2048
ANCHORED = {name: name for name in ("gain", "inverse_gain", "hyper_gain")}  # weights, and what anchors/* calls them
ANCHORED |= {f"{name}/condition": name for name in ("analysis/fine", "synthesis/fine")}
# What becomes tables and levels, kept for who trains on from the model; coding needs none of it.
BAKED = ("hyper/condition", "mixture/logits", "mixture/loc", "mixture/log_scale", "tail/log_ratio", "tail/logit")
Arrays = dict[str, np.ndarray]


class Deployed(Float):
    """Float with pointwise layers as 1x1 convolutions: the form that LiteRT runs fastest."""

    def __init__(self, weights: Any, conditions: Any) -> None:
        super().__init__(weights, conditions)
        self.pointwise = lambda x, kernel: tf.nn.conv2d(x, kernel[None, None], 1, "VALID")

    def lapped(self, name: str, x: Any) -> Any:
        """Padded and cropped, of which LiteRT knows the shapes when it runs, and `graphs` the operations."""
        kernel, half = tf.transpose(self.weights[f"{name}/kernel"]), STRIDE // 2
        height, width, channels = tf.shape(x)[1], tf.shape(x)[2], x.shape[3]
        t = tf.pad(x, [[0, 0], [half, half], [half, half], [0, 0]], "SYMMETRIC")
        line = (width + STRIDE) * channels
        t = tf.transpose(tf.reshape(t, [-1, STRIDE, line]), [0, 2, 1])
        t = self.pointwise(tf.reshape(t, [-1, height // STRIDE + 1, line, STRIDE]), kernel)
        t = tf.transpose(tf.reshape(t, [-1, line, STRIDE]), [0, 2, 1])
        t = tf.reshape(t, [-1, height + STRIDE, width // STRIDE + 1, STRIDE * channels])
        t = self.pointwise(t, interleaved(kernel, channels))
        t = tf.reshape(t, [-1, height + STRIDE, width + STRIDE, channels])
        t = t[:, half:-half, half:-half]
        t.set_shape(x.shape)  # which slices of unknown length forget, and space_to_depth needs
        return t

    def gate(self, name: str, x: Any) -> Any:
        """As two layers, the first of which takes its ReLU along: a split would copy both halves."""
        kernel, bias = self.weights[f"{name}/kernel"], self.weights[f"{name}/bias"]
        a, b = (self.pointwise(x, k) + c for k, c in zip(tf.split(kernel, 2, -1), tf.split(bias, 2, -1), strict=True))
        return tf.nn.relu(a) * b


def integer_weights(config: Config, weights: Arrays) -> Arrays:
    """integer/*: kernels i16 in units of 2**-9, biases i32 of 2**-15; raises CodecError on a weight beyond +-64."""
    return {f"integer/{name}": fixed_point(name, weights[name]) for name in specification(config)["prior"].weights}


def fraction_bits(name: str) -> int:
    """Bits after the binary point of an integer layer's kernel or bias."""
    return PRODUCT_BITS if name.endswith("/bias") else WEIGHT_BITS


def fixed_point(name: str, weight: np.ndarray) -> np.ndarray:
    """A kernel as i16 or a bias as i32, as its name says; raises CodecError on what does not fit."""
    kind = np.int32 if name.endswith("/bias") else np.int16
    value = np.floor(weight.astype(np.float64) * 2 ** fraction_bits(name) + 0.5)
    if not (np.abs(value) <= np.iinfo(kind).max).all():
        raise CodecError(f"weight {name} reaches {np.abs(weight).max():.3g}, beyond fixed point")
    return value.astype(kind)


def at_quality(anchors: np.ndarray, quality: float) -> np.ndarray:
    """f64[channels]: anchors f32[A, channels], linear in between, at a quality in [0, A - 1]."""
    first = min(int(quality), ANCHORS - 2)
    part = quality - first
    return anchors[first].astype(np.float64) * (1 - part) + anchors[first + 1] * part


def level_tables(config: Config, weights: Arrays) -> Arrays:
    """levels/*: the conditioning of the prior at the middle step of each level, as integers."""
    middles = np.arange(LEVELS) * LEVEL_STEPS + (LEVEL_STEPS - 1) / 2
    make = wavelet_freezing.level if config.wavelet else level
    rows = [make(weights, partial(at_quality, quality=min(one, STEPS - 1) / SUBSTEPS)) for one in middles]
    fields = zip(rows[0]._fields, zip(*rows, strict=True), strict=True)
    return {f"levels/{name}": np.rint(np.stack(values)).astype(np.int32) for name, values in fields}


def level(weights: Arrays, at: Callable[[np.ndarray], np.ndarray]) -> Conditions:
    """Conditions f64 where at(anchors) is what they come to at a quality."""
    gain, hyper = at(weights["gain"]), at(weights["hyper_gain"])
    return Conditions(
        np.clip(at(weights["hyper/condition"]) * 2**ACTIVATION_BITS, -ACTIVATION_MAX, ACTIVATION_MAX),
        np.exp(gain) * 2**GAIN_BITS,
        np.exp(-gain) * 2**GAIN_BITS,
        gain / math.log(SCALE_RATIO) * 2**INDEX_BITS,
        np.exp(-hyper) * 2**GAIN_BITS,
    )


def trimmed(low: int, mass: np.ndarray) -> tuple[int, np.ndarray]:
    """(low, frequencies) of one row, cut where next to nothing is left on either side."""
    below, above = np.cumsum(mass) < TAIL, np.cumsum(mass[::-1])[::-1] < TAIL
    begin, end = int(below.sum()), len(mass) - int(above.sum())
    if begin >= end:
        raise CodecError("a density has no mass within its table")
    return low + begin, integer_frequencies(mass[begin:end])


def frequency_tables(config: Config, weights: Arrays, first: int = 0) -> Tables:
    """Rows: the scale ladder from rung `first` on, p(z) at each half anchor and channel, and the uniform byte row."""
    double = {name: tf.constant(value, tf.float64) for name, value in weights.items()}
    rows = []
    ratios, mix = tf.exp(double["tail/log_ratio"]), tf.nn.softmax(double["tail/logit"])
    for rung in range(first, SCALES):
        reach = min(WIDEST, 2 + math.ceil(8 * SCALE_MIN * SCALE_RATIO**rung * float(tf.reduce_max(ratios))))
        density = conditional(tf.zeros([], tf.float64), tf.constant(float(rung), tf.float64), ratios, mix)
        rows.append(trimmed(-reach, masses(density, -reach, reach)))
    for group in range(HYPER_GROUPS if config.hyper else 0):
        logits, loc, log_scale = (double[f"mixture/{part}"] for part in ("logits", "loc", "log_scale"))
        gain = np.exp(at_quality(weights["hyper_gain"], group / 2))
        mass = masses(factorized(logits, loc, log_scale, tf.constant(gain)), -WIDEST, WIDEST)
        rows += [trimmed(-WIDEST, np.maximum(mass[:, channel], 0.0)) for channel in range(config.hyper)]
    # A byte row has no escape to speak of: 256 entries and the one that no coder uses would not be equal.
    rows.append((0, np.full(256, 1 << 16, np.uint32)))
    return build(rows)


def flatbuffer(function: Any, *specs: tf.TensorSpec, exact: bool = False) -> np.ndarray:
    """u8[n]: a LiteRT flatbuffer with float16 weights, or `exact` ones, and free height and width."""
    concrete = tf.function(function, input_signature=list(specs)).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if not exact:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return np.frombuffer(converter.convert(), np.uint8)


def transforms(config: Config, weights: Arrays) -> Arrays:
    """weights/* as f16 and litert/* made from the very same values."""
    parts = specification(config)
    half = {n: weights[n].astype(np.float16) for part in parts if part != "prior" for n in parts[part].weights}
    exact = {name: tf.constant(value.astype(np.float32)) for name, value in half.items()}
    out = {f"weights/{name}": value for name, value in half.items()}
    if config.wavelet:
        made = wavelet_freezing.functions(config, partial(Deployed, exact))
        return out | {f"litert/{name}": flatbuffer(function, *specs) for name, (function, specs) in made.items()}
    pixels = tf.TensorSpec([1, None, None, config.channels], tf.uint8, name="a_pixels")
    latents = tf.TensorSpec([1, None, None, config.latents], tf.float32, name="a_latents")
    vector = tf.TensorSpec([1, 1, 1, config.fine], tf.float32, name="b_condition")
    out["litert/analysis"] = flatbuffer(
        lambda x, c: float_transforms.analysis(Deployed(exact, {"analysis/fine": c}), config, x), pixels, vector
    )
    out["litert/hyper_analysis"] = flatbuffer(lambda y: network.hyper_analysis(Deployed(exact, {}), config, y), latents)
    out["litert/synthesis"] = flatbuffer(
        lambda y, c: float_transforms.synthesis(Deployed(exact, {"synthesis/fine": c}), config, y), latents, vector
    )
    return out


def freeze(source: str, out: str, name: str | None = None, notes: dict[str, Any] | None = None) -> str:
    """Writes the model file `out` from a run folder or a compact checkpoint; returns its id.

    Raises CodecError where the checkpoint cannot be read or does not fit fixed point.
    """
    config, weights = averaged_weights(source)
    arrays = _generative(config, weights) if isinstance(config, Generative) else _photographic(config, weights)
    name = name or os.path.splitext(os.path.basename(out))[0]
    data = pack_model(name, config, arrays, notes or {})
    with open(out + ".tmp", "wb") as file:
        file.write(data)
    os.replace(out + ".tmp", out)
    return identify(config.to_dict(), arrays)


def _generative(config: Generative, weights: Arrays) -> Arrays:
    from vaecodec.generative_freezing import arrays

    return arrays(config, weights)


def _photographic(config: Config, weights: Arrays) -> Arrays:
    first, start = 0, {}
    if config.wavelet:
        start = {f"start/{name}": weights[name].astype("<f4") for name in wavelet_freezing.baked()}
        first = wavelet_freezing.quiet(weights)
        weights = wavelet_freezing.lowered(config, weights, first)
    arrays = {**integer_weights(config, weights), **level_tables(config, weights), **transforms(config, weights)}
    arrays.update({f"tables/{n}": value for n, value in frequency_tables(config, weights, first)._asdict().items()})
    if config.wavelet:
        arrays |= wavelet_freezing.anchors(config, weights)
        arrays |= {"companding": wavelet_freezing.companding(), "centroids": wavelet_freezing.centroids(weights, first)}
        for graph, (function, specs) in wavelet_freezing.engines(config, arrays).items():
            arrays[f"litert/{graph}"] = flatbuffer(function, *specs, exact=True)
        return arrays | start
    arrays |= {f"anchors/{anchor}": weights[name] for name, anchor in ANCHORED.items()}
    return arrays | {f"start/{name}": weights[name].astype("<f4") for name in BAKED}
