"""Arithmetics in TensorFlow: what `network` computes with while it trains, and how weights begin.

Float is plain float.  Quantised rounds weights and activations to the fixed-point grid of `integer`, with
straight-through gradients; evaluated in float64 it equals `integer.Exact` value for value.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from vaecodec.transforms.integer import (
    ACTIVATION_BITS,
    ACTIVATION_MAX,
    WEIGHT_BITS,
)


class Weight(NamedTuple):
    """What the architecture asks for: a shape, and how to begin."""

    shape: tuple[int, ...]
    deviation: float  # standard deviation of the initial normal values


class Shapes:
    """Runs the architecture on shapes alone; collects `weights` and counts `macs`."""

    def __init__(self) -> None:
        self.weights: dict[str, Weight] = {}
        self.conditions: dict[str, int] = {}
        self.macs: dict[str, int] = {}

    def _add(self, name: str, shape: tuple[int, ...], fan_in: int, cells: int, gain: float = 1.0) -> None:
        self.weights[f"{name}/kernel"] = Weight(shape, gain * math.sqrt(1.0 / fan_in))
        self.weights[f"{name}/bias"] = Weight(shape[-1:], 0.0)
        self.macs[name] = cells * math.prod(shape)

    def channels(self, x):
        return x[-1]

    def dense(self, name, x, channels, relu=False, small=False):
        self._add(name, (x[-1], channels), x[-1], math.prod(x[:-1]), 0.01 if small else math.sqrt(2.0) if relu else 1.0)
        return (*x[:-1], channels)

    def depthwise(self, name, x):
        self._add(name, (3, 3, x[-1]), 9, math.prod(x[:-1]))
        return x

    def condition(self, name, x):
        self.conditions[name] = x[-1]
        return x

    def gate(self, name, x):
        self.dense(name, x, 2 * x[-1])
        return x

    def add(self, x, y):
        return x

    def shuffle(self, x, r):
        return (*x[:-3], x[-3] * r, x[-2] * r, x[-1] // (r * r))

    def unshuffle(self, x, r):
        return (*x[:-3], x[-3] // r, x[-2] // r, x[-1] * r * r)


def depthwise(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[B, h, w, C] convolved channel by channel with [3, 3, C], zero padding."""
    return tf.nn.depthwise_conv2d(x, kernel[..., None], [1, 1, 1, 1], "SAME")


def pointwise(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[B, h, w, C] times [C, K] as one matrix product: faster to train on a CPU than a 1x1 convolution."""
    rows = tf.reshape(x, [-1, x.shape[-1]])
    shape = tf.concat([tf.shape(x)[:-1], kernel.shape[-1:]], 0)
    y = tf.reshape(tf.matmul(rows, kernel), shape)
    return tf.ensure_shape(y, [*x.shape[:-1], kernel.shape[-1]])


class Float:
    """Plain floating point over `weights[name]`; conditioning vectors [B, 1, 1, C] by name.

    `operands` is the dtype that pointwise products are taken in (tf.bfloat16 trains faster).
    """

    def __init__(self, weights: Any, conditions: Any, operands: tf.DType = tf.float32) -> None:
        self.weights, self.conditions, self.operands = weights, conditions, operands
        self.pointwise = pointwise

    def channels(self, x):
        return x.shape[-1]

    def dense(self, name, x, channels, relu=False, small=False):
        kernel = tf.cast(self.weights[f"{name}/kernel"], self.operands)
        t = tf.cast(self.pointwise(tf.cast(x, self.operands), kernel), x.dtype) + self.weights[f"{name}/bias"]
        return tf.nn.relu(t) if relu else t

    def depthwise(self, name, x):
        return depthwise(x, self.weights[f"{name}/kernel"]) + self.weights[f"{name}/bias"]

    def condition(self, name, x):
        return x * self.conditions[name]

    def coefficients(self, x):
        from vaecodec.training import wavelet_layers

        return wavelet_layers.coefficients(x)

    def samples(self, y):
        from vaecodec.training import wavelet_layers

        return wavelet_layers.samples(y)

    def gate(self, name, x):
        a, b = tf.split(self.dense(name, x, 2 * x.shape[-1]), 2, axis=-1)
        return tf.nn.relu(a) * b

    def add(self, x, y):
        return x + y

    def shuffle(self, x, r):
        return tf.nn.depth_to_space(x, r)

    def unshuffle(self, x, r):
        return tf.nn.space_to_depth(x, r)


def straight_through(x: tf.Tensor, rounded: tf.Tensor) -> tf.Tensor:
    """`rounded` in value, `x` in gradient (Bengio et al. 2013)."""
    return x + tf.stop_gradient(rounded - x)


def on_grid(x: tf.Tensor, bits: int) -> tf.Tensor:
    """x rounded to multiples of 2**-bits, halves up, with a straight-through gradient."""
    return straight_through(x, tf.floor(x * 2.0**bits + 0.5) * 2.0**-bits)


def activation(x: tf.Tensor, relu: bool = False) -> tf.Tensor:
    """x on the activation grid, clipped to what an activation can hold."""
    low, high = -ACTIVATION_MAX * 2.0**-ACTIVATION_BITS, ACTIVATION_MAX * 2.0**-ACTIVATION_BITS
    return tf.clip_by_value(on_grid(x, ACTIVATION_BITS), 0.0 if relu else low, high)


class Quantised(Float):
    """The numbers of `integer.Exact` carried in floats: every value is a multiple of 2**-6, every weight of 2**-9."""

    def _kernel(self, name):
        return on_grid(self.weights[f"{name}/kernel"], WEIGHT_BITS)

    def _bias(self, name):
        return on_grid(self.weights[f"{name}/bias"], WEIGHT_BITS + ACTIVATION_BITS)

    def _product(self, name, x):
        return pointwise(x, self._kernel(name)) + self._bias(name)

    def dense(self, name, x, channels, relu=False, small=False):
        return activation(self._product(name, x), relu)

    def depthwise(self, name, x):
        return activation(depthwise(x, self._kernel(name)) + self._bias(name))

    def condition(self, name, x):
        return self.add(x, self.conditions[name])

    def gate(self, name, x):
        return activation(super().gate(name, x))

    def add(self, x, y):
        return activation(x + y)
