"""The synthesis forwards and backwards, in NumPy: which way every latent should go for a picture to come out better.

Encoders alone use it, and nothing that a file depends on: floats may differ here in their last bits.
Only the input has a gradient; weights stand still, so that backwards costs what forwards does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from vaecodec import network
from vaecodec.config import STRIDE
from vaecodec.integer import depthwise
from vaecodec.weights import Model

HALF = STRIDE // 2


class Node:
    """A value f32[h, w, C] that was computed, and the gradient that has come back to it so far."""

    __slots__ = ("gradient", "value")

    def __init__(self, value: np.ndarray) -> None:
        self.value = value
        self.gradient: np.ndarray | None = None

    def receive(self, gradient: np.ndarray) -> None:
        """Adds a share of the gradient, which is the node's own from then on."""
        self.gradient = gradient if self.gradient is None else self.gradient + gradient


class Reverse:
    """The arithmetic of `network` over Nodes, for one pass; `back` then goes all steps back."""

    def __init__(self, weights: Mapping[str, np.ndarray], conditions: Mapping[str, np.ndarray]) -> None:
        self._weights, self._conditions = weights, conditions
        self._steps: list[tuple[Node, Callable[[np.ndarray], None]]] = []

    def back(self, node: Node, gradient: np.ndarray) -> None:
        """Takes the gradient of the last node to all that it came from."""
        node.gradient = gradient
        while self._steps:
            made, give = self._steps.pop()
            assert made.gradient is not None  # the network uses all that it computes
            give(made.gradient)
            made.gradient = None

    def _made(self, value: np.ndarray, give: Callable[[np.ndarray], None]) -> Node:
        node = Node(value)
        self._steps.append((node, give))
        return node

    def _product(self, name: str, x: np.ndarray) -> np.ndarray:
        kernel = self._weights[f"{name}/kernel"]
        rows = x.reshape(-1, len(kernel)) @ kernel
        rows += self._weights[f"{name}/bias"]
        return rows.reshape(*x.shape[:-1], -1)

    def _transposed(self, name: str, g: np.ndarray) -> np.ndarray:
        kernel = self._weights[f"{name}/kernel"]
        return (g.reshape(-1, kernel.shape[1]) @ kernel.T).reshape(*g.shape[:-1], -1)

    def channels(self, x: Node) -> int:
        return x.value.shape[-1]

    def dense(self, name: str, x: Node, channels: int, relu: bool = False, small: bool = False) -> Node:
        t = self._product(name, x.value)
        if relu:
            np.maximum(t, 0, out=t)
        return self._made(t, lambda g: x.receive(self._transposed(name, g * (t > 0) if relu else g)))

    def depthwise(self, name: str, x: Node) -> Node:
        kernel = self._weights[f"{name}/kernel"]
        t = depthwise(x.value, kernel)
        t += self._weights[f"{name}/bias"]
        return self._made(t, lambda g: x.receive(depthwise(g, kernel[::-1, ::-1])))

    def condition(self, name: str, x: Node) -> Node:
        vector = self._conditions[name]
        return self._made(x.value * vector, lambda g: x.receive(g * vector))

    def gate(self, name: str, x: Node) -> Node:
        t = self._product(name, x.value)
        a, b = np.split(t, 2, -1)
        positive = np.maximum(a, 0)

        def give(g: np.ndarray) -> None:
            out = np.empty_like(t)
            first, second = np.split(out, 2, -1)
            np.multiply(g, b, out=first)
            first *= a > 0
            np.multiply(g, positive, out=second)
            x.receive(self._transposed(name, out))

        return self._made(positive * b, give)

    def add(self, x: Node, y: Node) -> Node:
        def give(g: np.ndarray) -> None:
            x.receive(g)
            y.receive(g)

        return self._made(x.value + y.value, give)

    def shuffle(self, x: Node, r: int) -> Node:
        return self._made(shuffle(x.value, r), lambda g: x.receive(unshuffle(g, r)))

    def lapped(self, name: str, x: Node) -> Node:
        kernel = self._weights[f"{name}/kernel"]

        def give(g: np.ndarray) -> None:
            x.receive(_adjoint_along(_adjoint_along(g, kernel, 1), kernel, 0))

        return self._made(_along(_along(x.value, kernel, 0), kernel, 1), give)


def shuffle(x: np.ndarray, r: int) -> np.ndarray:
    """[h, w, r * r * C] -> [h * r, w * r, C]."""
    height, width, channels = x.shape[0], x.shape[1], x.shape[2] // (r * r)
    x = x.reshape(height, width, r, r, channels).transpose(0, 2, 1, 3, 4)
    return x.reshape(height * r, width * r, channels)


def unshuffle(x: np.ndarray, r: int) -> np.ndarray:
    """The inverse of shuffle."""
    height, width, channels = x.shape[0] // r, x.shape[1] // r, x.shape[2]
    x = x.reshape(height, r, width, r, channels).transpose(0, 2, 1, 3, 4)
    return x.reshape(height, width, r * r * channels)


def _blocks(x: np.ndarray, kernel: np.ndarray, axis: int) -> np.ndarray:
    """Each run of 16 along an axis, times the kernel [16, 16]."""
    shape = x.shape
    x = x.reshape(*shape[:axis], -1, STRIDE, int(np.prod(shape[axis + 1 :])))
    return np.matmul(kernel, x).reshape(shape)


def _along(x: np.ndarray, kernel: np.ndarray, axis: int) -> np.ndarray:
    """The filter of layers.Float.lapped along one axis of [H, W, C]."""
    pads = [(HALF, HALF) if n == axis else (0, 0) for n in range(3)]
    t = _blocks(np.pad(x, pads, "symmetric"), kernel, axis)
    return t[HALF:-HALF] if axis == 0 else t[:, HALF:-HALF]


def _adjoint_along(g: np.ndarray, kernel: np.ndarray, axis: int) -> np.ndarray:
    """What _along does to gradients: what came of a mirror image is added to what was mirrored."""
    pads = [(HALF, HALF) if n == axis else (0, 0) for n in range(3)]
    t = np.moveaxis(_blocks(np.pad(g, pads), kernel.T, axis), axis, 0)
    out = t[HALF:-HALF].copy()
    out[:HALF] += t[:HALF][::-1]
    out[-HALF:] += t[-HALF:][::-1]
    return np.moveaxis(out, 0, axis)


class Distortion:
    """The squared error of a model's pictures at one quality step, as a function of latents in quantisation steps."""

    def __init__(self, model: Model, step: int) -> None:
        prefix = "weights/"
        self._weights = {
            name.removeprefix(prefix): array.astype(np.float32)
            for name, array in model.arrays.items()
            if name.startswith(prefix + "synthesis/")
        }
        self._config, self._gain = model.config, model.vector("inverse_gain", step)
        self._conditions = {"synthesis/fine": model.vector("synthesis/fine", step)}

    def forward(self, y: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """y f32[h, w, M] -> picture f32[16 h, 16 w, 3] in 0..255, unrounded, and the way back of its gradient."""
        ops, start = Reverse(self._weights, self._conditions), Node(y * self._gain)
        end = network.synthesis(ops, self._config, start)

        def back(gradient: np.ndarray) -> np.ndarray:
            ops.back(end, gradient * np.float32(255))
            assert start.gradient is not None
            return start.gradient * self._gain

        return end.value * np.float32(255) + np.float32(127.5), back
