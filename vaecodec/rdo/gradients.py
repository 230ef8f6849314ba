"""The synthesis forwards and backwards, in NumPy: which way every latent should go for a picture to come out better.

Encoders alone use it, and nothing that a file depends on: floats may differ here in their last bits.
Only the input has a gradient; weights stand still, so that backwards costs what forwards does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from vaecodec.model import network
from vaecodec.model.file import Model
from vaecodec.model.floats import multiplier
from vaecodec.transforms import pyramid
from vaecodec.transforms.integer import depthwise

CONDITIONS = ("synthesis/fine", "synthesis/out")


class Slot:
    """Where the gradient of a value gathers, once the value itself is forgotten."""

    def __init__(self) -> None:
        self.gradient: np.ndarray | None = None

    def receive(self, gradient: np.ndarray) -> None:
        """Adds a share."""
        self.gradient = gradient if self.gradient is None else self.gradient + gradient


class Node(NamedTuple):
    """A value f32[h, w, C] that was computed, and the place for its gradient."""

    value: np.ndarray
    slot: Slot


class Reverse:
    """The arithmetic of `network` over Nodes, for one pass; `back` then goes all steps back.

    Steps keep slots, not nodes, and of values only what the way back needs: where a ReLU let pass, and gates.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], conditions: Mapping[str, np.ndarray]) -> None:
        self._weights, self._conditions = weights, conditions
        self._steps: list[tuple[Slot, Callable[[np.ndarray], None]]] = []

    def back(self, gradient: np.ndarray) -> None:
        """Takes the gradient of what was made last to all that it came from."""
        self._steps[-1][0].receive(gradient)
        while self._steps:
            slot, give = self._steps.pop()
            assert slot.gradient is not None  # the network uses all that it computes
            give(slot.gradient)

    def _made(self, value: np.ndarray, give: Callable[[np.ndarray], None]) -> Node:
        node = Node(value, Slot())
        self._steps.append((node.slot, give))
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
        return x.value.shape[-1]

    def dense(self, name: str, x: Node, channels: int, relu: bool = False, small: bool = False) -> Node:
        t, slot = self._product(name, x.value), x.slot
        passed = t > 0 if relu else np.True_
        if relu:
            np.maximum(t, 0, out=t)
        return self._made(t, lambda g: slot.receive(self._transposed(name, g * passed if relu else g)))

    def depthwise(self, name: str, x: Node) -> Node:
        kernel, slot = self._weights[f"{name}/kernel"], x.slot
        t = depthwise(x.value, kernel)
        t += self._weights[f"{name}/bias"]
        return self._made(t, lambda g: slot.receive(depthwise(g, kernel[::-1, ::-1])))

    def condition(self, name: str, x: Node) -> Node:
        vector, slot = self._conditions[name], x.slot
        return self._made(x.value * vector, lambda g: slot.receive(g * vector))

    def gate(self, name: str, x: Node) -> Node:
        both = self.dense(name, x, 2 * self.channels(x))
        a, b = np.split(both.value, 2, -1)
        np.maximum(a, 0, out=a)

        def give(g: np.ndarray) -> None:
            out = np.empty_like(both.value)
            first, second = np.split(out, 2, -1)
            np.multiply(g, b, out=first)
            first *= a > 0
            np.multiply(g, a, out=second)
            both.slot.receive(out)

        return self._made(a * b, give)

    def add(self, x: Node, y: Node) -> Node:
        slots = x.slot, y.slot

        def give(g: np.ndarray) -> None:
            for slot in slots:
                slot.receive(g)

        return self._made(x.value + y.value, give)

    def shuffle(self, x: Node, r: int) -> Node:
        slot = x.slot
        return self._made(shuffle(x.value, r), lambda g: slot.receive(unshuffle(g, r)))

    def unshuffle(self, x: Node, r: int) -> Node:
        slot = x.slot
        return self._made(unshuffle(x.value, r), lambda g: slot.receive(shuffle(g, r)))

    def samples(self, y: Node) -> Node:
        slot = y.slot
        return self._made(pyramid.samples(y.value), lambda g: slot.receive(pyramid.samples_adjoint(g)))


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


class Distortion:
    """The squared error of a model's pictures at one quality step, as a function of latents in quantisation steps."""

    def __init__(self, model: Model, step: int) -> None:
        self._weights = model.synthesis_weights
        self._config, self._gain = model.config, model.inverse_gain(step)
        self._conditions = {name: multiplier(model.arrays, name, step) for name in CONDITIONS}

    def forward(self, y: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """y f32[h, w, M] -> picture f32[16 h, 16 w, C] in 0..255, unrounded, and the way back of its gradient."""
        ops, slot = Reverse(self._weights, self._conditions), Slot()
        picture = network.synthesis(ops, self._config, Node(y * self._gain, slot)).value

        def back(gradient: np.ndarray) -> np.ndarray:
            ops.back(gradient * np.float32(255))
            assert slot.gradient is not None
            return slot.gradient * self._gain

        return picture * np.float32(255) + np.float32(127.5), back
