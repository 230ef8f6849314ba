"""The integer tensors of the analysis and the synthesis transform, from trained float weights.

    synthesis/<layer>/kernel, bias, shift    i16, i32, u8: see quantization
    analysis/<layer>/...                     the same; only encoders need them
    gains/coefficients                       i32[8, 13 C]: log2 of what a quantisation step of each subband stands for
    gains/<side>/<place>                     i32[8, n]: log2 of the multipliers of activations

Coefficients of a 16 x 16 block are inputs of `synthesis/latents` in the order of the subbands: octaves 0 to 3, of each
its 3 C planes, in rows; then the low-pass of each colour.  The wavelet of the core has no normalisation, so gains and
these weights carry it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from vaecodec.config import Config
from vaecodec.model.quantization import IntegerLayer, integer_layer
from vaecodec.transforms import float_wavelet
from vaecodec.transforms.gains import LOG_BITS
from vaecodec.transforms.latents import file_order, subbands_in_file_order
from vaecodec.transforms.wavelet import OCTAVES

ACTIVATION_BITS = 11  # unit of the activations of both transforms
PIXEL_BITS = 14  # unit of samples and coefficients, on a scale of 1 for 255 levels
# Pixels enter the analysis as 64 * (2 * level - 255): in units of 2**-15, a little too large.
INPUT_BITS, INPUT_SCALE = 15, 32768 / (64 * 2 * 255)
BLOCK = ("in", "space", "out", "gate", "mix")
OCTAVES = OCTAVES

Arrays = dict[str, np.ndarray]


def subband_scales(channels: int) -> np.ndarray:
    """f64[13 C]: how much larger the core's coefficients of each subband are than normalised ones."""
    norm = float_wavelet.NORM
    scales = [norm ** (-2 * octave) * np.repeat([1.0, 1.0, norm**2], channels) for octave in range(OCTAVES)]
    return np.concatenate([*scales, np.full(channels, norm ** (-2 * OCTAVES))])


def block_layers(config: Config, side: str) -> list[str]:
    """Names of the layers of a transform that are within blocks."""
    places = [*(f"coarse{n}" for n in range(config.coarse_blocks)), *(f"fine{n}" for n in range(config.fine_blocks))]
    return [f"{side}/{place}/{part}" for place in places for part in BLOCK]


def transform_arrays(config: Config, weights: Mapping[str, np.ndarray], anchors: Mapping[str, np.ndarray]) -> Arrays:
    """All tensors of both transforms.

    `weights` are f[...] by layer, "synthesis/latents/kernel" and so on; `anchors` f[8, n] natural logarithms:
    "inverse_gain" of each latent, and what "synthesis/fine", "synthesis/out", "analysis/fine" and "analysis/out" are
    multiplied by.  Raises ModelError where a layer does not fit 16 bits.
    """
    scales, order = subband_scales(config.channels), file_order(config.channels)
    of_inputs = scales[subbands_in_file_order(config.channels)]
    out: Arrays = {}

    def put(name: str, layer: IntegerLayer) -> None:
        out.update({f"{name}/{part}": value for part, value in layer._asdict().items()})

    def both(name: str) -> tuple[np.ndarray, np.ndarray]:
        return weights[f"{name}/kernel"].astype(np.float64), weights[f"{name}/bias"].astype(np.float64)

    plain = [name for side in ("synthesis", "analysis") for name in block_layers(config, side)]
    for name in (*plain, "synthesis/coarse", "analysis/coarse"):
        put(name, integer_layer(*both(name), ACTIVATION_BITS, ACTIVATION_BITS))
    kernel, bias = both("synthesis/latents")
    kernel = _sorted(kernel, order) / of_inputs[:, None]
    put("synthesis/latents", integer_layer(kernel, bias, ACTIVATION_BITS, ACTIVATION_BITS))
    put("synthesis/skip", integer_layer(*both("synthesis/skip"), PIXEL_BITS, ACTIVATION_BITS))
    put("synthesis/fine", integer_layer(*both("synthesis/fine"), ACTIVATION_BITS, PIXEL_BITS))
    kernel, bias = both("analysis/fine")
    put("analysis/fine", integer_layer(kernel * INPUT_SCALE, bias, INPUT_BITS, ACTIVATION_BITS))
    kernel, bias = both("analysis/latents")
    kernel, bias = _sorted(kernel.T, order).T * of_inputs, _sorted(bias, order) * of_inputs
    put("analysis/latents", integer_layer(kernel, bias, ACTIVATION_BITS, PIXEL_BITS))

    steps = _sorted(anchors["inverse_gain"].T.astype(np.float64), order).T
    first = np.searchsorted(subbands_in_file_order(config.channels), np.arange(len(scales)))
    out["gains/coefficients"] = _logarithms(steps[:, first] + np.log(scales))
    for side in ("synthesis", "analysis"):
        for place in ("fine", "out"):
            out[f"gains/{side}/{place}"] = _logarithms(anchors[f"{side}/{place}"])
    return out


def _sorted(rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows in the order of latents -> in that of the core."""
    out = np.empty_like(rows)
    out[order] = rows
    return out


def _logarithms(natural: np.ndarray) -> np.ndarray:
    """i32: base 2, unit 2**-12."""
    return np.rint(natural.astype(np.float64) / math.log(2) * (1 << LOG_BITS)).astype(np.int32)
