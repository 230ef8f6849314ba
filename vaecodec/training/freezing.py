"""VAE -> frozen model: the one bridge from training to deployment.

Networks become integers, densities become tables.
"""

from __future__ import annotations

import math
import os
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec.config import (
    ANCHORS,
    INDICES_PER_ANCHOR,
    INDICES_PER_LEVEL,
    LEVELS,
    QUALITY_INDICES,
    SCALE_MIN,
    SCALE_RATIO,
    SCALES,
    Config,
)
from vaecodec.entropy.tables import Tables, build, integer_frequencies
from vaecodec.errors import CodecError
from vaecodec.model.file import identify, pack_model
from vaecodec.model.generative import Generative
from vaecodec.model.transforms import transform_arrays
from vaecodec.training import wavelet_freezing
from vaecodec.training.densities import conditional, masses
from vaecodec.training.loop import averaged_weights
from vaecodec.training.vae import specification
from vaecodec.transforms.integer import PRODUCT_BITS, WEIGHT_BITS

TAIL = 2.0**-21  # a table ends where less than this is left on a side; the escape covers the rest
WIDEST = 2048
Arrays = dict[str, np.ndarray]


def integer_weights(config: Config, weights: Arrays) -> Arrays:
    """prior/*: kernels i16 in units of 2**-9, biases i32 of 2**-15; raises CodecError on a weight beyond +-64."""
    return {f"prior/{name}": fixed_point(name, weights[name]) for name in specification(config)["prior"].weights}


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
    middles = np.arange(LEVELS) * INDICES_PER_LEVEL + (INDICES_PER_LEVEL - 1) / 2
    rows = [
        wavelet_freezing.level(weights, partial(at_quality, quality=min(one, QUALITY_INDICES - 1) / INDICES_PER_ANCHOR))
        for one in middles
    ]
    fields = zip(rows[0]._fields, zip(*rows, strict=True), strict=True)
    return {f"levels/{name}": np.rint(np.stack(values)).astype(np.int32) for name, values in fields}


def trimmed(low: int, mass: np.ndarray) -> tuple[int, np.ndarray]:
    """(low, frequencies) of one row, cut where next to nothing is left on either side."""
    below, above = np.cumsum(mass) < TAIL, np.cumsum(mass[::-1])[::-1] < TAIL
    begin, end = int(below.sum()), len(mass) - int(above.sum())
    if begin >= end:
        raise CodecError("a density has no mass within its table")
    return low + begin, integer_frequencies(mass[begin:end])


def frequency_tables(weights: Arrays, first: int = 0) -> Tables:
    """Rows: the scale ladder from rung `first` on, and the uniform byte row."""
    rows = []
    ratio, logit = (tf.constant(weights[f"tail/{name}"], tf.float64) for name in ("log_ratio", "logit"))
    ratios, mix = tf.exp(ratio), tf.nn.softmax(logit)
    for rung in range(first, SCALES):
        reach = min(WIDEST, 2 + math.ceil(8 * SCALE_MIN * SCALE_RATIO**rung * float(tf.reduce_max(ratios))))
        density = conditional(tf.zeros([], tf.float64), tf.constant(float(rung), tf.float64), ratios, mix)
        rows.append(trimmed(-reach, masses(density, -reach, reach)))
    # A byte row has no escape to speak of: 256 entries and the one that no coder uses would not be equal.
    rows.append((0, np.full(256, 1 << 16, np.uint32)))
    return build(rows)


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
    from vaecodec.training.generative_freezing import arrays

    return arrays(config, weights)


def _photographic(config: Config, weights: Arrays) -> Arrays:
    start = {f"start/{name}": weights[name].astype("<f4") for name in wavelet_freezing.baked()}
    first = wavelet_freezing.quiet(weights)
    weights = wavelet_freezing.lowered(config, weights, first)
    arrays = {**integer_weights(config, weights), **level_tables(config, weights)}
    arrays |= transform_arrays(config, weights, wavelet_freezing.anchors(config, weights))
    arrays |= {f"tables/{n}": value for n, value in frequency_tables(weights, first)._asdict().items()}
    arrays |= {"companding": wavelet_freezing.companding(), "centroids": wavelet_freezing.centroids(weights, first)}
    return arrays | start
