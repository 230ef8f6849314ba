"""Real latents <-> symbols, as training sees it: three functions, one for each use."""

from __future__ import annotations

import tensorflow as tf

from vaecodec.layers import straight_through


def add_noise(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """x + U(-1/2, 1/2): a sample of the unit box around x, the posterior (Balle et al. 2017, section 3).

    `seed` is i32[2]; stateless, so that the training step stays a pure function.
    """
    return x + tf.random.stateless_uniform(tf.shape(x), seed, -0.5, 0.5, x.dtype)


def round_straight_through(x: tf.Tensor) -> tf.Tensor:
    """round(x) in value, x in gradient (Theis et al. 2017, section 2)."""
    return straight_through(x, tf.round(x))


def soft_round(x: tf.Tensor, alpha: float) -> tf.Tensor:
    """A smooth rounding, identity as alpha -> 0 and round(x) as alpha grows (Agustsson and Theis 2020, section 4.1)."""
    middle = tf.floor(x) + 0.5
    return middle + 0.5 * tf.tanh(alpha * (x - middle)) / tf.tanh(tf.cast(alpha / 2, x.dtype))
