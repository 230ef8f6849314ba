"""Real latents <-> symbols, as training sees it."""

from __future__ import annotations

import tensorflow as tf


def add_noise(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """x + U(-1/2, 1/2): a sample of the unit box around x, the posterior (Balle et al. 2017, section 3).

    `seed` is i32[2]; stateless, so that the training step stays a pure function.
    """
    return x + tf.random.stateless_uniform(tf.shape(x), seed, -0.5, 0.5, x.dtype)
