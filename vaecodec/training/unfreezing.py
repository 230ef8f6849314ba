"""Frozen model -> weights to train on from: the way back over the bridge of `freezing`, as exact as the file is."""

from __future__ import annotations

import math

import numpy as np

from vaecodec.config import Config
from vaecodec.errors import ModelError
from vaecodec.model.file import Model
from vaecodec.model.floats import transform_weights
from vaecodec.training import wavelet_freezing
from vaecodec.training.vae import initial_weights
from vaecodec.transforms.gains import LOG_BITS


def weights_of(model: Model) -> tuple[Config, dict[str, np.ndarray]]:
    """(config, f32 weights by name): as near to those that were trained as the model's integers are.

    Raises ModelError where the file has not all of them, or not in the shapes of its architecture.
    """
    found = {**transform_weights(model.config, model.arrays), **model.prior_weights}
    found |= {name: model.array(f"start/{name}") for name in wavelet_freezing.baked()}
    for name, anchor in wavelet_freezing.ANCHORED.items():
        found[name] = (model.array(f"gains/{anchor}") * (math.log(2) / (1 << LOG_BITS))).astype(np.float32)
    expected = initial_weights(model.config)
    for name, value in expected.items():
        if name not in found or found[name].shape != value.shape:
            shape = found[name].shape if name in found else "missing"
            raise ModelError(f"model {model.name}: {name} has shape {shape}, expected {value.shape}")
    return model.config, {name: found[name].astype(np.float32) for name in expected}
