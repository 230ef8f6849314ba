"""Convert weights of a photograph model between the floats that are trained and the integers of its file.

    synthesis/<layer>/kernel, bias, shift    i16, i32, u8: see integer_layer
    analysis/<layer>/...                     the same; only encoders need them
    gains/coefficients                       i32[8, 13 C]: log2 of the quantisation step of each subband
    gains/<side>/<place>                     i32[8, n]: log2 of the multipliers of activations
    prior/<layer>/kernel, bias               i16, i32 in units of 2**-9 and 2**-15

Inputs of synthesis/latents and outputs of analysis/latents are in the order of latents.file_order.  The wavelet of the
core has no normalisation, so gains and these weights carry it.

A layer of the transforms has int16 weights, int32 biases and a right shift for each output.  The scale of an output is
the finest power of two at which its weights fit 16 bits and no sum can leave 32 bits, whatever the inputs are:

    sum(|weight|) * 32767 + |bias| + half a unit < 2**31
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vaecodec.config import Config
from vaecodec.errors import ModelError
from vaecodec.model.network import PRODUCT_BITS, WEIGHT_BITS
from vaecodec.transforms.latents import file_order, subband_of, subbands_in_file_order
from vaecodec.transforms.networks import (
    ACTIVATION_BITS,
    ACTIVATION_MAX,
    LOG_BITS,
    PIXEL_BITS,
    interpolate,
    step_logarithms,
)
from vaecodec.transforms.wavelet import NORM, OCTAVES

WEIGHT_MAX = 32767
SUM_MAX = 2**31 - 1
SHIFT_MAX = 30
FINEST = 20  # bits after the binary point of a weight; more gain nothing
# Pixels enter the analysis as 64 * (2 * level - 255): in units of 2**-15, a little too large.
INPUT_BITS, INPUT_SCALE = 15, 32768 / (64 * 2 * 255)
# Units, 2**-bits, of the inputs and outputs of layers that are not between activations.
UNITS = {
    "synthesis/skip": (PIXEL_BITS, ACTIVATION_BITS),
    "synthesis/fine": (ACTIVATION_BITS, PIXEL_BITS),
    "analysis/fine": (INPUT_BITS, ACTIVATION_BITS),
    "analysis/latents": (ACTIVATION_BITS, PIXEL_BITS),
}
BETWEEN_ACTIVATIONS = (ACTIVATION_BITS, ACTIVATION_BITS)
SIDES = ("synthesis", "analysis")
BLOCK = ("in", "space", "out", "gate", "mix")

Arrays = Mapping[str, np.ndarray]


class IntegerLayer(NamedTuple):
    """kernel i16[..., inputs, outputs] (depthwise: i16[3, 3, C]), bias i32[outputs], shift u8[outputs]."""

    kernel: np.ndarray
    bias: np.ndarray
    shift: np.ndarray


def integer_layer(kernel: np.ndarray, bias: np.ndarray, input_bits: int, output_bits: int) -> IntegerLayer:
    """Quantise a layer: kernel f[..., outputs], whose leading axes are summed over, and bias f[outputs].

    Inputs are integers in units of 2**-input_bits, outputs in units of 2**-output_bits.  Raises ModelError if weights
    are too large for any scale.
    """
    kernel, bias, axes = kernel.astype(np.float64), bias.astype(np.float64), tuple(range(kernel.ndim - 1))
    bits = np.full(kernel.shape[-1], min(FINEST, SHIFT_MAX + output_bits - input_bits))
    for _ in range(FINEST + 16):
        weights = np.rint(kernel * 2.0**bits)
        biases = np.rint(bias * 2.0 ** (bits + input_bits))
        shift = bits + input_bits - output_bits
        sums = np.abs(weights).sum(axes) * ACTIVATION_MAX + np.abs(biases) + 2.0 ** np.maximum(shift - 1, 0)
        too_large = (sums > SUM_MAX) | (np.abs(weights).max(axes) > WEIGHT_MAX)
        if not too_large.any():
            break
        bits = bits - too_large
    if too_large.any() or shift.min() < 0:
        raise ModelError("a layer's weights are too large for 16-bit integers")
    return IntegerLayer(weights.astype(np.int16), biases.astype(np.int32), shift.astype(np.uint8))


def subband_scales(channels: int) -> np.ndarray:
    """f64[13 C]: scale of the core's coefficients of each subband, over that of normalised ones."""
    scales = [NORM ** (-2 * octave) * np.repeat([1.0, 1.0, NORM**2], channels) for octave in range(OCTAVES)]
    return np.concatenate([*scales, np.full(channels, NORM ** (-2 * OCTAVES))])


def block_layers(config: Config, side: str) -> list[str]:
    """Names of the layers of a transform that are within blocks."""
    config = config.of_analysis if side == "analysis" else config
    places = [*(f"coarse{n}" for n in range(config.coarse_blocks)), *(f"fine{n}" for n in range(config.fine_blocks))]
    return [f"{side}/{place}/{part}" for place in places for part in BLOCK]


def transform_arrays(config: Config, weights: Arrays, anchors: Arrays) -> dict[str, np.ndarray]:
    """All tensors of both transforms.

    Args:
        config: sizes of the model.
        weights: f[...] by layer: "synthesis/latents/kernel" and so on.
        anchors: f[8, n] natural logarithms: "inverse_gain" of each latent, and the multipliers "synthesis/fine",
            "synthesis/out", "analysis/fine" and "analysis/out".

    Raises:
        ModelError: a layer does not fit 16 bits.
    """
    scales, order = subband_scales(config.channels), np.argsort(file_order(config.channels))
    input_scales = scales[subbands_in_file_order(config.channels)]
    names = [name for side in SIDES for name in (*block_layers(config, side), f"{side}/coarse")]
    arrays: dict[str, np.ndarray] = {}
    for name in (*names, "synthesis/latents", "synthesis/skip", "synthesis/fine", "analysis/fine", "analysis/latents"):
        kernel, bias = (weights[f"{name}/{part}"].astype(np.float64) for part in ("kernel", "bias"))
        if name == "synthesis/latents":
            kernel = kernel[order] / input_scales[:, None]
        elif name == "analysis/fine":
            kernel = kernel * INPUT_SCALE
        elif name == "analysis/latents":
            kernel, bias = kernel[:, order] * input_scales, bias[order] * input_scales
        layer = integer_layer(kernel, bias, *UNITS.get(name, BETWEEN_ACTIVATIONS))
        arrays.update({f"{name}/{part}": value for part, value in layer._asdict().items()})

    steps = anchors["inverse_gain"].astype(np.float64)[:, order]
    first = np.searchsorted(subbands_in_file_order(config.channels), np.arange(len(scales)))
    arrays["gains/coefficients"] = _logarithms(steps[:, first] + np.log(scales))
    for place in ("synthesis/fine", "synthesis/out", "analysis/fine", "analysis/out"):
        arrays[f"gains/{place}"] = _logarithms(anchors[place])
    return arrays


def _logarithms(natural: np.ndarray) -> np.ndarray:
    """i32: base 2, unit 2**-12."""
    return np.rint(natural.astype(np.float64) / math.log(2) * (1 << LOG_BITS)).astype(np.int32)


def transform_weights(config: Config, arrays: Arrays, sides: tuple[str, ...] = SIDES) -> dict[str, np.ndarray]:
    """f32 kernels and biases by layer, as trained: the inverse of transform_arrays, but for rounding."""
    weights: dict[str, np.ndarray] = {}
    for name, kernel in arrays.items():
        layer, _, part = name.rpartition("/")
        if part != "kernel" or not layer.startswith(tuple(f"{side}/" for side in sides)):
            continue
        inputs, outputs = UNITS.get(layer, BETWEEN_ACTIVATIONS)
        bits = arrays[f"{layer}/shift"].astype(int) + outputs - inputs
        weights[f"{layer}/kernel"] = np.ldexp(kernel.astype(np.float32), -bits)
        bias = np.ldexp(arrays[f"{layer}/bias"].astype(np.float64), -(bits + inputs))
        weights[f"{layer}/bias"] = bias.astype(np.float32)
    order = file_order(config.channels)
    scales = subband_scales(config.channels)[subbands_in_file_order(config.channels)].astype(np.float32)
    if "synthesis" in sides:
        weights["synthesis/latents/kernel"] = (weights["synthesis/latents/kernel"] * scales[:, None])[order]
    if "analysis" in sides and "analysis/latents/kernel" in weights:
        weights["analysis/fine/kernel"] = weights["analysis/fine/kernel"] / np.float32(INPUT_SCALE)
        weights["analysis/latents/kernel"] = (weights["analysis/latents/kernel"] / scales)[:, order]
        weights["analysis/latents/bias"] = (weights["analysis/latents/bias"] / scales)[order]
    return weights


def prior_weights(arrays: Arrays) -> dict[str, np.ndarray]:
    """f32 kernels and biases of the prior's layers, in units of 1."""
    weights = {}
    for name, array in arrays.items():
        if name.startswith("prior/"):
            bits = PRODUCT_BITS if name.endswith("/bias") else WEIGHT_BITS
            weights[name.removeprefix("prior/")] = np.ldexp(array.astype(np.float32), -bits)
    return weights


def latent_scales(channels: int) -> np.ndarray:
    """f32[256 C]: scale of the core's coefficient of each latent, over that of a normalised one."""
    return subband_scales(channels)[subband_of(channels)].astype(np.float32)


def inverse_gain(config: Config, arrays: Arrays, quality_index: int, tilt: int = 0) -> np.ndarray:
    """f32[256 C]: quantisation step of each latent, on a scale of 1 for 255 levels."""
    gains = np.exp2(step_logarithms(arrays["gains/coefficients"], quality_index, tilt) / (1 << LOG_BITS))
    gains /= subband_scales(config.channels)
    return gains[subband_of(config.channels)].astype(np.float32)


def multiplier(arrays: Arrays, place: str, quality_index: int) -> np.ndarray:
    """f32[n]: multiplier of the activations at a place, such as "synthesis/fine"."""
    return np.exp2(interpolate(arrays[f"gains/{place}"], quality_index) / (1 << LOG_BITS)).astype(np.float32)
