"""Parts of freezing: levels, centroids and companding of the prior, and the gains of the transforms."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from vaecodec.config import SCALE_MIN, SCALE_RATIO, SCALES, Config
from vaecodec.native.prior import LOWEST_DISTANCES
from vaecodec.prior.context_model import GAIN_MAX
from vaecodec.rdo.prior_gradients import COMPANDED, UNIT
from vaecodec.training.vae import ALL_OCTAVES, KNOTS, gain_of_latent, log_steps
from vaecodec.transforms import float_wavelet
from vaecodec.transforms.integer import ACTIVATION_BITS, ACTIVATION_MAX, GAIN_BITS, INDEX_GAIN, LOC_GAIN
from vaecodec.transforms.wavelet import OCTAVES, SUBBANDS

Arrays = dict[str, np.ndarray]
INDEXED = [f"lowest/{part}/out/bias" for part in range(len(LOWEST_DISTANCES))]  # means, then indices
INDEXED += [f"context/{octave}/{half}/bias" for octave in range(ALL_OCTAVES) for half in ("first", "second")]
LOWEST_CONDITIONS = [f"lowest/{part}/condition" for part in range(len(LOWEST_DISTANCES))]
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


class Level(NamedTuple):
    """One row of levels/*, f64."""

    bias: np.ndarray
    lowest: np.ndarray
    start: np.ndarray
    inverse_gain: np.ndarray


def level(weights: Arrays, at: Any) -> Level:
    """The level of a quality at which at(anchors) is what anchors come to."""
    loc, index = np.split(at(weights["start"]), 2)
    most = ACTIVATION_MAX / UNIT
    bias = np.concatenate([at(weights[f"context/{octave}/condition"]) for octave in range(ALL_OCTAVES)])
    gain = np.exp(-at(weights["band_gain"])).reshape(ALL_OCTAVES, SUBBANDS, -1)
    gain[:, SUBBANDS - 1] *= float_wavelet.NORM**2  # the core's wavelet is not normalised
    return Level(
        np.clip(bias, -most, most) * UNIT,
        np.clip(np.concatenate([at(weights[name]) for name in LOWEST_CONDITIONS]), -most, most) * UNIT,
        np.concatenate([LOC_GAIN * UNIT * loc, np.clip(INDEX_GAIN * index, 0, SCALES - 1)]),
        np.clip(gain.ravel() * 2**GAIN_BITS, 1, GAIN_MAX),
    )


def anchors(config: Config, weights: Arrays) -> Arrays:
    """Natural logarithms at the anchors, as model.transforms.transform_arrays takes them."""
    bands = weights["band_gain"].copy()
    bands[:, OCTAVES * SUBBANDS * config.channels :] = 0  # these are not of y: its low-pass image has no gain
    gain = bands[:, gain_of_latent(config.channels)] - log_steps(config)[:, None]
    return {"inverse_gain": -gain, **{anchor: weights[name] for name, anchor in ANCHORED.items()}}


def centroids(weights: Arrays, first: int) -> np.ndarray:
    """i8[scales, 2], unit 2**-6: vae.centroid at each rung from `first` on."""
    place = np.clip(np.arange(first, SCALES) / 2, 0, KNOTS - 2)
    values = [np.interp(place, np.arange(KNOTS), column) for column in weights["centroid"].T]
    return np.clip(np.rint(np.stack(values, -1) * UNIT), -UNIT + 1, UNIT - 1).astype(np.int8)


def companding() -> np.ndarray:
    """i32[n], unit 2**-6: the magnitudes from which on layers.Quantised.compand makes 1, 2, ... of them, unit 2**-6."""
    values = np.floor(np.log1p(np.arange(COMPANDED * UNIT + 1) / UNIT) * 2**ACTIVATION_BITS + 0.5).astype(int)
    return np.flatnonzero(np.diff(values)).astype(np.int32) + 1
