"""Arithmetics of the networks in TensorFlow: shapes alone, floats, and the codec's fixed point carried in floats.

The architectures in `model.network` and `model.generative` are written over an arithmetic.  `Shapes` gives the shapes
of their weights, `Float` trains the transforms, and `Quantised` trains the networks that the codec evaluates in
integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from vaecodec.config import CELL
from vaecodec.model.network import ACTIVATION_BITS, ACTIVATION_MAX, INDEX_GAIN, LOC_GAIN, WEIGHT_BITS
from vaecodec.rdo.prior_gradients import COMPANDED
from vaecodec.training import operations
from vaecodec.transforms import networks as transforms
from vaecodec.transforms.wavelet import OCTAVES

Shape = tuple[int, ...]
Tensor = Any
ACTIVATION_LIMIT = ACTIVATION_MAX * 2.0**-ACTIVATION_BITS
TRANSFORM_LIMIT = transforms.ACTIVATION_MAX * 2.0**-transforms.ACTIVATION_BITS
EXCESS_LIMIT = 0.75 * TRANSFORM_LIMIT  # from where a penalty keeps activations of the transforms in their range


class Weight(NamedTuple):
    """A weight that the architecture asks for."""

    shape: Shape
    deviation: float  # standard deviation of its initial values


class Shapes:
    """Evaluate an architecture on shapes [..., h, w, C]; collect weights and count multiply-accumulates."""

    def __init__(self) -> None:
        self.weights: dict[str, Weight] = {}
        self.conditions: dict[str, int] = {}
        self.macs: dict[str, int] = {}

    def _add(self, name: str, shape: Shape, fan_in: int, cells: int, gain: float = 1.0) -> None:
        self.weights[f"{name}/kernel"] = Weight(shape, gain * math.sqrt(1.0 / fan_in))
        self.weights[f"{name}/bias"] = Weight(shape[-1:], 0.0)
        self.macs[name] = cells * math.prod(shape)

    def channels(self, x: Shape) -> int:
        return x[-1]

    def dense(self, name: str, x: Shape, channels: int, relu: bool = False, small: bool = False) -> Shape:
        self._add(name, (x[-1], channels), x[-1], math.prod(x[:-1]), 0.01 if small else math.sqrt(2.0) if relu else 1.0)
        return (*x[:-1], channels)

    def depthwise(self, name: str, x: Shape) -> Shape:
        self._add(name, (3, 3, x[-1]), 9, math.prod(x[:-1]))
        return x

    def mix(self, name: str, x: Shape) -> Shape:
        cells = x[-3] * x[-2]
        self._add(name, (cells, cells), cells, x[-1], 0.01)
        return x

    def distribution(self, name: str, x: Shape, count: int) -> tuple[Shape, Shape]:
        self._add(name, (x[-1], 2 * count), x[-1], math.prod(x[:-1]), 0.1)
        return (*x[:-1], count), (*x[:-1], count)

    def condition(self, name: str, x: Shape) -> Shape:
        self.conditions[name] = x[-1]
        return x

    def gate(self, name: str, x: Shape) -> Shape:
        self.dense(name, x, 2 * x[-1])
        return x

    def rectify(self, x: Shape) -> Shape:
        return x

    def add(self, x: Shape, y: Shape) -> Shape:
        return x

    def concat(self, x: Shape, y: Shape) -> Shape:
        return (*x[:-1], x[-1] + y[-1])

    def neighbours(self, x: Shape) -> Shape:
        return (*x[:-1], 9 * x[-1])

    def flatten(self, x: Shape) -> Shape:
        return (1, 1, math.prod(x))

    def unflatten(self, x: Shape, side: int) -> Shape:
        return (side, side, x[-1] // side**2)

    def shuffle(self, x: Shape, r: int) -> Shape:
        return (*x[:-3], x[-3] * r, x[-2] * r, x[-1] // (r * r))

    def unshuffle(self, x: Shape, r: int) -> Shape:
        return (*x[:-3], x[-3] // r, x[-2] // r, x[-1] * r * r)

    def forward_dwt(self, x: Shape) -> Shape:
        samples = math.prod(x)
        self.macs["wavelet"] = (
            operations.dwt_macs(samples, range(OCTAVES)) + samples * x[-1]
        )  # and the colour transform
        return (x[-3] // 16, x[-2] // 16, CELL * x[-1])

    def inverse_dwt(self, y: Shape) -> Shape:
        x = (y[-3] * 16, y[-2] * 16, y[-1] // CELL)
        self.forward_dwt(x)
        return x


def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve f[B, h, w, C] channel by channel with f[3, 3, C], with zero padding."""
    return tf.nn.depthwise_conv2d(x, kernel[..., None], [1, 1, 1, 1], "SAME")


def pointwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Multiply f[B, h, w, C] by f[C, K] as one matrix product, which trains faster on a CPU than a 1x1 convolution."""
    return tf.reshape(tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel), [*x.shape[:-1], kernel.shape[-1]])


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """The value of `rounded` with the gradient of `x` (Bengio et al. 2013)."""
    return x + tf.stop_gradient(rounded - x)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def clip_with_penalty(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Clip to the int16 of the core, which photographs seldom reach, but gates in a row may square a value.

    The gradient is 0 where it would move a clipped value further out, else straight-through.  That of half the mean
    square of what exceeds EXCESS_LIMIT is added to it.
    """

    def gradient(upstream: Tensor) -> Tensor:
        excess = x - tf.clip_by_value(x, -EXCESS_LIMIT, EXCESS_LIMIT)
        outwards = (tf.abs(x) > TRANSFORM_LIMIT) & (upstream * x < 0)
        return tf.where(outwards, 0.0, upstream) + excess / x.shape.num_elements()

    return tf.clip_by_value(x, -TRANSFORM_LIMIT, TRANSFORM_LIMIT), gradient


def on_grid(x: Tensor, bits: int) -> Tensor:
    """Round to multiples of 2**-bits, halves up, with a straight-through gradient."""
    return straight_through(x, tf.floor(x * 2.0**bits + 0.5) * 2.0**-bits)


class Float:
    """Plain floating point on [B, h, w, C].

    Args:
        weights: tensors by name.
        conditions: conditioning vectors f[B, 1, 1, C] by name.
        operands: dtype of the operands of dense layers; tf.bfloat16 trains faster.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], conditions: Mapping[str, Tensor], operands: tf.DType = tf.float32
    ) -> None:
        self.weights, self.conditions, self.operands = weights, conditions, operands

    def channels(self, x: Tensor) -> int:
        return int(x.shape[-1])

    def dense(self, name: str, x: Tensor, channels: int, relu: bool = False, small: bool = False) -> Tensor:
        kernel = tf.cast(self.weights[f"{name}/kernel"], self.operands)
        t = tf.cast(pointwise(tf.cast(x, self.operands), kernel), x.dtype)
        t = tf.nn.bias_add(t, self.weights[f"{name}/bias"])
        return clip_with_penalty(tf.nn.relu(t) if relu else t)

    def depthwise(self, name: str, x: Tensor) -> Tensor:
        return clip_with_penalty(
            tf.nn.bias_add(depthwise(x, self.weights[f"{name}/kernel"]), self.weights[f"{name}/bias"])
        )

    def condition(self, name: str, x: Tensor) -> Tensor:
        return clip_with_penalty(x * self.conditions[name])

    def gate(self, name: str, x: Tensor) -> Tensor:
        return clip_with_penalty(self._gated(name, x))

    def _gated(self, name: str, x: Tensor) -> Tensor:
        a, b = tf.split(self.dense(name, x, 2 * x.shape[-1]), 2, axis=-1)
        return tf.nn.relu(a) * b

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return clip_with_penalty(x + y)

    def shuffle(self, x: Tensor, r: int) -> Tensor:
        return tf.nn.depth_to_space(x, r)

    def unshuffle(self, x: Tensor, r: int) -> Tensor:
        return tf.nn.space_to_depth(x, r)

    def forward_dwt(self, x: Tensor) -> Tensor:
        """Colour transform and wavelet of f[B, H, W, C]: y f[B, h, w, 256 C]."""
        return operations.forward_dwt(pointwise(x, tf.constant(transforms.color_transform(x.shape[3]).T, x.dtype)))

    def inverse_dwt(self, y: Tensor) -> Tensor:
        """The inverse of coefficients."""
        x = operations.inverse_dwt(y)
        return pointwise(x, tf.constant(transforms.color_transform(x.shape[3]), y.dtype))


class Quantised(Float):
    """The integers of the codec carried in floats: activations are multiples of 2**-6, weights of 2**-9.

    Gradients are straight-through.  In float64 every value equals that of `model.network.Exact`.
    """

    def __init__(self, weights: Mapping[str, Tensor], conditions: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(weights, conditions or {})

    def _kernel(self, name: str) -> Tensor:
        return on_grid(self.weights[f"{name}/kernel"], WEIGHT_BITS)

    def _bias(self, name: str) -> Tensor:
        return on_grid(self.weights[f"{name}/bias"], WEIGHT_BITS + ACTIVATION_BITS)

    def _product(self, name: str, x: Tensor) -> Tensor:
        return tf.nn.bias_add(pointwise(x, self._kernel(name)), self._bias(name))

    def activation(self, x: Tensor, relu: bool = False) -> Tensor:
        """Round to the activation grid and clip.

        In float32 this is one fused operation: seven separate ones take longer on a CPU than the products do.
        """
        if x.dtype != tf.float32:
            return exact_activation(x, relu)
        if relu:
            return tf.quantization.fake_quant_with_min_max_args(x, 0.0, ACTIVATION_LIMIT, 10)
        return tf.quantization.fake_quant_with_min_max_args(
            x, -ACTIVATION_LIMIT, ACTIVATION_LIMIT, 11, narrow_range=True
        )

    def dense(self, name: str, x: Tensor, channels: int, relu: bool = False, small: bool = False) -> Tensor:
        return self.activation(self._product(name, x), relu)

    def depthwise(self, name: str, x: Tensor) -> Tensor:
        return self.activation(tf.nn.bias_add(depthwise(x, self._kernel(name)), self._bias(name)))

    def mix(self, name: str, x: Tensor) -> Tensor:
        cells = tf.reshape(x, [-1, x.shape[1] * x.shape[2], x.shape[3]])
        t = tf.matmul(self._kernel(name), cells, transpose_a=True) + self._bias(name)[:, None]
        return tf.reshape(self.activation(t), [-1, *x.shape[1:]])

    def distribution(self, name: str, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """(means in quantisation steps, scale indices) f[..., count]."""
        loc, index = tf.split(self._product(name, x), [count, count], -1)
        return loc * LOC_GAIN, index * INDEX_GAIN

    def condition(self, name: str, x: Tensor) -> Tensor:
        return self.add(x, self.conditions[name])

    def gate(self, name: str, x: Tensor) -> Tensor:
        return exact_activation(self._gated(name, x))

    def rectify(self, x: Tensor) -> Tensor:
        return tf.nn.relu(x)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self.activation(x + y)

    def concat(self, x: Tensor, y: Tensor) -> Tensor:
        return tf.concat([x, y], -1)

    def neighbours(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return tf.concat([padded[:, t : t + height, s : s + width] for t in range(3) for s in range(3)], -1)

    def flatten(self, x: Tensor) -> Tensor:
        return tf.reshape(x, [-1, 1, 1, math.prod(x.shape[1:])])

    def unflatten(self, x: Tensor, side: int) -> Tensor:
        return tf.reshape(x, [-1, side, side, x.shape[-1] // side**2])

    def compand(self, x: Tensor) -> Tensor:
        """Compress values in quantisation steps to +-log 256, on the activation grid."""
        size = tf.math.log1p(tf.minimum(tf.abs(x), tf.constant(COMPANDED, x.dtype)))
        return on_grid(tf.sign(x) * size, ACTIVATION_BITS)


def exact_activation(x: Tensor, relu: bool = False) -> Tensor:
    """Round to the activation grid, halves up, and clip to the range of an activation."""
    return tf.clip_by_value(on_grid(x, ACTIVATION_BITS), 0.0 if relu else -ACTIVATION_LIMIT, ACTIVATION_LIMIT)
