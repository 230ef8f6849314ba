"""Make the weights of a grey model from those of a colour model, to train on from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vaecodec.config import CELL, Config
from vaecodec.native.reference.prior import octave_order
from vaecodec.training.vae import Weights

COLOURS = 3
ROOT = np.sqrt(COLOURS)  # brightness of a grey pixel in the colour transform, over its level


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
