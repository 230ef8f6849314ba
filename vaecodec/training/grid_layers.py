"""The same arithmetic in TensorFlow, for training: `grids.Exact` carried in floats, and its shapes."""

from __future__ import annotations

import math

import tensorflow as tf

from vaecodec.training import layers
from vaecodec.training.layers import activation, depthwise
from vaecodec.transforms.integer import ACTIVATION_BITS, ACTIVATION_MAX


class Shapes(layers.Shapes):
    """layers.Shapes on [h, w, C]."""

    def mix(self, name, x):
        cells = x[-3] * x[-2]
        self._add(name, (cells, cells), cells, x[-1], 0.01)
        return x

    def neighbours(self, x):
        return (*x[:-1], 9 * x[-1])

    def flatten(self, x):
        return (1, 1, math.prod(x))

    def unflatten(self, x, side):
        return (side, side, x[-1] // side**2)

    def concat(self, x, y):
        return (*x[:-1], x[-1] + y[-1])


class Quantised(layers.Quantised):
    """layers.Quantised with what `generative` asks for; equals grids.Exact value for value in float64.

    In float32 an activation is one operation that was made for this, and its gradient another: on a CPU the seven
    that it is otherwise take longer than the products.
    """

    def __init__(self, weights):
        super().__init__(weights, {})

    def _activation(self, x, relu=False):
        if x.dtype != tf.float32:
            return activation(x, relu)
        high = ACTIVATION_MAX * 2.0**-ACTIVATION_BITS
        if relu:
            return tf.quantization.fake_quant_with_min_max_args(x, 0.0, high, 10)
        return tf.quantization.fake_quant_with_min_max_args(x, -high, high, 11, narrow_range=True)

    def dense(self, name, x, channels, relu=False, small=False):
        return self._activation(self._product(name, x), relu)

    def depthwise(self, name, x):
        return self._activation(depthwise(x, self._kernel(name)) + self._bias(name))

    def add(self, x, y):
        return self._activation(x + y)

    def mix(self, name, x):
        cells = tf.reshape(x, [-1, x.shape[1] * x.shape[2], x.shape[3]])
        t = tf.matmul(self._kernel(name), cells, transpose_a=True) + self._bias(name)[:, None]
        return tf.reshape(self._activation(t), [-1, *x.shape[1:]])

    def neighbours(self, x):
        height, width = x.shape[1:3]
        padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return tf.concat([padded[:, t : t + height, s : s + width] for t in range(3) for s in range(3)], -1)

    def concat(self, x, y):
        return tf.concat([x, y], -1)

    def flatten(self, x):
        return tf.reshape(x, [-1, 1, 1, math.prod(x.shape[1:])])

    def unflatten(self, x, side):
        return tf.reshape(x, [-1, side, side, x.shape[-1] // side**2])
