"""Evaluate the decoder in floats, the synthesis and the restoration filter, forwards and backwards in NumPy.

The backward pass is the gradient of an image with respect to its latents.  Only encoders use it, and no decoded value
depends on it, so floats may differ between machines in their last bits.  Weights are constant: the backward pass costs
as much as the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from vaecodec.config import FILTER_REACH
from vaecodec.model import network
from vaecodec.model.file import Model
from vaecodec.model.network import depthwise
from vaecodec.model.weights import multiplier
from vaecodec.rdo.filter import DISTANCES, FINEST_LIMITS, WEIGHTS, Equations, NormalEquations, Ramp
from vaecodec.transforms import CLASS_LIMITS, OTHER_SHIFT, Box, Filter, latents
from vaecodec.transforms.networks import color_transform

CONDITIONS = ("synthesis/fine", "synthesis/out")
COUNTS = (2, 2, 4) * len(DISTANCES)  # samples in the sum of each weight
NEAREST = (4, 4)  # samples in the sums of the other channels: along rows and columns, diagonally
REACH = FILTER_REACH  # of the activity, which is wider than that of the weights
STRIP_SAMPLES = 1 << 15  # processed together, to stay in the cache
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


def fit_classes(decoded: np.ndarray, pixels: np.ndarray, area: Box, step_size: float) -> Equations:
    """Sum the equations of all classes over the samples in an area.

    Args:
        decoded: f32[H, W, C] on a scale of 255, before the filter.
        pixels: the original [H, W, C].
        area: pixels to use.
        step_size: the quantisation step on the same scale.
    """
    channels, residuals = _rotated(decoded), _rotated(pixels - decoded)
    equations = Equations.zero(len(channels))
    rows = max(1, STRIP_SAMPLES // (area.right - area.left))
    ramps = [Ramp.around(limit * step_size / 64) for limit in FINEST_LIMITS]
    for top in range(area.top, area.bottom, rows):
        bottom = min(top + rows, area.bottom)
        outer = (slice(None), slice(top, bottom + 2 * REACH), slice(area.left, area.right + 2 * REACH))
        inner = (slice(None), slice(top + REACH, bottom + REACH), slice(area.left + REACH, area.right + REACH))
        equations = equations + _strip_equations(channels[outer], residuals[inner], ramps)
    return equations


def _strip_equations(channels: np.ndarray, residuals: np.ndarray, ramps: list[Ramp]) -> Equations:
    sums, active = _neighbour_sums(channels[0]), _activity(channels[0]).ravel()
    basis = _less_centre(sums, COUNTS)
    nearest = _less_centre(np.stack([sums[0] + sums[1], sums[2], sums[-1]]), NEAREST)
    rising = [np.ones_like(active), *(ramp(active) for ramp in ramps), np.zeros_like(active)]
    classes = [np.subtract(low, high) * basis for low, high in pairwise(rising)]
    residuals = residuals.reshape(len(residuals), -1)
    others = Equations.zero(len(channels)).others
    for n, (channel, residual) in enumerate(zip(channels[1:], residuals[1:], strict=True), 1):
        own = _less_centre(_nearest_sums(channel), NEAREST)
        normal = NormalEquations.of_samples(np.concatenate([own, nearest]), residual)
        at = [0, 1, 2 * n, 2 * n + 1]
        others.matrix[np.ix_(at, at)] += normal.matrix
        others.right[at] += normal.right
    return Equations(NormalEquations.of_samples(np.concatenate(classes), residuals[0]), others)


def _less_centre(sums: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Sums of samples less as many times the centre, which is the last row."""
    return sums[:-1] - np.array(counts, sums.dtype)[:, None] * sums[-1]


def _with_centre(weights: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Append the weight of the centre, such that flat areas stay as they are."""
    return np.concatenate([weights, -(weights @ np.array(counts, weights.dtype))[:, None]], 1)


class FloatFilter:
    """A restoration filter on images f32[H, W, C] on a scale of 255, with its gradient.

    `step_size` is the quantisation step on that scale.
    """

    def __init__(self, weights: Filter, step_size: float) -> None:
        self._ramps = [Ramp.around(limit * step_size / 64) for limit in CLASS_LIMITS[len(weights.first)]]
        first = _with_centre(weights.first.astype(np.float64), COUNTS)
        others = _with_centre(weights.others.astype(np.float64).reshape(-1, 2), NEAREST)
        self._first = np.ldexp(first, -weights.shifts.astype(np.int32)[:, None]).astype(np.float32)
        self._shared, self._own = (np.ldexp(part, -OTHER_SHIFT).astype(np.float32) for part in (others[:1], others[1:]))
        self._rotation = color_transform(1 + len(self._own)).astype(np.float32)
        # One matrix product yields what each class and each other channel adds, from the sums of all channels.
        self._matrix = np.zeros((len(first) + len(self._own), WEIGHTS + 1 + 3 * len(self._own)), np.float32)
        self._matrix[: len(first), : WEIGHTS + 1] = self._first
        for n, own in enumerate(self._own):
            self._matrix[len(first) + n, [0, 1, 2, WEIGHTS]] = own[[0, 0, 1, 2]]
            self._matrix[len(first) + n, WEIGHTS + 1 + 3 * n :][:3] = self._shared[0]
        if len(first) == 1:
            self._matrix = self._rotation.T @ self._matrix  # yields the colours of the image

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Filter an image in place; its sides are at least REACH + 1."""
        channels, (height, width) = _rotated(image), image.shape[:2]
        rows = min(max(1, STRIP_SAMPLES // width), height)
        buffer = np.empty((self._matrix.shape[1], rows * width), np.float32)
        for top in range(0, height, rows):
            strip = image[top : top + rows]
            surrounded = channels[:, top : top + len(strip) + 2 * REACH]
            strip += self._correction(surrounded, buffer[:, : len(strip) * width]).reshape(strip.shape)
        return image

    def _correction(self, channels: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """f32[h w, C]: what is added to the samples inside channels f32[C, h + 2 REACH, w + 2 REACH]."""
        _neighbour_sums(channels[0], sums[: WEIGHTS + 1])
        for n, channel in enumerate(channels[1:]):
            _nearest_sums(channel, sums[WEIGHTS + 1 + 3 * n :][:3])
        if not self._ramps:
            return sums.T @ self._matrix.T
        first, others = np.split(self._matrix @ sums, [len(self._first)])
        active = _activity(channels[0]).ravel()
        for change, ramp in zip(np.subtract(first[1:], first[:-1], out=first[1:]), self._ramps, strict=True):
            change *= ramp(active)
            first[0] += change
        return np.concatenate([first[:1], others]).T @ self._rotation

    def adjoint(self, image: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Propagate a gradient f32[H, W, C] back through the filtering of `image`.

        Classes are held fixed, and mirrored samples beyond the edges are left out.
        """
        slopes = _rotated(gradient)[:, REACH:-REACH, REACH:-REACH]
        weights = self._first[0]
        if self._ramps:
            active = _activity(_rotated(image)[0])
            for ramp, change in zip(self._ramps, np.diff(self._first, axis=0), strict=True):
                weights = weights + ramp(active)[..., None] * change
        out = np.stack([_spread(slopes[0], weights), *(_spread(slope, self._shared[0]) for slope in slopes[1:])])
        for slope, own in zip(slopes[1:], self._own, strict=True):
            out[0] += _spread(slope, own)
        return gradient + (out.reshape(len(out), -1).T @ self._rotation).reshape(gradient.shape)


def _rotated(image: np.ndarray) -> np.ndarray:
    """f32[C, H + 2 REACH, W + 2 REACH]: channels of the rotated colours of [H, W, C], mirrored at the edges."""
    height, width, channels = image.shape
    matrix, rows = color_transform(channels).astype(np.float32), max(1, STRIP_SAMPLES // width)
    planes = np.empty((channels, height + 2 * REACH, width + 2 * REACH), np.float32)
    inside = planes[:, REACH:-REACH, REACH:-REACH]
    for top in range(0, height, rows):
        strip = image[top : top + rows]
        inside[:, top : top + len(strip)] = (matrix @ strip.reshape(-1, channels).T).reshape(channels, -1, width)
    out = planes
    for _ in range(2):
        planes[:, :REACH] = planes[:, 2 * REACH : REACH : -1]
        planes[:, -REACH:] = planes[:, -REACH - 2 : -2 * REACH - 2 : -1]
        planes = planes.swapaxes(1, 2)
    return out


def _shifted(plane: np.ndarray, down: int, along: int) -> np.ndarray:
    """[h, w] of [h + 2 REACH, w + 2 REACH], displaced by this many rows and columns."""
    height, width = plane.shape[0] - 2 * REACH, plane.shape[1] - 2 * REACH
    return plane[REACH + down : REACH + down + height, REACH + along : REACH + along + width]


def _row_pairs(plane: np.ndarray, distance: int) -> np.ndarray:
    """[h + 2 distance, w]: sums of the two samples in a row that are this far from each sample."""
    rows, width = slice(REACH - distance, distance - REACH or None), plane.shape[1] - 2 * REACH
    left, right = REACH - distance, REACH + distance
    return plane[rows, left : left + width] + plane[rows, right : right + width]


def _neighbour_sums(plane: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """f[10, h w]: the nine sums around each sample of a plane with its margin of REACH, and the sample itself."""
    centre = _shifted(plane, 0, 0)
    out = np.empty((WEIGHTS + 1, centre.size), plane.dtype) if out is None else out
    sums = out.reshape(-1, *centre.shape)
    for n, distance in enumerate(DISTANCES):
        pairs = _row_pairs(plane, distance)
        sums[3 * n] = pairs[distance:-distance]
        np.add(_shifted(plane, -distance, 0), _shifted(plane, distance, 0), out=sums[3 * n + 1])
        np.add(pairs[: -2 * distance], pairs[2 * distance :], out=sums[3 * n + 2])
    sums[-1] = centre
    return out


def _nearest_sums(plane: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """f[3, h w]: sums of the nearest samples along rows and columns, and diagonally; and the sample itself."""
    centre, pairs = _shifted(plane, 0, 0), _row_pairs(plane, 1)
    out = np.empty((3, centre.size), plane.dtype) if out is None else out
    sums = out.reshape(-1, *centre.shape)
    np.add(_shifted(plane, -1, 0), _shifted(plane, 1, 0), out=sums[0])
    sums[0] += pairs[1:-1]
    np.add(pairs[:-2], pairs[2:], out=sums[1])
    sums[2] = centre
    return out


def _activity(plane: np.ndarray) -> np.ndarray:
    """f[h, w]: distance of samples from the local mean, smoothed twice; times ACTIVITY_SCALE."""
    distance = 16 * plane[1:-1, 1:-1] - _local_mean(plane, 1)
    return _local_mean(_local_mean(np.abs(distance, out=distance), 1), 2)


def _local_mean(plane: np.ndarray, distance: int) -> np.ndarray:
    """16 times the mean of nine samples at this distance, weighted 1, 2, 1 along rows and columns."""
    rows = plane[distance:-distance] * plane.dtype.type(2)
    rows += plane[: -2 * distance]
    rows += plane[2 * distance :]
    out = rows[:, distance:-distance] * plane.dtype.type(2)
    out += rows[:, : -2 * distance]
    out += rows[:, 2 * distance :]
    return out


def _spread(slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The adjoint of sums around samples [h, w], with weights [n] or [h, w, n]; the last is that of the centre."""
    out = slopes * weights[..., -1]
    if weights.shape[-1] == len(NEAREST) + 1:
        weights = weights[..., [0, 0, 1]]
    for n in range(weights.shape[-1] // 3):
        along, down, diagonal = (slopes * weights[..., 3 * n + k] for k in range(3))
        far = DISTANCES[n]
        out[:, far:] += along[:, :-far]
        out[:, :-far] += along[:, far:]
        out[far:] += down[:-far]
        out[:-far] += down[far:]
        out[far:, far:] += diagonal[:-far, :-far]
        out[:-far, :-far] += diagonal[far:, far:]
        out[far:, :-far] += diagonal[:-far, far:]
        out[:-far, far:] += diagonal[far:, :-far]
    return out
