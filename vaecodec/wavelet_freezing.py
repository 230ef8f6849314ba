"""Parts of freezing: levels, centroids, companding, and the functions that become LiteRT graphs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec import network
from vaecodec.config import SCALE_MIN, SCALE_RATIO, SCALES, Config
from vaecodec.integer import ACTIVATION_BITS, ACTIVATION_MAX, GAIN_BITS, INDEX_GAIN, LOC_GAIN, WEIGHT_BITS
from vaecodec.octaves import COMPANDED, INDEX_SHIFT, UNIT, Levels
from vaecodec.pyramid import BANDS, LOWEST, OCTAVES, band_of
from vaecodec.vae import ALL_OCTAVES, KNOTS, log_steps

Arrays = dict[str, np.ndarray]
INDEXED = [f"lowest/{part}/out/bias" for part in range(len(LOWEST))]  # means, then indices
INDEXED += [f"context/{octave}/{half}/bias" for octave in range(ALL_OCTAVES) for half in ("first", "second")]
LOWEST_CONDITIONS = [f"lowest/{part}/condition" for part in range(len(LOWEST))]
SURELY = 2.0**-13
ANCHORED = {
    f"{side}/{place}/condition": f"{side}/{place}" for side in ("analysis", "synthesis") for place in ("fine", "out")
}


def baked() -> list[str]:
    """Names of what becomes tables and levels, and is kept for who trains on."""
    names = ["start", "band_gain", "centroid", "tail/log_ratio", "tail/logit", *INDEXED]
    return [*names, *LOWEST_CONDITIONS, *(f"context/{octave}/condition" for octave in range(ALL_OCTAVES))]


def quiet(weights: Arrays) -> int:
    """The highest rung at which a symbol is 0 all but surely: it becomes the row whose symbols are not coded.

    Half of all coefficients are on such rungs, and to code them takes the decoder as long as to code the others.
    """
    ratios, mix = np.exp(weights["tail/log_ratio"]), np.exp(weights["tail/logit"])
    scales = SCALE_MIN * SCALE_RATIO ** np.arange(SCALES)[:, None] * ratios * math.sqrt(2)
    other = np.vectorize(math.erfc)(0.5 / scales) @ mix
    return max(0, int(np.searchsorted(other / mix.sum(), SURELY)) - 1)


def lowered(config: Config, weights: Arrays, rungs: int) -> Arrays:
    """The same weights, with indices of scales less so many rungs."""
    found = dict(weights)
    for name in INDEXED:
        found[name] = weights[name].copy()
        found[name][len(found[name]) // 2 :] -= rungs / INDEX_GAIN
    found["start"] = weights["start"].copy()
    found["start"][:, config.channels :] -= rungs / INDEX_GAIN
    return found


def level(weights: Arrays, at: Any) -> Levels:
    """Levels f64 where at(anchors) is what they come to at a quality."""
    loc, index = np.split(at(weights["start"]), 2)
    most = ACTIVATION_MAX / UNIT
    bias = np.concatenate([at(weights[f"context/{octave}/condition"]) for octave in range(ALL_OCTAVES)])
    return Levels(
        np.clip(bias, -most, most) * UNIT,
        np.clip(np.concatenate([at(weights[name]) for name in LOWEST_CONDITIONS]), -most, most) * UNIT,
        np.concatenate([LOC_GAIN * UNIT * loc, np.clip(INDEX_GAIN * index, 0, SCALES - 1)]),
        np.exp(-at(weights["band_gain"])) * 2**GAIN_BITS,
    )


def anchors(config: Config, weights: Arrays) -> Arrays:
    """anchors/*: gains of latents, and what the transforms are told."""
    bands = weights["band_gain"].copy()
    bands[:, OCTAVES * BANDS * config.channels :] = 0  # these are not of y: its low-pass picture has no gain
    gain = (bands[:, band_of(config.channels)] - log_steps(config)[:, None]).astype(np.float32)
    found = {"anchors/gain": gain, "anchors/inverse_gain": -gain}
    return found | {f"anchors/{anchor}": weights[name] for name, anchor in ANCHORED.items()}


def centroids(weights: Arrays, first: int) -> np.ndarray:
    """i8[scales, 2], unit 2**-6: vae.centroid at each rung from `first` on."""
    place = np.clip(np.arange(first, SCALES) / 2, 0, KNOTS - 2)
    values = [np.interp(place, np.arange(KNOTS), column) for column in weights["centroid"].T]
    return np.clip(np.rint(np.stack(values, -1) * UNIT), -UNIT + 1, UNIT - 1).astype(np.int8)


def companding() -> np.ndarray:
    """i32[n], unit 2**-6: the magnitudes from which on layers.Quantised.compand makes 1, 2, ... of them, unit 2**-6."""
    values = np.floor(np.log1p(np.arange(COMPANDED * UNIT + 1) / UNIT) * 2**ACTIVATION_BITS + 0.5).astype(int)
    return np.flatnonzero(np.diff(values)).astype(np.int32) + 1


class Integers:
    """The arithmetic of the octaves' networks as a graph: integer.Exact, in TensorFlow, with weights `integer/*`."""

    def __init__(self, arrays: Arrays, bias: Any = None) -> None:
        self._arrays, self._bias = arrays, bias
        self._last = float(len(arrays["tables/low"]) - 2)

    def channels(self, x):
        return x.shape[-1]

    def _clip(self, x, low=-ACTIVATION_MAX):
        return tf.clip_by_value(x, float(low), float(ACTIVATION_MAX))

    def _round(self, x, low=-ACTIVATION_MAX):
        return self._clip(shifted(x, WEIGHT_BITS), low)

    def _weight(self, name):
        return tf.constant(self._arrays[f"integer/{name}"].astype(np.float32))

    def _product(self, name, x, outputs=slice(None)):
        kernel, count = self._weight(f"{name}/kernel")[None, None, :, outputs], x.shape[-1]
        t = tf.nn.conv2d(x, kernel[:, :, :count], 1, "VALID") + self._weight(f"{name}/bias")[outputs]
        if kernel.shape[2] > count:  # the first of x have their magnitudes beside them, which are made here
            others = tf.pad(kernel[:, :, count:], [[0, 0], [0, 0], [0, 2 * count - kernel.shape[2]], [0, 0]])
            t += tf.nn.conv2d(tf.maximum(x, -1.0 * x), others, 1, "VALID")
        return t

    def dense(self, name, x, channels, relu=False, small=False):
        return self._round(self._product(name, x), 0 if relu else -ACTIVATION_MAX)

    def depthwise(self, name, x):
        t = tf.nn.depthwise_conv2d(x, self._weight(f"{name}/kernel")[..., None], [1, 1, 1, 1], "SAME")
        return self._round(t + self._weight(f"{name}/bias"))

    def gate(self, name, x):
        middle = x.shape[-1]
        a = self._round(self._product(name, x, slice(0, middle)), 0)
        b = self._round(self._product(name, x, slice(middle, None)))
        return self._clip(shifted(a * b, ACTIVATION_BITS))

    def add(self, x, y):
        return self._clip(x + y)

    def condition(self, name, x):
        return self._clip(x + self._bias)

    def distribution(self, name, x, count):
        loc = self._product(name, x, slice(0, count)) * LOC_GAIN
        index = shifted(self._product(name, x, slice(count, None)), INDEX_SHIFT)
        return shifted(loc, WEIGHT_BITS), tf.cast(tf.clip_by_value(index, 0.0, self._last), tf.uint8)


def shifted(x: tf.Tensor, bits: int) -> tf.Tensor:
    """integer.shift."""
    return tf.floor(x * 2.0**-bits + 0.5)


def engines(config: Config, arrays: Arrays) -> dict[str, tuple[Any, list[tf.TensorSpec]]]:
    """(function, inputs) of each graph of engines.Engine, from integer/*."""
    found: dict[str, tuple[Any, list[tf.TensorSpec]]] = {}
    for octave in range(ALL_OCTAVES):
        one, two = _engines_of(config, arrays, octave)
        found |= {f"first/{octave}": one, f"second/{octave}": two}
    return found


def _engines_of(config: Config, arrays: Arrays, octave: int) -> list[tuple[Any, list[tf.TensorSpec]]]:
    channels, width = config.channels, config.prior_of(octave)
    before = 7 * channels + network.PASSED * (octave < OCTAVES)
    seen, features, known = (
        tf.TensorSpec([1, None, None, count], tf.float32, name=name)
        for count, name in ((before, "a_seen"), (width, "a_features"), (6 * channels, "b_known"))
    )
    bias = tf.TensorSpec([1, 1, 1, width], tf.float32, name="b_bias")

    def first(x: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, ...]:
        ops = Integers(arrays, b)
        ahead = network.octave_features(ops, config, octave, x)
        return (ahead, *network.octave_first(ops, config, octave, ahead))

    def second(x: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, ...]:
        loc, index, *passed = network.octave_second(Integers(arrays), config, octave, x, k)
        return (*passed, loc, index)

    return [(first, [seen, bias]), (second, [features, known])]


def functions(config: Config, deployed: Any) -> dict[str, tuple[Any, list[tf.TensorSpec]]]:
    """(function, inputs) of each transform; deployed(conditions) is the arithmetic.

    They are what the network adds: wavelets are none of LiteRT's affairs.
    """
    pixels = tf.TensorSpec([1, None, None, config.channels], tf.uint8, name="a_pixels")
    latents = tf.TensorSpec([1, None, None, config.latents], tf.float32, name="a_latents")
    fine, last, coarse = (
        tf.TensorSpec([1, 1, 1, width], tf.float32, name=name)
        for width, name in ((config.fine, "b_condition"), (config.fine, "c_condition"), (config.coarse, "c_condition"))
    )
    linear = tf.TensorSpec([1, None, None, config.channels], tf.float32, name="d_linear")

    def analysis(x: tf.Tensor, b: tf.Tensor, c: tf.Tensor) -> tf.Tensor:
        ops = deployed({"analysis/fine": b, "analysis/out": c})
        return network.analysis_residual(ops, config, tf.cast(x, tf.float32) * (1.0 / 255.0) - 0.5)

    def synthesis(y: tf.Tensor, b: tf.Tensor, c: tf.Tensor, d: tf.Tensor) -> tf.Tensor:
        ops = deployed({"synthesis/fine": b, "synthesis/out": c})
        x = (d + network.synthesis_residual(ops, config, y, d)) * 255.0 + 128.0
        return tf.cast(tf.floor(tf.clip_by_value(x, 0.0, 255.0)), tf.uint8)

    return {"analysis": (analysis, [pixels, fine, coarse]), "synthesis": (synthesis, [latents, fine, last, linear])}
