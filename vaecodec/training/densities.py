"""The densities of the VAE, as TensorFlow Probability distributions, and their integer-step masses.

base density p              Noisy(p) at integers: the mass of the unit box around them
     .-.                         |
    /   \\                     | | |
___/     \\___             _.|_|_|_|._
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from vaecodec.config import SCALE_MIN, SCALE_RATIO

LOG2 = 0.6931471805599453


class Scalar(tfd.Distribution):
    """What the densities here have in common: one number an event, and samples without a gradient."""

    def __init__(self, dtype: tf.DType, parameters: dict) -> None:
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=type(self).__name__,
        )

    def _event_shape(self):
        return tf.TensorShape([])

    def _event_shape_tensor(self):
        return tf.constant([], tf.int32)


class Noisy(Scalar):
    """`base` convolved with U(-1/2, 1/2): its density at x is cdf(x + 1/2) - cdf(x - 1/2).

    At integers that density is the probability of the integer, so one object serves the noisy loss and the
    tables (Balle et al. 2018, appendix 6.2).  Needs base.cdf.
    """

    def __init__(self, base: tfd.Distribution) -> None:
        self.base = base
        super().__init__(base.dtype, {"base": base})

    def _batch_shape(self):
        return self.base.batch_shape

    def _batch_shape_tensor(self):
        return self.base.batch_shape_tensor()

    def _sample_n(self, n, seed=None):
        seeds = tfp.random.split_seed(seed, 2)
        x = self.base.sample(n, seed=seeds[0])
        return x + tf.random.stateless_uniform(tf.shape(x), seeds[1], -0.5, 0.5, x.dtype)

    def _log_prob(self, x):
        return tf.math.log(tf.maximum(self._prob(x), 1e-9))

    def _prob(self, x):
        upper, lower = self.base.cdf(x + 0.5), self.base.cdf(x - 0.5)
        return upper - lower


class ScaleMixture(Scalar):
    """A symmetric mixture of Normals around `loc` with scales scale * ratios[k] and `weights`[k].

    With one component it is a Normal.  More components give the heavier tails that coefficients have when
    their scale is not known exactly (Wainwright and Simoncelli 2000), at no cost to the decoder: the shape
    is baked into the tables.
    """

    def __init__(self, loc: tf.Tensor, scale: tf.Tensor, ratios: tf.Tensor, weights: tf.Tensor) -> None:
        self.loc, self.scale, self.ratios, self.weights = loc, scale, ratios, weights
        super().__init__(scale.dtype, {"loc": loc, "scale": scale, "ratios": ratios, "weights": weights})

    def _batch_shape(self):
        return tf.broadcast_static_shape(self.loc.shape, self.scale.shape)

    def _batch_shape_tensor(self):
        return tf.broadcast_dynamic_shape(tf.shape(self.loc), tf.shape(self.scale))

    def _components(self, x: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """(weight, x in units of its scale) of each Normal."""
        standard = (x - self.loc) / self.scale
        return [(w, standard / r) for w, r in zip(tf.unstack(self.weights), tf.unstack(self.ratios), strict=True)]

    def _cdf(self, x):
        # One erfc is precise in the lower tail; tfd.Normal.cdf takes three functions to be so in both.
        root = math.sqrt(0.5)
        return tf.add_n([0.5 * w * tf.math.erfc(-root * t) for w, t in self._components(x)])

    def _prob(self, x):
        norm = 1.0 / (math.sqrt(2.0 * math.pi) * self.scale)
        ratios = tf.unstack(self.ratios)
        parts = zip(self._components(x), ratios, strict=True)
        return norm * tf.add_n([w / r * tf.exp(-0.5 * t * t) for (w, t), r in parts])

    def _log_prob(self, x):
        return tf.math.log(self._prob(x))

    def _sample_n(self, n, seed=None):
        seeds = tfp.random.split_seed(seed, 2)
        shape = tf.concat([[n], self._batch_shape_tensor()], 0)
        which = tfd.Categorical(probs=self.weights).sample(shape, seed=seeds[0])
        normal = tfd.Normal(tf.zeros([], self.dtype), tf.ones([], self.dtype)).sample(shape, seed=seeds[1])
        return self.loc + self.scale * tf.gather(self.ratios, which) * normal


class NoisySymmetric(Noisy):
    """Noisy for a base that is symmetric around `base.loc`: both cdfs are taken in the lower tail, where
    float32 keeps its relative precision.
    """

    def _prob(self, x):
        x = self.base.loc - tf.abs(x - self.base.loc)
        return super()._prob(x)


def conditional(loc: tf.Tensor, index: tf.Tensor, ratios: tf.Tensor, weights: tf.Tensor) -> NoisySymmetric:
    """p(y | what is decoded already): mean `loc`, scale from the ladder at real rung `index`."""
    scale = SCALE_MIN * tf.exp(tf.maximum(index, 0.0) * float(np.log(SCALE_RATIO)))
    return NoisySymmetric(ScaleMixture(loc, scale, ratios, weights))


def bits(density: tfd.Distribution, x: tf.Tensor) -> tf.Tensor:
    """-log2 density(x), elementwise: information content in bits."""
    return density.log_prob(x) / -LOG2


def masses(density: tfd.Distribution, low: int, high: int) -> np.ndarray:
    """f64[high - low + 1, ...]: the probability of each integer from low to high."""
    grid = np.arange(low, high + 1, dtype=np.float64)
    return density.prob(grid.reshape(-1, *[1] * len(density.batch_shape))).numpy()


class Hurdle(Scalar):
    """Of an integer in 0..V: Bernoulli whether it is 0, else categorical over 1..V in an exponential family.

    log2 odds of not 0: `odds` [...];  log2 p(v | not 0) = natural . kernel[:, v - 1] + bias[v - 1] + constant, with
    natural [..., K] and the statistics kernel [K, V] learned: pixels of digits pile up at 0 and near 255, which no
    density of two parameters has room for.
    """

    def __init__(self, odds: tf.Tensor, natural: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> None:
        self.odds, self.natural, self.kernel, self.bias = odds, natural, kernel, bias
        super().__init__(odds.dtype, {"odds": odds, "natural": natural, "kernel": kernel, "bias": bias})

    def _batch_shape(self):
        return self.odds.shape

    def _batch_shape_tensor(self):
        return tf.shape(self.odds)

    def values(self, natural: tf.Tensor) -> tfd.Distribution:
        """Of the value less 1, where it is not 0."""
        logits = LOG2 * (tf.linalg.matmul(natural, self.kernel) + self.bias)
        return tfd.Categorical(logits=logits)

    def _log_prob(self, x):
        """What is 0 needs no softmax, and most is."""
        where = tf.where(x > 0)
        value = self.values(tf.gather_nd(self.natural, where)).log_prob(tf.gather_nd(x, where) - 1.0)
        ink = tfd.Bernoulli(logits=LOG2 * self.odds).log_prob(tf.cast(x > 0, x.dtype))
        return ink + tf.scatter_nd(where, value, tf.shape(x, tf.int64))

    def _sample_n(self, n, seed=None):
        seeds = tfp.random.split_seed(seed, 2)
        ink = tfd.Bernoulli(logits=LOG2 * self.odds, dtype=self.dtype).sample(n, seed=seeds[0])
        value = self.values(self.natural).sample(n, seed=seeds[1])
        return ink * (1.0 + tf.cast(value, self.dtype))
