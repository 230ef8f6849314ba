"""Evaluate the synthesis forwards and backwards in NumPy: the gradient of an image with respect to its latents.

Only encoders use it, and no decoded value depends on it, so floats may differ between machines in their last bits.
Weights are constant: the backward pass costs as much as the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from vaecodec.model import network
from vaecodec.model.file import Model
from vaecodec.model.network import depthwise
from vaecodec.model.weights import multiplier
from vaecodec.transforms import latents

CONDITIONS = ("synthesis/fine", "synthesis/out")
Backward = Callable[[np.ndarray], np.ndarray]  # gradient of an output to that of an input


class Slot:
    """Accumulates the gradient of a value; the value itself need not be kept."""

    def __init__(self) -> None:
        self._gradient: np.ndarray | None = None

    @property
    def gradient(self) -> np.ndarray:
        """The sum of what was added; there must be something."""
        assert self._gradient is not None
        return self._gradient

    def add(self, gradient: np.ndarray) -> None:
        self._gradient = gradient if self._gradient is None else self._gradient + gradient


class Node(NamedTuple):
    """A computed value f32[h, w, C] and the slot for its gradient."""

    value: np.ndarray
    slot: Slot


class Reverse:
    """The arithmetic of `network` over Nodes with reverse-mode differentiation, for one pass.

    Each operation keeps slots and, of values, only what its backward step needs: signs of ReLUs, and gates.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], conditions: Mapping[str, np.ndarray]) -> None:
        self._weights, self._conditions = weights, conditions
        self._tape: list[tuple[Slot, Callable[[np.ndarray], None]]] = []

    def back(self, gradient: np.ndarray) -> None:
        """Propagate the gradient of the last result to everything that it was computed from."""
        self._tape[-1][0].add(gradient)
        while self._tape:
            slot, backward = self._tape.pop()
            backward(slot.gradient)

    def _record(self, value: np.ndarray, backward: Callable[[np.ndarray], None]) -> Node:
        node = Node(value, Slot())
        self._tape.append((node.slot, backward))
        return node

    def _product(self, name: str, x: np.ndarray) -> np.ndarray:
        kernel = self._weights[f"{name}/kernel"]
        rows = x.reshape(-1, len(kernel)) @ kernel
        rows += self._weights[f"{name}/bias"]
        return rows.reshape(*x.shape[:-1], kernel.shape[1])

    def _transposed(self, name: str, g: np.ndarray) -> np.ndarray:
        kernel = self._weights[f"{name}/kernel"]
        return (g.reshape(-1, kernel.shape[1]) @ kernel.T).reshape(*g.shape[:-1], len(kernel))

    def channels(self, x: Node) -> int:
        return int(x.value.shape[-1])

    def dense(self, name: str, x: Node, channels: int, relu: bool = False, small: bool = False) -> Node:
        value, slot = self._product(name, x.value), x.slot
        if not relu:
            return self._record(value, lambda g: slot.add(self._transposed(name, g)))
        passed = value > 0
        np.maximum(value, 0, out=value)
        return self._record(value, lambda g: slot.add(self._transposed(name, g * passed)))

    def depthwise(self, name: str, x: Node) -> Node:
        kernel, slot = self._weights[f"{name}/kernel"], x.slot
        value = depthwise(x.value, kernel)
        value += self._weights[f"{name}/bias"]
        return self._record(value, lambda g: slot.add(depthwise(g, kernel[::-1, ::-1])))

    def condition(self, name: str, x: Node) -> Node:
        vector, slot = self._conditions[name], x.slot
        return self._record(x.value * vector, lambda g: slot.add(g * vector))

    def gate(self, name: str, x: Node) -> Node:
        both = self.dense(name, x, 2 * self.channels(x))
        a, b = np.split(both.value, 2, -1)
        np.maximum(a, 0, out=a)

        def backward(g: np.ndarray) -> None:
            out = np.empty_like(both.value)
            first, second = np.split(out, 2, -1)
            np.multiply(g, b, out=first)
            first *= a > 0
            np.multiply(g, a, out=second)
            both.slot.add(out)

        return self._record(a * b, backward)

    def add(self, x: Node, y: Node) -> Node:
        slots = x.slot, y.slot

        def backward(g: np.ndarray) -> None:
            for slot in slots:
                slot.add(g)

        return self._record(x.value + y.value, backward)

    def shuffle(self, x: Node, r: int) -> Node:
        slot = x.slot
        return self._record(shuffle(x.value, r), lambda g: slot.add(unshuffle(g, r)))

    def unshuffle(self, x: Node, r: int) -> Node:
        slot = x.slot
        return self._record(unshuffle(x.value, r), lambda g: slot.add(shuffle(g, r)))

    def inverse_dwt(self, y: Node) -> Node:
        slot = y.slot
        return self._record(latents.inverse_dwt(y.value), lambda g: slot.add(latents.inverse_dwt_adjoint(g)))


def shuffle(x: np.ndarray, r: int) -> np.ndarray:
    """Depth to space: [h, w, r * r * C] -> [h * r, w * r, C]."""
    height, width, channels = x.shape[0], x.shape[1], x.shape[2] // (r * r)
    x = x.reshape(height, width, r, r, channels).transpose(0, 2, 1, 3, 4)
    return x.reshape(height * r, width * r, channels)


def unshuffle(x: np.ndarray, r: int) -> np.ndarray:
    """Space to depth: the inverse of shuffle."""
    height, width, channels = x.shape[0] // r, x.shape[1] // r, x.shape[2]
    x = x.reshape(height, r, width, r, channels).transpose(0, 2, 1, 3, 4)
    return x.reshape(height, width, r * r * channels)


class Synthesis:
    """The synthesis of a model at one quality index, as a differentiable function of latents in quantisation steps."""

    def __init__(self, model: Model, quality_index: int) -> None:
        self._weights = model.synthesis_weights
        self._config, self._gain = model.config, model.inverse_gain(quality_index)
        self._conditions = {name: multiplier(model.arrays, name, quality_index) for name in CONDITIONS}

    def forward(self, y: np.ndarray) -> tuple[np.ndarray, Backward]:
        """Synthesise latents y f32[h, w, M]: image f32[16 h, 16 w, C] in 0..255, unrounded, and its backward pass."""
        ops, slot = Reverse(self._weights, self._conditions), Slot()
        image = network.synthesis(ops, self._config, Node(y * self._gain, slot)).value

        def backward(gradient: np.ndarray) -> np.ndarray:
            ops.back(gradient * np.float32(255))
            return slot.gradient * self._gain

        return image * np.float32(255) + np.float32(127.5), backward
