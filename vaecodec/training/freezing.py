"""Convert trained weights: to a model file, whose networks are integers and densities tables, and back; and to grey."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vaecodec.atomic import write_atomic
from vaecodec.config import (
    ANCHORS,
    CELL,
    INDICES_PER_ANCHOR,
    INDICES_PER_LEVEL,
    LAST_ANCHOR,
    LEVELS,
    SCALE_MIN,
    SCALE_RATIO,
    SCALES,
    Config,
)
from vaecodec.entropy import PRECISION, TOTAL, Tables, build, integer_frequencies
from vaecodec.errors import CodecError, ModelError
from vaecodec.model import generative, network
from vaecodec.model.file import Model, identify, load_model, pack_model
from vaecodec.model.generative import COUNT, EXP_BITS, KNOT_BITS, LATENT_BITS, ODDS_MAX, REACH, Generative
from vaecodec.model.network import ACTIVATION_BITS, ACTIVATION_MAX, INDEX_GAIN, LOC_GAIN
from vaecodec.model.weights import transform_arrays, transform_weights
from vaecodec.native.prior import LOWEST_DISTANCES
from vaecodec.native.reference.prior import octave_order
from vaecodec.native.symbols import HALF_LEVEL
from vaecodec.prior import GAIN_MAX
from vaecodec.rdo.prior_gradients import COMPANDED, UNIT
from vaecodec.training import averaged_weights, vae
from vaecodec.training.densities import KNOTS, distributions
from vaecodec.training.vae import ALL_OCTAVES, Weights
from vaecodec.transforms import EYE, arrays_for_the_eye
from vaecodec.transforms.networks import LOG_BITS, analysis_blocks
from vaecodec.transforms.wavelet import NORM, OCTAVES, SUBBANDS

TAIL = 2.0**-21  # a table ends where less mass than this is left on a side; the escape covers the rest
MAX_REACH = 2048
UNCODED = 2.0**-13  # probability of other symbols than 0 below which symbols are not coded
# Biases of (means, scale indices).
DISTRIBUTIONS = [f"lowest/{part}/out/bias" for part in range(len(LOWEST_DISTANCES))]
DISTRIBUTIONS += [f"context/{octave}/{half}/bias" for octave in range(ALL_OCTAVES) for half in ("first", "second")]
LOWEST_CONDITIONS = [f"lowest/{part}/condition" for part in range(len(LOWEST_DISTANCES))]
CONTEXT_CONDITIONS = [f"context/{octave}/condition" for octave in range(ALL_OCTAVES)]
# Conditions of the transforms, and their names below gains/.
TRANSFORM_CONDITIONS = {
    f"{side}/{place}/condition": f"{side}/{place}" for side in ("analysis", "synthesis") for place in ("fine", "out")
}
# Weights that become tables and levels; the model file keeps them below start/, to train on from it.
TABULATED = ["start", "band_gain", "centroid", "tail/log_ratio", "tail/logit", *DISTRIBUTIONS]
TABULATED += [*LOWEST_CONDITIONS, *CONTEXT_CONDITIONS]


def freeze(source: str, out: str, name: str | None = None, notes: dict[str, Any] | None = None) -> str:
    """Write the model file `out` from a run folder or a compact checkpoint; return the model's id.

    Raises CodecError if the checkpoint cannot be read or exceeds the range of fixed point.
    """
    config, weights = averaged_weights(source)
    arrays = generative_arrays(weights) if isinstance(config, Generative) else photograph_arrays(config, weights)
    name = name or os.path.splitext(os.path.basename(out))[0]
    config = config.of_decoders if isinstance(config, Config) else config
    write_atomic(out, pack_model(name, config, arrays, notes or {}), overwrite=True)
    return identify(config.to_dict(), arrays)


def freeze_eye(source: str, model_path: str, out: str) -> str:
    """Write the model at `model_path` with the analysis of a run, or checkpoint, as that for the eye; return its id.

    The id is that of the model, since decoders need no analysis.  Raises CodecError if the checkpoint cannot be read,
    is of another architecture, or exceeds the range of fixed point, and ModelError.
    """
    config, weights = averaged_weights(source)
    model = load_model(model_path)
    if not isinstance(config, Config) or config.of_decoders != model.config:
        raise CodecError(f"{source} does not have the architecture of {model_path}")
    arrays = {name: array for name, array in model.arrays.items() if not name.startswith(EYE)}
    new = photograph_arrays(config, weights).items()
    arrays |= {EYE + name: array for name, array in new if name.startswith(("analysis/", "gains/analysis/"))}
    write_atomic(out, pack_model(model.name, model.config, arrays, model.notes), overwrite=True)
    return identify(model.config.to_dict(), arrays)


def unfreeze(model: Model, tune: str = "psnr") -> tuple[Config, Weights]:
    """The weights f32 of a frozen model, to train on from, as precise as its integers, with the analysis of a tune.

    Raises ModelError if the file lacks some, or they do not have the shapes of its architecture.
    """
    arrays = dict(model.arrays)
    if tune == "eye":
        arrays |= arrays_for_the_eye(arrays)
    weights = {**transform_weights(model.config, arrays), **model.prior_weights}
    config, sizes = model.config, {"fine": model.config.fine_blocks, "coarse": model.config.coarse_blocks}
    blocks = [analysis_blocks(arrays, place, least) for place, least in sizes.items()]
    if blocks != [*sizes.values()]:
        config = replace(config, analysis_blocks=max(blocks))
    weights |= {name: model.array(f"start/{name}") for name in TABULATED}
    for name, gain in TRANSFORM_CONDITIONS.items():
        if f"gains/{gain}" not in arrays:
            raise ModelError(f"model {model.name} has no gains/{gain}")
        weights[name] = (arrays[f"gains/{gain}"] * (math.log(2) / (1 << LOG_BITS))).astype(np.float32)
    expected = vae.initial_weights(config)
    for name, value in expected.items():
        if name not in weights or weights[name].shape != value.shape:
            shape = weights[name].shape if name in weights else "missing"
            raise ModelError(f"model {model.name}: {name} has shape {shape}, expected {value.shape}")
    return config, {name: weights[name].astype(np.float32) for name in expected}


def with_deeper_analysis(config: Config, weights: Weights, blocks: int, seed: int = 0) -> tuple[Config, Weights]:
    """The same model with more blocks in its analysis, which change nothing until they are trained."""
    config = replace(config, analysis_blocks=blocks)
    for name, value in vae.initial_weights(config, seed).items():
        if name not in weights:
            weights = {**weights, name: 0 * value if name.split("/")[2] in ("out", "mix") else value}
    return config, weights


def photograph_arrays(config: Config, weights: Weights) -> Weights:
    """The tensors of a model of photographs; raises CodecError for weights beyond fixed point."""
    start = {f"start/{name}": weights[name].astype("<f4") for name in TABULATED}
    first = first_coded_scale(weights)
    weights = lower_indices(config, weights, first)
    prior = {name: fixed_point(name, weights[name]) for name in vae.specification(config)["prior"].weights}
    arrays = {f"prior/{name}": value for name, value in prior.items()}
    arrays |= {f"levels/{name}": array for name, array in levels(weights)._asdict().items()}
    # The subbands of the coarsest octave are not of y: its low-pass image has a gain of 1.
    relative = weights["band_gain"].copy()
    relative[:, OCTAVES * SUBBANDS * config.channels :] = 0
    gain = relative[:, vae.gain_of_latent(config.channels)] - vae.log_step_sizes(config)[:, None]
    anchors = {"inverse_gain": -gain, **{anchor: weights[name] for name, anchor in TRANSFORM_CONDITIONS.items()}}
    arrays |= transform_arrays(config, weights, anchors)
    arrays |= {f"tables/{name}": array for name, array in frequency_tables(weights, first)._asdict().items()}
    arrays |= {"companding": companding_thresholds(), "centroids": centroids(weights, first)}
    return arrays | start


def fixed_point(name: str, weight: np.ndarray) -> np.ndarray:
    """A kernel as i16 in units of 2**-9, or a bias as i32 in units of 2**-15; raises CodecError beyond their range."""
    dtype, bits = (np.int32, network.PRODUCT_BITS) if name.endswith("/bias") else (np.int16, network.WEIGHT_BITS)
    value = np.floor(weight.astype(np.float64) * 2**bits + 0.5)
    if not (np.abs(value) <= np.iinfo(dtype).max).all():
        raise CodecError(f"weight {name} reaches {np.abs(weight).max():.3g}, beyond fixed point")
    return np.asarray(value, dtype)


def first_coded_scale(weights: Weights) -> int:
    """The highest scale index at which a symbol is 0 almost surely; it gets table index 0, which is not coded.

    Half of all coefficients have such scales, and would take a decoder as long as the others.
    """
    ratios, mix = np.exp(weights["tail/log_ratio"]), np.exp(weights["tail/logit"])
    scales = SCALE_MIN * SCALE_RATIO ** np.arange(SCALES)[:, None] * ratios * math.sqrt(2)
    nonzero = np.vectorize(math.erfc)(0.5 / scales) @ mix
    return max(0, int(np.searchsorted(nonzero / mix.sum(), UNCODED)) - 1)


def lower_indices(config: Config, weights: Weights, offset: int) -> Weights:
    """The weights with all scale indices lowered by an offset."""
    lowered = dict(weights)
    for name in DISTRIBUTIONS:
        lowered[name] = weights[name].copy()
        lowered[name][len(lowered[name]) // 2 :] -= offset / INDEX_GAIN
    lowered["start"] = weights["start"].copy()
    lowered["start"][:, config.channels :] -= offset / INDEX_GAIN
    return lowered


class Level(NamedTuple):
    """The conditioning of the prior at a quality, f64, or i32 with a row for each level."""

    bias: np.ndarray
    lowest: np.ndarray
    start: np.ndarray
    inverse_gain: np.ndarray


def levels(weights: Weights) -> Level:
    """The conditioning of the prior at the middle of each level of quality indices, as integers."""
    middles = np.arange(LEVELS) * INDICES_PER_LEVEL + (INDICES_PER_LEVEL - 1) / 2
    rows = [level_at(weights, min(middle, LAST_ANCHOR) / INDICES_PER_ANCHOR) for middle in middles]
    return Level(*(np.rint(np.stack(values)).astype(np.int32) for values in zip(*rows, strict=True)))


def level_at(weights: Weights, quality: float) -> Level:
    """The conditioning of the prior at a quality in [0, A - 1], linear between anchors."""
    first = min(int(quality), ANCHORS - 2)
    fraction, limit = quality - first, ACTIVATION_MAX / UNIT

    def at(name: str) -> np.ndarray:
        anchors = weights[name]
        return np.asarray(anchors[first].astype(np.float64) * (1 - fraction) + anchors[first + 1] * fraction)

    loc, index = np.split(at("start"), 2)
    gain = np.exp(-at("band_gain")).reshape(ALL_OCTAVES, SUBBANDS, -1)
    gain[:, SUBBANDS - 1] *= NORM**2  # the core's wavelet is not normalised
    return Level(
        np.clip(np.concatenate([at(name) for name in CONTEXT_CONDITIONS]), -limit, limit) * UNIT,
        np.clip(np.concatenate([at(name) for name in LOWEST_CONDITIONS]), -limit, limit) * UNIT,
        np.concatenate([LOC_GAIN * UNIT * loc, np.clip(INDEX_GAIN * index, 0, SCALES - 1)]),
        np.clip(gain.ravel() * 2**network.GAIN_BITS, 1, GAIN_MAX),
    )


def frequency_tables(weights: Weights, first: int = 0) -> Tables:
    """Frequencies of symbols for each scale index from `first` on, then a uniform table of bytes."""
    rows = []
    ratios, mix = (np.exp(weights[f"tail/{name}"].astype(np.float64)) for name in ("log_ratio", "logit"))
    mix /= mix.sum()
    for index in range(first, SCALES):
        scales = SCALE_MIN * SCALE_RATIO**index * ratios
        mass = trellis_masses(scales, mix, min(MAX_REACH, 2 + math.ceil(8 * scales.max())))
        reach = len(mass) // 2
        below, above = np.cumsum(mass) < TAIL, np.cumsum(mass[::-1])[::-1] < TAIL
        begin, end = int(below.sum()), len(mass) - int(above.sum())
        if begin >= end:
            raise CodecError("a density has no mass within its table")
        rows.append((begin - reach, integer_frequencies(mass[begin:end])))
    rows.append((0, np.full(256, 1 << 16, np.uint32)))  # all 256 entries and no escape, so all are equal
    return build(rows)


def trellis_masses(scales: np.ndarray, mix: np.ndarray, reach: int) -> np.ndarray:
    """Probabilities f64[2 k + 1] of symbols -k..k within `reach` steps, of Normals N(0, scales) in proportions `mix`.

    A symbol has the mean of its probabilities under both quantisers of the trellis, each of which takes what is nearest
    to its level.  `rdo.fit_tables` fits tables to the symbols of images.
    """
    half, k = HALF_LEVEL / UNIT, np.arange(1, max(1, math.ceil(reach * UNIT / (2 * HALF_LEVEL))) + 1)

    @np.vectorize
    def beyond(x: float) -> float:
        return sum(0.5 * part * math.erfc(x / (math.sqrt(2) * scale)) for part, scale in zip(mix, scales, strict=True))

    even = beyond((2 * k - 1) * half) - beyond((2 * k + 1) * half)
    odd = beyond(np.maximum(2 * k - 2, 0.5) * half) - beyond(2 * k * half)
    one_side = (even + odd) / 2
    zero = 1 - float(beyond(half) + beyond(half / 2))
    return np.concatenate([one_side[::-1], [zero], one_side])


def centroids(weights: Weights, first: int) -> np.ndarray:
    """densities.centroid at each scale index from `first` on, for both quantisers: i8[scales, 4] in units of 2**-6."""
    place = np.clip(np.arange(first, SCALES) / 2, 0, KNOTS - 2)
    values = [np.interp(place, np.arange(KNOTS), column) for column in weights["centroid"].T]
    both = np.clip(np.rint(np.stack(values, -1) * UNIT), -UNIT + 1, UNIT - 1)
    return np.concatenate([both, both], -1).astype(np.int8)


def companding_thresholds() -> np.ndarray:
    """The magnitudes i32[n] from which on layers.Quantised.compand gives 1, 2, ...; all in units of 2**-6."""
    values = np.floor(np.log1p(np.arange(COMPANDED * UNIT + 1) / UNIT) * 2**ACTIVATION_BITS + 0.5).astype(int)
    return np.flatnonzero(np.diff(values)).astype(np.int32) + 1


def generative_arrays(weights: Weights) -> Weights:
    """The tensors of a generative model; raises CodecError for weights beyond fixed point."""
    arrays = {f"integer/{name}": fixed_point(name, value) for name, value in weights.items()}
    return {**arrays, **{f"discrete/{name}": table for name, table in discrete_tables()._asdict().items()}}


def discrete_tables() -> generative.Tables:
    """The tables of `model.discrete`, which are the same for all models."""
    normal = distributions.Normal(tf.zeros([], tf.float64), tf.ones([], tf.float64))
    centres = normal.quantile((np.arange(COUNT) + 0.5) / COUNT).numpy() * 2**LATENT_BITS
    cumulative = normal.cdf(np.arange(-REACH * 2**KNOT_BITS, REACH * 2**KNOT_BITS + 1) / 2**KNOT_BITS).numpy() * TOTAL
    cumulative[[0, -1]] = 0, TOTAL
    odds = 2.0 ** (np.arange(-ODDS_MAX, ODDS_MAX + 1) / 2**ACTIVATION_BITS)
    tables = generative.Tables(
        edges=normal.quantile(np.arange(1, COUNT) / COUNT).numpy() * 2**generative.EDGE_BITS,
        centres=np.clip(centres, -ACTIVATION_MAX, ACTIVATION_MAX),
        cumulative=cumulative,
        inverse=2.0 ** (generative.INVERSE_BITS + 6 - np.arange(generative.SCALE_COUNT) / 2**ACTIVATION_BITS),
        ink=np.clip(np.rint(TOTAL * odds / (1 + odds)), 1, TOTAL - 1),
        exp=2.0 ** (PRECISION - np.arange(generative.EXP_ENTRIES) / 2**EXP_BITS),
    )
    dtypes = [generative.FORMATS[name].dtype for name in generative.Tables._fields]
    return generative.Tables(*(np.rint(table).astype(dtype) for table, dtype in zip(tables, dtypes, strict=True)))


COLOURS = 3
ROOT = np.sqrt(COLOURS)  # brightness of a grey pixel in the colour transform, over its level


def fit_architecture(config: Any, weights: Weights, target: Any) -> tuple[Any, Weights]:
    """The config and weights of a model, or of the grey or deeper model made from it where one is wanted."""
    if isinstance(target, Config) and isinstance(config, Config):
        if (target.channels, config.channels) == (1, COLOURS):
            config, weights = grey_weights(config, weights)
        if target.of_decoders == config.of_decoders and target.analysis_blocks > config.analysis_blocks:
            config, weights = with_deeper_analysis(config, weights, target.analysis_blocks)
    return config, weights


def grey_weights(config: Config, weights: Weights) -> tuple[Config, Weights]:
    """The grey model that computes what a colour model computes for the brightness of grey images.

    Such an image has equal channels, so its chroma coefficients are 0.  Inputs of the transforms that see a sample of
    each channel are summed, their outputs averaged; inputs and outputs of chroma coefficients are dropped.  The step
    size of a grey model is smaller by sqrt(3), as are its coefficients: in steps they are those of the brightness.

    Args:
        config: sizes of a model of three channels.
        weights: f32 by name, of this model.

    Returns:
        The sizes with one channel, and the weights f32 of that model.
    """
    first, second = (_brightness_of_half(numbers) for numbers in octave_order(COLOURS))
    grey: Weights = {}
    for name, value in weights.items():
        match name.split("/"):
            case ["analysis", "fine", "kernel"] | ["synthesis", "skip", "kernel"]:
                value = value.reshape(-1, COLOURS, value.shape[1]).sum(1)
            case ["analysis", "latents", _]:
                value = value[..., :CELL] / ROOT
            case ["synthesis", "latents", "kernel"]:
                value = value[:CELL] * ROOT
            case ["synthesis", "fine", "kernel" | "bias"]:
                value = value.reshape(*value.shape[:-1], -1, COLOURS).mean(-1)
            case ["start"] | ["band_gain"] | ["lowest", _, "out", _]:
                value = value[..., ::COLOURS]
            case ["lowest", _, "in", "kernel"]:
                value = value[::COLOURS]
            case ["context", _, "in", "kernel"]:
                value = value[_context_inputs(len(value))]
            case ["context", _, "known", "kernel"]:
                value = value[_twice(first)]
            case ["context", _, "first", _]:
                value = value[..., _twice(first)]
            case ["context", _, "second", _]:
                value = value[..., _twice(second)]
        grey[name] = np.ascontiguousarray(value, np.float32)
    return replace(config, channels=1), grey


def _brightness_of_half(numbers: np.ndarray) -> np.ndarray:
    """Places, within half of the coefficients of a square, of those of the first channel."""
    return np.flatnonzero(numbers % COLOURS == 0)


def _twice(half: np.ndarray) -> np.ndarray:
    """The same places among two vectors of a half: values and magnitudes, or means and scale indices."""
    return np.concatenate([half, half + 6 * COLOURS])


def _context_inputs(count: int) -> np.ndarray:
    """Places of the inputs of an octave's network that a grey model has: see network.octave_features."""
    signed = 7 * COLOURS
    passed = count - 2 * signed
    brightness = np.arange(0, signed, COLOURS)
    return np.concatenate([brightness, signed + np.arange(passed), signed + passed + brightness])
