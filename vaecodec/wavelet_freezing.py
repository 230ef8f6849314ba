"""What `freezing` makes of a wavelet model, where it is not as in others: levels, centroids, transforms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec import network
from vaecodec.config import ANCHORS, LAMBDA_MAX, LAMBDA_MIN, SCALES, WORTH, Config
from vaecodec.integer import ACTIVATION_BITS, ACTIVATION_MAX, GAIN_BITS, INDEX_GAIN, LOC_GAIN
from vaecodec.octaves import UNIT, Levels
from vaecodec.wavelet_layers import COMPANDED
from vaecodec.wavelet_vae import ALL_OCTAVES, KNOTS, of_latents

Arrays = dict[str, np.ndarray]
ANCHORED = {
    f"{side}/{place}/condition": f"{side}/{place}" for side in ("analysis", "synthesis") for place in ("fine", "out")
}


def baked() -> list[str]:
    """Names of what becomes tables and levels, and is kept for who trains on."""
    names = ["start", "band_gain", "centroid", "tail/log_ratio", "tail/logit", "lowest/condition"]
    return [*names, *(f"context/{octave}/condition" for octave in range(ALL_OCTAVES))]


def level(weights: Arrays, at: Any) -> Levels:
    """Levels f64 where at(anchors) is what they come to at a quality."""
    loc, index = np.split(at(weights["start"]), 2)
    most = ACTIVATION_MAX / UNIT
    bias = np.concatenate([at(weights[f"context/{octave}/condition"]) for octave in range(ALL_OCTAVES)])
    return Levels(
        np.clip(bias, -most, most) * UNIT,
        np.clip(at(weights["lowest/condition"]), -most, most) * UNIT,
        np.concatenate([LOC_GAIN * UNIT * loc, np.clip(INDEX_GAIN * index, 0, SCALES - 1)]),
        np.exp(-at(weights["band_gain"])) * 2**GAIN_BITS,
    )


def anchors(config: Config, weights: Arrays) -> Arrays:
    """anchors/*: gains of latents, and what the transforms are told."""
    log_lambda = np.linspace(math.log(LAMBDA_MIN), math.log(LAMBDA_MAX), ANCHORS)
    step = 0.5 * (math.log(config.weighty / WORTH) - log_lambda) - math.log(255)
    bands = of_latents(
        weights["band_gain"], lambda x, n: np.repeat(x, n, -1), lambda parts: np.concatenate(parts, -1), config.channels
    )
    gain = (bands - step[:, None]).astype(np.float32)
    found = {"anchors/gain": gain, "anchors/inverse_gain": -gain}
    return found | {f"anchors/{anchor}": weights[name] for name, anchor in ANCHORED.items()}


def centroids(weights: Arrays) -> np.ndarray:
    """i8[scales, 2], unit 2**-6: wavelet_vae.centroid at each rung."""
    place = np.clip(np.arange(SCALES) / 2, 0, KNOTS - 2)
    values = [np.interp(place, np.arange(KNOTS), column) for column in weights["centroid"].T]
    return np.clip(np.rint(np.stack(values, -1) * UNIT), -UNIT + 1, UNIT - 1).astype(np.int8)


def companding() -> np.ndarray:
    """i32[n], unit 2**-6: the magnitudes from which on layers.Quantised.compand makes 1, 2, ... of them, unit 2**-6."""
    values = np.floor(np.log1p(np.arange(COMPANDED * UNIT + 1) / UNIT) * 2**ACTIVATION_BITS + 0.5).astype(int)
    return np.flatnonzero(np.diff(values)).astype(np.int32) + 1


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
        return network.wavelet_analysis(ops, config, tf.cast(x, tf.float32) * (1.0 / 255.0) - 0.5)

    def synthesis(y: tf.Tensor, b: tf.Tensor, c: tf.Tensor, d: tf.Tensor) -> tf.Tensor:
        ops = deployed({"synthesis/fine": b, "synthesis/out": c})
        x = (d + network.wavelet_synthesis(ops, config, y, d)) * 255.0 + 128.0
        return tf.cast(tf.floor(tf.clip_by_value(x, 0.0, 255.0)), tf.uint8)

    return {"analysis": (analysis, [pixels, fine, coarse]), "synthesis": (synthesis, [latents, fine, last, linear])}
