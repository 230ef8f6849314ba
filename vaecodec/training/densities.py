"""Probability distributions of latents and pixels, as TensorFlow Probability distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as distributions

from vaecodec.config import SCALE_MIN, SCALE_RATIO

LOG2 = 0.6931471805599453
Tensor = Any


class Scalar(distributions.Distribution):
    """Base of distributions with scalar events and without samples that have a gradient."""

    def __init__(self, **parameters: Tensor) -> None:
        super().__init__(
            dtype=next(iter(parameters.values())).dtype,
            reparameterization_type=distributions.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=type(self).__name__,
        )

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _event_shape_tensor(self) -> Tensor:
        return tf.constant([], tf.int32)


class NoisyMixture(Scalar):
    """A scale mixture of Normals convolved with U(-1/2, 1/2).

    Its density at x is F(x + 1/2) - F(x - 1/2), where F is the cumulative distribution of the mixture.  At integers
    that is the probability of the integer, so one distribution serves both the noisy loss and the coder's tables
    (Balle et al. 2018, appendix 6.2).  The mixture has the mean `loc` and components of scale `scale * ratios[k]` and
    weight `weights[k]`: heavier tails than a Normal, as coefficients have if their scale is not known exactly
    (Wainwright and Simoncelli 2000).
    """

    def __init__(self, loc: Tensor, scale: Tensor, ratios: Tensor, weights: Tensor) -> None:
        self.loc, self.scale, self.ratios, self.weights = loc, scale, ratios, weights
        super().__init__(scale=scale, loc=loc, ratios=ratios, weights=weights)

    def _batch_shape(self) -> tf.TensorShape:
        return tf.broadcast_static_shape(self.loc.shape, self.scale.shape)

    def _batch_shape_tensor(self) -> Tensor:
        return tf.broadcast_dynamic_shape(tf.shape(self.loc), tf.shape(self.scale))

    def _cumulative(self, x: Tensor) -> Tensor:
        """F(x); one erfc is precise in the lower tail, where distributions.Normal.cdf evaluates three functions."""
        standard, root = (x - self.loc) / self.scale, math.sqrt(0.5)
        components = zip(tf.unstack(self.weights), tf.unstack(self.ratios), strict=True)
        return tf.add_n([0.5 * weight * tf.math.erfc(-root * (standard / ratio)) for weight, ratio in components])

    def _prob(self, x: Tensor) -> Tensor:
        x = self.loc - tf.abs(x - self.loc)  # the lower tail, where float32 keeps its relative precision
        upper, lower = self._cumulative(x + 0.5), self._cumulative(x - 0.5)
        return upper - lower

    def _log_prob(self, x: Tensor) -> Tensor:
        return tf.math.log(tf.maximum(self._prob(x), 1e-9))


def latent_density(loc: Tensor, index: Tensor, ratios: Tensor, weights: Tensor) -> NoisyMixture:
    """The density of latents with mean `loc` and a real scale index `index`."""
    scale = SCALE_MIN * tf.exp(tf.maximum(index, 0.0) * float(np.log(SCALE_RATIO)))
    return NoisyMixture(loc, scale, ratios, weights)


def bits(density: distributions.Distribution, x: Tensor) -> Tensor:
    """Information content -log2 density(x), elementwise."""
    return density.log_prob(x) / -LOG2


class Hurdle(Scalar):
    """The density of an integer in 0..V: Bernoulli for 0, and categorical in an exponential family for 1..V.

    log2 odds of not 0 are `odds` f[...];  log2 p(v | not 0) = natural . kernel[:, v - 1] + bias[v - 1] + constant, with
    natural f[..., K] and learned statistics kernel f[K, V].  Pixels of digits pile up at 0 and near 255, which no
    density of two parameters can describe.
    """

    def __init__(self, odds: Tensor, natural: Tensor, kernel: Tensor, bias: Tensor) -> None:
        self.odds, self.natural, self.kernel, self.bias = odds, natural, kernel, bias
        super().__init__(odds=odds, natural=natural, kernel=kernel, bias=bias)

    def _batch_shape(self) -> tf.TensorShape:
        return self.odds.shape

    def _batch_shape_tensor(self) -> Tensor:
        return tf.shape(self.odds)

    def values(self, natural: Tensor) -> distributions.Distribution:
        """The distribution of v - 1, given that v is not 0."""
        return distributions.Categorical(logits=LOG2 * (tf.linalg.matmul(natural, self.kernel) + self.bias))

    def _log_prob(self, x: Tensor) -> Tensor:
        where = tf.where(x > 0)  # most pixels are 0, and need no softmax
        value = self.values(tf.gather_nd(self.natural, where)).log_prob(tf.gather_nd(x, where) - 1.0)
        nonzero = distributions.Bernoulli(logits=LOG2 * self.odds).log_prob(tf.cast(x > 0, x.dtype))
        return nonzero + tf.scatter_nd(where, value, tf.shape(x, tf.int64))
