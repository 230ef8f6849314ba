"""Train the prior on the symbols that encoders choose with the trellis.

An encoder chooses symbols with the least J = D + lambda R.  Near a minimum its cost changes as if the symbols were
fixed, so the gradient of J in scale indices is that of the rate alone, and in means that of the squared error alone.
Of symbols other than 0 the latter is almost all noise, whose mean is the slope of the rate: that is used for them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vaecodec.config import SCALES, SQUARED_STEPS_PER_BIT
from vaecodec.model.file import load_model
from vaecodec.native.symbols import HALF_LEVEL, quantise, symbol_values
from vaecodec.rdo.quantization import UNIT, Quantizer, quantizer, symbol_bits

Tensor = Any
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
