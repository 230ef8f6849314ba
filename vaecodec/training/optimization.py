"""Adam over one flat vector: all weights end to end, in the order of their sorted names.

    weights by name <--Layout--> f32[P]        state = [weights, moment1, moment2, average, count]

A few operations on one long vector instead of a few on each of a hundred: on a CPU that is a fifth of a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

GROUPS = ("weights", "moment1", "moment2", "average")
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Kingma and Ba 2015, section 2
CLIP = 1.0  # norm of the gradient
AVERAGE = 0.999  # decay of the running average of the weights, which is what freezes


class Layout:
    """Where each weight lies in the vector."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.names = sorted(weights)
        self.shapes = [weights[name].shape for name in self.names]
        self.sizes = [math.prod(shape) for shape in self.shapes]

    def pack(self, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """Weights by name -> f32[P]."""
        return np.concatenate([np.asarray(weights[name], np.float32).ravel() for name in self.names])

    def unpack(self, vector: Any) -> dict[str, Any]:
        """f32[P], of NumPy or TensorFlow -> weights by name; the inverse of pack."""
        if isinstance(vector, np.ndarray):
            parts = np.split(vector, np.cumsum(self.sizes)[:-1])
            return {n: part.reshape(s) for n, part, s in zip(self.names, parts, self.shapes, strict=True)}
        parts = tf.split(vector, self.sizes)
        return {n: tf.reshape(part, s) for n, part, s in zip(self.names, parts, self.shapes, strict=True)}

    def begin(self, weights: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The state at step 0."""
        vector = self.pack(weights)
        return [vector, np.zeros_like(vector), np.zeros_like(vector), vector, np.zeros((), np.float32)]


def update(state: list[tf.Tensor], gradient: tf.Tensor, rate: tf.Tensor) -> list[tf.Tensor]:
    """The state after one step of Adam along `gradient` f32[P], which is clipped first."""
    weights, first, second, average, number = state
    number += 1.0
    gradient = tf.clip_by_norm(gradient, CLIP)
    rate *= tf.sqrt(1.0 - BETA2**number) / (1.0 - BETA1**number)
    first += (1 - BETA1) * (gradient - first)
    second += (1 - BETA2) * (gradient * gradient - second)
    weights -= rate * first / (tf.sqrt(second) + EPSILON)
    # Early on the average follows closely, or the start would linger in it.
    decay = tf.minimum(AVERAGE, number / (number + 10.0))
    return [weights, first, second, average + (1 - decay) * (weights - average), number]
