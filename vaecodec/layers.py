"""Arithmetics in TensorFlow: what `network` computes with while it trains, and how weights begin.

Float is plain float.  Quantised rounds weights and activations to the fixed-point grid of `integer`, with
straight-through gradients; evaluated in float64 it equals `integer.Exact` value for value.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from vaecodec.config import STRIDE
from vaecodec.integer import (
    ACTIVATION_BITS,
    ACTIVATION_MAX,
    INDEX_GAIN,
    LOC_GAIN,
    LOC_MAX,
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

    def parameters(self, name, x, channels, half, predictor=None):
        # Only half of the outputs are needed at any cell, and only those are computed (integer.Exact).
        self._add(name, (x[-1], 2 * channels), x[-1], math.prod(x[:-1]) // 2, 0.01)
        if predictor is not None:
            self.weights[f"{name}/predictor"] = Weight((3, 3, channels), 0.0)
            self.macs[f"{name}/predictor"] = math.prod(x[:-1]) * 9 * channels // 2
        return (*x[:-1], channels), (*x[:-1], channels)

    def lapped(self, name, x):
        self.weights[f"{name}/kernel"] = Weight((STRIDE, STRIDE), 0.0)
        # Down each column, then along each row, where it is one product for the three colours.
        self.macs[name] = math.prod(x[:-1]) * (STRIDE * x[-1] + STRIDE * x[-1] ** 2)
        return x

    def gate(self, name, x):
        self.dense(name, x, 2 * x[-1])
        return x

    def add(self, x, y):
        return x

    def context(self, name, y, channels):
        # Half of y is known at any cell, and the rest is not computed with (integer.Exact).
        self._add(name, (y[-1], channels), y[-1], math.prod(y[:-1]) // 2)
        return (*y[:-1], channels)

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


def filtered_down(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[B, n * h, W, C] with each h rows multiplied by [h, h]."""
    rows = tf.reshape(x, [-1, kernel.shape[0], tf.shape(x)[2] * x.shape[3]])
    return tf.reshape(tf.matmul(kernel[None], rows, transpose_a=True), tf.shape(x))


def filtered_along(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[B, H, n * w, C] with each w columns multiplied by [w, w]."""
    wide = interleaved(kernel, x.shape[3])
    return tf.reshape(tf.matmul(tf.reshape(x, [-1, wide.shape[0]]), wide), tf.shape(x))


def interleaved(kernel: tf.Tensor, channels: int) -> tf.Tensor:
    """[w, w] -> [w * C, w * C], the same for each colour of a row, where they lie interleaved.

    One larger product is faster than to separate them.
    """
    return tf.reshape(kernel[:, None, :, None] * tf.eye(channels)[:, None, :], [kernel.shape[0] * channels] * 2)


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
        from vaecodec import wavelet_layers

        return wavelet_layers.coefficients(x)

    def samples(self, y):
        from vaecodec import wavelet_layers

        return wavelet_layers.samples(y)

    def lapped(self, name, x):
        """[B, H, W, C] filtered across the borders of its blocks, half a block to either side, down and along.

        Mirrored at its edges, where the filter of `bases.lapped_filter` then changes nothing.
        """
        kernel, half = tf.transpose(self.weights[f"{name}/kernel"]), STRIDE // 2
        # Of a block across an edge, the half beyond is the mirror image of the half within.
        first = kernel[half:, half:] + kernel[:half, half:][::-1]
        last = kernel[:half, :half] + kernel[half:, :half][::-1]
        for axis, filtered in ((1, filtered_down), (2, filtered_along)):
            parts = tf.split(x, [half, tf.shape(x)[axis] - STRIDE, half], axis)
            x = tf.concat([filtered(*one) for one in zip(parts, (first, kernel, last), strict=True)], axis)
        return x

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


def even_cells(x: tf.Tensor) -> tf.Tensor:
    """bool[h, w, 1]: the cells of [..., h, w, C] whose row and column add up to an even number."""
    shape = tf.shape(x)
    return tf.equal((tf.range(shape[-3])[:, None] + tf.range(shape[-2])[None, :]) % 2, 0)[..., None]


def take_half(x: tf.Tensor, half: int) -> tf.Tensor:
    """[..., h, w, C] -> [..., h, w, C/2]: what step `half` codes, the halves of the channels on a checkerboard.

    step 0   even cells: first half of the channels    odd cells: second half
    step 1   even cells: second half                   odd cells: first half
    """
    first, second = tf.split(x, 2, axis=-1)
    return tf.where(even_cells(x), *((first, second) if half == 0 else (second, first)))


def put_half(x: tf.Tensor, half: int) -> tf.Tensor:
    """The inverse of take_half, zeros in the other half: [..., h, w, C/2] -> [..., h, w, C]."""
    even, zeros = even_cells(x), tf.zeros_like(x)
    here, there = tf.where(even, x, zeros), tf.where(even, zeros, x)
    return tf.concat([here, there] if half == 0 else [there, here], -1)


class Quantised(Float):
    """The numbers of `integer.Exact` carried in floats: every value is a multiple of 2**-6, every weight of 2**-9.

    `gain` [B, 1, 1, M] scales means; `index` [B, 1, 1, M] is added to scale indices.
    """

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

    def context(self, name, y, channels):
        return self.dense(name, self.compand(y), channels)

    def compand(self, x):
        """Values to +-16: unit slope near zero, 1/16 beyond 8."""
        return activation(tf.clip_by_value(x, -7.5, 7.5) + tf.clip_by_value(x, -128.0, 128.0) / 16.0)

    def parameters(self, name, x, channels, half, predictor=None):
        """(mean, scale index) [..., C/2] of what step `half` codes: means in latent units before the gain,
        indices in rungs of the ladder; both real, since the loss wants their gradients.
        """
        loc, index = tf.split(self._product(name, x), 2, axis=-1)
        loc, index = take_half(loc, half) * LOC_GAIN, take_half(index, half)
        if predictor is not None:
            kernel = on_grid(self.weights[f"{name}/predictor"], WEIGHT_BITS)
            loc += take_half(depthwise(predictor, kernel), half)
        return tf.clip_by_value(loc, -LOC_MAX, LOC_MAX), index * INDEX_GAIN
