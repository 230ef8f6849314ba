"""The transforms in TensorFlow, from the weights of a frozen model: for GPUs, and to check LiteRT against."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from vaecodec import network
from vaecodec.cells import HANDS, Hands
from vaecodec.config import Config
from vaecodec.errors import CodecError
from vaecodec.layers import Float
from vaecodec.weights import Model, conditions


def analysis(ops: Float, config: Config, pixels: tf.Tensor) -> tf.Tensor:
    """u8[B, H, W, C] -> f32[B, h, w, M]: what `litert/analysis` holds."""
    return network.analysis(ops, config, tf.cast(pixels, tf.float32) * (1.0 / 255.0) - 0.5)


def synthesis(ops: Float, config: Config, y: tf.Tensor) -> tf.Tensor:
    """f32[B, h, w, M] -> u8[B, H, W, C], halves rounded up: what `litert/synthesis` holds."""
    return tf.cast(tf.floor(tf.clip_by_value(unrounded(ops, config, y), 0.0, 255.0)), tf.uint8)


def unrounded(ops: Float, config: Config, y: tf.Tensor) -> tf.Tensor:
    """f32[B, h, w, M] -> f32[B, H, W, C] on a scale of 255 and a half more."""
    return network.synthesis(ops, config, y) * 255.0 + 128.0


class TensorFlow:
    """See transforms.Transforms; TensorFlow has hands of its own."""

    batch = 16  # tiles of 512x512: enough to fill a GPU, with its activations in a gigabyte

    def __init__(self, model: Model, device: str = "tensorflow") -> None:
        if device == "gpu" and not tf.config.list_physical_devices("GPU"):
            raise CodecError("device is 'gpu', and TensorFlow sees no GPU on this machine")
        prefix = "weights/"
        arrays = {n[len(prefix) :]: a for n, a in model.arrays.items() if n.startswith(prefix)}
        weights = {name: tf.constant(array.astype(np.float32)) for name, array in arrays.items()}
        config = model.config
        whole = tf.TensorSpec([None, None, None, config.channels], tf.uint8)
        latents = tf.TensorSpec([None, None, None, config.latents], tf.float32)
        vector = tf.TensorSpec([None], tf.float32)
        last = {"analysis": config.coarse, "synthesis": config.fine}

        def told(side, condition):
            parts = tf.split(condition, [config.fine, last[side]])
            return Float(weights, dict(zip(conditions(side), parts, strict=True)))

        @tf.function(input_signature=[whole, vector])
        def run_analysis(pixels, condition):
            return analysis(told("analysis", condition), config, pixels)

        @tf.function(input_signature=[latents, vector])
        def run_synthesis(y, condition):
            return synthesis(told("synthesis", condition), config, y)

        @tf.function(input_signature=[latents, vector])
        def run_unrounded(y, condition):
            return unrounded(told("synthesis", condition), config, y)

        self._analysis, self._synthesis, self._unrounded = run_analysis, run_synthesis, run_unrounded

    def analysis(self, pixels: np.ndarray, condition: np.ndarray, hands: Hands = HANDS) -> np.ndarray:
        return self._analysis(pixels, condition).numpy()

    def synthesis(self, y: np.ndarray, condition: np.ndarray, hands: Hands = HANDS) -> np.ndarray:
        return self._synthesis(y, condition).numpy()

    def unrounded(self, y: np.ndarray, condition: np.ndarray, hands: Hands = HANDS) -> np.ndarray:
        return self._unrounded(y, condition).numpy()
