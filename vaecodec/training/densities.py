"""Define the densities of latents and pixels, as TensorFlow Probability distributions, and the trellis under them.

An encoder chooses symbols with the least J = D + lambda R, by a trellis.  Near a minimum its cost changes as if the
symbols were fixed, so the gradient of J in scale indices is that of the rate alone, and in means that of the squared
error alone.  Of symbols other than 0 the latter is almost all noise, whose mean is the slope of the rate: that is used
for them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as distributions

from vaecodec.config import SCALE_MIN, SCALE_RATIO, SCALES, SQUARED_STEPS_PER_BIT
from vaecodec.model.file import load_model
from vaecodec.native.prior import LOWEST_DISTANCES
from vaecodec.native.symbols import HALF_LEVEL, quantise, symbol_values
from vaecodec.rdo import UNIT, Quantizer, quantizer, symbol_bits

LOG2 = 0.6931471805599453
KNOTS = 24  # centroids are learned at every second scale index, and are constant beyond the last knot
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


def joined(parts: list[Tensor]) -> Tensor:
    """f32[B, N]: parts f32[B, ...] of each image, because one long tensor takes fewer operations than many."""
    return tf.concat([tf.reshape(part, [part.shape[0], -1]) for part in parts], 1)


def sums_at_mask(rates: Tensor, lowest_mask: np.ndarray) -> tuple[Tensor, Tensor]:
    """(bits f32[B] of the lowest coefficients, of all), from bits f32[B, N] and the mask bool[n] of the lowest."""
    lowest = tf.reduce_sum(tf.where(lowest_mask, rates[:, : lowest_mask.size], 0.0), 1)
    return lowest, lowest + tf.reduce_sum(rates[:, lowest_mask.size :], 1)


def sums_of_parts(rates: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(bits f32[B] of the lowest coefficients, of all), from those of each part."""
    return tf.add_n(rates[: 1 + len(LOWEST_DISTANCES)]), tf.add_n(rates)


def centroid(table: Tensor, symbols: Tensor, index: Tensor) -> Tensor:
    """The values that symbols represent, less the mean: symbols shifted by their magnitude and scale index."""
    size = tf.abs(symbols)
    place = tf.clip_by_value(index / 2.0, 0.0, KNOTS - 2.0)
    knot = tf.floor(place)
    fraction, flat = place - knot, tf.reshape(table, [-1])
    entry = 2 * tf.cast(knot, tf.int32) + tf.cast(size > 1.5, tf.int32)
    shift = tf.gather(flat, entry) * (1.0 - fraction) + tf.gather(flat, entry + 2) * fraction
    return symbols + tf.sign(symbols) * shift


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


MAGNITUDES = 1024  # whose bits are tabulated; larger ones take those of the last
RISE_MAX = 8.0  # bits from a magnitude above 0 to the next, at most: where escapes begin, bits jump
LOWEST_INDEX = -4.0  # table index, from which on lower ones have no gradient


class Trellis(NamedTuple):
    """What the trellis takes from a model file: its quantizer, bits f32[tables, MAGNITUDES], and its first scale."""

    quantizer: Quantizer
    bits: np.ndarray
    first: int

    def choose(self, target: Tensor, loc: Tensor, index: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Symbols and values f32[...], in quantisation steps, of targets with means and scale indices f32[...].

        Symbols outside the mask are 0, and values their means.  Table 0, of which no symbols are coded, gives way to
        table 1, so that the prior can learn where it is wrong.
        """
        where = tf.ones_like(target, tf.bool) if mask is None else tf.broadcast_to(mask, tf.shape(target))
        symbols, values = tf.numpy_function(
            self._choose, [target, loc, index, where], (tf.float32, tf.float32), stateful=False
        )
        return tf.ensure_shape(symbols, target.shape), tf.ensure_shape(values, target.shape)

    def _choose(
        self, target: np.ndarray, loc: np.ndarray, index: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        symbols, values = np.zeros_like(target), loc.copy()
        means = np.rint(UNIT * loc[mask]).astype(np.int32)
        tables = np.clip(np.rint(index[mask]) - self.first, 1, len(self.bits) - 1).astype(np.uint8)
        costs, centroids = self.quantizer.costs, self.quantizer.centroids
        chosen = quantise(np.ascontiguousarray(target[mask]), tables, means, centroids, costs)
        symbols[mask] = chosen
        values[mask] = symbol_values(chosen, tables, means, centroids) * np.float32(1 / UNIT)
        return symbols, values

    def rate(self, symbols: Tensor, index: Tensor) -> Tensor:
        """Bits f32[...] of symbols, linear in their scale indices between tables."""
        place = tf.clip_by_value(index - self.first, LOWEST_INDEX, len(self.bits) - 1.0)
        row = tf.clip_by_value(tf.floor(place), 0.0, len(self.bits) - 2.0)
        fraction = place - row
        entry = MAGNITUDES * tf.cast(row, tf.int32) + tf.cast(tf.minimum(tf.abs(symbols), MAGNITUDES - 1.0), tf.int32)
        flat = tf.constant(self.bits.ravel())
        return (1.0 - fraction) * tf.gather(flat, entry) + fraction * tf.gather(flat, entry + MAGNITUDES)

    def slope(self, symbols: Tensor, index: Tensor) -> Tensor:
        """Bits f32[...] for a step more in the direction of symbols that are not 0, without a gradient."""
        index, sign = tf.stop_gradient(index), tf.sign(symbols)
        return sign * (self.rate(symbols + sign, index) - self.rate(symbols - sign, index)) * (UNIT / (4 * HALF_LEVEL))

    def cost(self, target: Tensor, loc: Tensor, index: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(bits, squared error in bits, values), each f32[...], 0 outside the mask, of a part f32[...].

        Bits have a gradient in scale indices, and squared errors in means.
        """
        target, fixed = tf.stop_gradient(target), tf.stop_gradient(loc)
        symbols, values = self.choose(target, fixed, tf.stop_gradient(index), mask)
        rate = self.rate(symbols, index)
        error = tf.square(target - values) / SQUARED_STEPS_PER_BIT
        slope = tf.where(symbols == 0.0, 2.0 / SQUARED_STEPS_PER_BIT * (target - fixed), self.slope(symbols, index))
        error -= slope * (loc - fixed)
        if mask is not None:
            rate, error, values = (tf.where(mask, x, 0.0) for x in (rate, error, values))
        return rate, error, values

    def code(self, target: Tensor, loc: Tensor, index: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(bits, values), each f32[...], 0 outside the mask, of a part f32[...], for a distortion of other values.

        Bits have a gradient in scale indices and, of symbols other than 0, in means.  The value of a symbol 0 moves
        with the mean; others have no gradient.
        """
        fixed = tf.stop_gradient(loc)
        symbols, values = self.choose(target, fixed, tf.stop_gradient(index), mask)
        rate = self.rate(symbols, index) - self.slope(symbols, index) * (loc - fixed)
        values += tf.where(symbols == 0.0, loc - fixed, 0.0)
        if mask is not None:
            rate, values = (tf.where(mask, x, 0.0) for x in (rate, values))
        return rate, values


def load_trellis(name: str) -> Trellis:
    """The trellis of a model by name or path; raises ModelError."""
    model = load_model(name)
    tables = model.models.tables
    bits = np.stack([symbol_bits(tables, table, MAGNITUDES) for table in range(1, model.prior.scales)])
    for magnitude in range(2, MAGNITUDES):
        bits[:, magnitude] = np.minimum(bits[:, magnitude], bits[:, magnitude - 1] + RISE_MAX)
    beyond = bits[0] + (bits[0] - bits[1])  # table 0, whose symbols are not coded, as the tables go on
    beyond[0] = bits[0, 0] / 2
    return Trellis(
        quantizer(model.prior, tables), np.stack([beyond, *bits]).astype(np.float32), SCALES - model.prior.scales
    )
