"""Frozen model -> weights to train on from: the way back over the bridge of `freezing`, as exact as the file is."""

from __future__ import annotations

import numpy as np

from vaecodec import wavelet_freezing
from vaecodec.config import Config
from vaecodec.errors import ModelError
from vaecodec.freezing import fraction_bits
from vaecodec.vae import initial_weights, specification
from vaecodec.weights import Model


def weights_of(model: Model) -> tuple[Config, dict[str, np.ndarray]]:
    """(config, f32 weights by name): those of the transforms as float16 has them, those of the prior exactly.

    Raises ModelError where the file has not all of them, or not in the shapes of its architecture.
    """
    config, wanted = model.config, initial_weights(model.config)
    prior = set(specification(config)["prior"].weights)
    found = {name: _one(model, name, name in prior).astype(np.float32) for name in wanted}
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            raise ModelError(f"model {model.name}: {name} has shape {found[name].shape}, expected {value.shape}")
    return config, found


def _one(model: Model, name: str, integer: bool) -> np.ndarray:
    if name in wavelet_freezing.baked():
        return model.array(f"start/{name}")
    if name in wavelet_freezing.ANCHORED:
        return model.array(f"anchors/{wavelet_freezing.ANCHORED[name]}")
    if integer:
        return model.array(f"integer/{name}") * 2.0 ** -fraction_bits(name)
    return model.array(f"weights/{name}")
