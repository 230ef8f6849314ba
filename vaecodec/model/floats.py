"""The float32 view of an integer model, for encoders that need gradients and for training on from a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vaecodec.config import Config
from vaecodec.model.transforms import (
    ACTIVATION_BITS,
    INPUT_BITS,
    INPUT_SCALE,
    PIXEL_BITS,
    subband_scales,
)
from vaecodec.transforms.gains import LOG_BITS, interpolate
from vaecodec.transforms.latents import file_order, subband_of, subbands_in_file_order

PRIOR_WEIGHT_BITS, PRIOR_SUM_BITS = 9, 15
# (unit of the inputs, unit of the outputs) of layers that are not between activations.
UNITS = {
    "synthesis/skip": (PIXEL_BITS, ACTIVATION_BITS),
    "synthesis/fine": (ACTIVATION_BITS, PIXEL_BITS),
    "analysis/fine": (INPUT_BITS, ACTIVATION_BITS),
    "analysis/latents": (ACTIVATION_BITS, PIXEL_BITS),
}
SIDES = ("synthesis", "analysis")

Arrays = Mapping[str, np.ndarray]


def transform_weights(config: Config, arrays: Arrays, sides: tuple[str, ...] = SIDES) -> dict[str, np.ndarray]:
    """f32 kernels and biases by layer, as trained: latents normalised and in their own order."""
    out: dict[str, np.ndarray] = {}
    for name, kernel in arrays.items():
        layer, part = name.rsplit("/", 1) if "/" in name else ("", "")
        if part != "kernel" or not layer.startswith(tuple(f"{side}/" for side in sides)):
            continue
        inputs, outputs = UNITS.get(layer, (ACTIVATION_BITS, ACTIVATION_BITS))
        bits = arrays[f"{layer}/shift"].astype(int) + outputs - inputs
        out[f"{layer}/kernel"] = np.ldexp(kernel.astype(np.float32), -bits)
        out[f"{layer}/bias"] = np.ldexp(arrays[f"{layer}/bias"].astype(np.float64), -(bits + inputs)).astype(np.float32)
    order = file_order(config.channels)
    scales = subband_scales(config.channels)[subbands_in_file_order(config.channels)].astype(np.float32)
    if "synthesis" in sides:
        out["synthesis/latents/kernel"] = (out["synthesis/latents/kernel"] * scales[:, None])[order]
    if "analysis" in sides and "analysis/latents/kernel" in out:
        out["analysis/fine/kernel"] = out["analysis/fine/kernel"] / np.float32(INPUT_SCALE)
        out["analysis/latents/kernel"] = (out["analysis/latents/kernel"] / scales)[:, order]
        out["analysis/latents/bias"] = (out["analysis/latents/bias"] / scales)[order]
    return out


def inverse_gain(config: Config, arrays: Arrays, quality_index: int) -> np.ndarray:
    """f32[256 C]: what a quantisation step of each latent is, on a scale of 1 for 255 levels."""
    gains = np.exp2(interpolate(arrays["gains/coefficients"], quality_index) / (1 << LOG_BITS))
    gains /= subband_scales(config.channels)
    return gains[subband_of(config.channels)].astype(np.float32)


def multiplier(arrays: Arrays, place: str, quality_index: int) -> np.ndarray:
    """f32[n]: what activations are multiplied by at a place, such as "synthesis/fine"."""
    return np.exp2(interpolate(arrays[f"gains/{place}"], quality_index) / (1 << LOG_BITS)).astype(np.float32)


def prior_weights(arrays: Arrays) -> dict[str, np.ndarray]:
    """f32 kernels and biases of the prior's layers, in units of 1."""
    out = {}
    for name, array in arrays.items():
        if name.startswith("prior/"):
            bits = PRIOR_SUM_BITS if name.endswith("/bias") else PRIOR_WEIGHT_BITS
            out[name.removeprefix("prior/")] = np.ldexp(array.astype(np.float32), -bits)
    return out
