"""Compute networks in exact integers that are carried in floats: the arithmetic of deployed generative models.

A matrix product of integers is exact in any order of summation, in any library and with any number of threads, if no
partial sum can reach 2**24 (float32) or 2**53 (float64).  The bound follows from the weights: `prepare` checks it and
picks the type.

    activations   11 bits and sign, unit 2**-6
    weights       unit 2**-9
    products      unit 2**-15, rounded to 2**-6 with halves up
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vaecodec.errors import ModelError

ACTIVATION_BITS = 6
ACTIVATION_MAX = 1023
WEIGHT_BITS = 9
PRODUCT_BITS = ACTIVATION_BITS + WEIGHT_BITS
LOC_GAIN = 4.0  # means reach further than activations: +-64
INDEX_GAIN = 8.0  # an activation of 1 is 8 scale indices
GAIN_BITS = 10  # unit of gains: 2**-10

EXACT32, EXACT64 = 2**24, 2**53


class Layer(NamedTuple):
    """Kernel and bias in the float type that keeps every sum exact.

    If only the outputs `wide` need float64, `narrow` is the kernel in float32 for the others.
    """

    kernel: np.ndarray
    bias: np.ndarray
    narrow: np.ndarray | None = None
    wide: np.ndarray | None = None

    def product(self, x: np.ndarray, outputs: slice = slice(None)) -> np.ndarray:
        """[n, C] -> [n, K], or a slice of these outputs, with bias, in a type that holds them."""
        if self.narrow is None or self.wide is None:
            t = x.astype(self.kernel.dtype, copy=False) @ self.kernel[:, outputs]
        else:
            t = x @ self.narrow[:, outputs]
            first, last, _ = outputs.indices(self.kernel.shape[1])
            wide = self.wide[(self.wide >= first) & (self.wide < last)]
            if len(wide):
                t = t.astype(np.float64)
                t[:, wide - first] = x.astype(np.float64) @ self.kernel[:, wide]
        t += self.bias[outputs].astype(t.dtype, copy=False)
        return t


def prepare(weights: Mapping[str, np.ndarray]) -> dict[str, Layer]:
    """Layers by name, in the cheapest exact type, from integer kernels (unit 2**-9) and biases (unit 2**-15).

    Raises ModelError if even float64 could round.
    """
    layers = {}
    for key, value in weights.items():
        name, part = key.rsplit("/", 1)
        if part == "bias":
            continue
        kernel, bias = value.astype(np.float64), weights[f"{name}/bias"].astype(np.float64)
        # Rounding adds half a unit, which must be exact as well.
        bounds = np.abs(kernel).sum(tuple(range(kernel.ndim - 1))) * ACTIVATION_MAX + np.abs(bias) + 2**WEIGHT_BITS
        if bounds.max() >= EXACT64:
            raise ModelError(f"integer layer {name} can reach {bounds.max():.3g}, beyond exact float64")
        wide = np.flatnonzero(bounds >= EXACT32)
        dtype = np.float64 if len(wide) else np.float32
        layer = Layer(np.ascontiguousarray(kernel, dtype), bias.astype(dtype))
        if 0 < len(wide) < len(bounds) and kernel.ndim == 2:
            layer = layer._replace(narrow=np.ascontiguousarray(kernel, np.float32), wide=wide)
        layers[name] = layer
    return layers


def shift(x: np.ndarray, bits: int) -> np.ndarray:
    """round(x / 2**bits), halves up, in place; exact for integers that the float type carries with a bit to spare."""
    x *= 2.0**-bits
    x += 0.5
    return np.floor(x, out=x)


def depthwise(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """[..., h, w, C] convolved channel by channel with [3, 3, C], zero padding, in the kernel's type."""
    *batch, height, width, channels = x.shape
    padded = np.zeros((*batch, height + 2, width + 2, channels), kernel.dtype)
    padded[..., 1:-1, 1:-1, :] = x
    total = padded[..., :height, :width, :] * kernel[0, 0]
    term = np.empty_like(total)
    for n in range(1, 9):
        top, left = divmod(n, 3)
        np.multiply(padded[..., top : top + height, left : left + width, :], kernel[top, left], out=term)
        total += term
    return total


def shuffle(x: np.ndarray, r: int) -> np.ndarray:
    """[..., h, w, r * r * C] -> [..., h * r, w * r, C]."""
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height, width, r, r, channels // (r * r)).swapaxes(-4, -3)
    return np.ascontiguousarray(x).reshape(*batch, height * r, width * r, -1)


def unshuffle(x: np.ndarray, r: int) -> np.ndarray:
    """The inverse of shuffle."""
    *batch, height, width, channels = x.shape
    x = x.reshape(*batch, height // r, r, width // r, r, channels).swapaxes(-4, -3)
    return np.ascontiguousarray(x).reshape(*batch, height // r, width // r, -1)


class Exact:
    """Implements generative.GridArithmetic on integer-valued floats [B, h, w, C], unit 2**-6."""

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self.layers = layers

    def _clip(self, x: np.ndarray, low: float = -ACTIVATION_MAX) -> np.ndarray:
        return np.clip(x, low, ACTIVATION_MAX, out=x)

    def _round(self, x: np.ndarray, low: float = -ACTIVATION_MAX) -> np.ndarray:
        return self._clip(shift(x, WEIGHT_BITS), low).astype(np.float32, copy=False)

    def channels(self, x: np.ndarray) -> int:
        return x.shape[-1]

    def dense(self, name: str, x: np.ndarray, channels: int, relu: bool = False, small: bool = False) -> np.ndarray:
        t = self.layers[name].product(x.reshape(-1, x.shape[-1]))
        return self._round(t, 0 if relu else -ACTIVATION_MAX).reshape(*x.shape[:-1], channels)

    def depthwise(self, name: str, x: np.ndarray) -> np.ndarray:
        t = depthwise(x, self.layers[name].kernel)
        t += self.layers[name].bias
        return self._round(t)

    def gate(self, name: str, x: np.ndarray) -> np.ndarray:
        rows, middle = x.reshape(-1, x.shape[-1]), x.shape[-1]
        t = self._round(self.layers[name].product(rows, slice(0, middle)), 0)
        t *= self._round(self.layers[name].product(rows, slice(middle, None)))
        return self._clip(shift(t, ACTIVATION_BITS)).reshape(x.shape)

    def mix(self, name: str, x: np.ndarray) -> np.ndarray:
        batch, height, width, channels = x.shape
        rows = x.reshape(batch, height * width, channels).transpose(0, 2, 1).reshape(-1, height * width)
        t = self._round(self.layers[name].product(rows)).reshape(batch, channels, height * width)
        return t.transpose(0, 2, 1).reshape(x.shape)

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Overwrites y."""
        y += x
        return self._clip(y)

    def shuffle(self, x: np.ndarray, r: int) -> np.ndarray:
        return shuffle(x, r)

    def unshuffle(self, x: np.ndarray, r: int) -> np.ndarray:
        return unshuffle(x, r)

    def neighbours(self, x: np.ndarray) -> np.ndarray:
        height, width = x.shape[1:3]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        parts = [padded[:, t : t + height, s : s + width] for t in range(3) for s in range(3)]
        return np.concatenate(parts, -1)

    def flatten(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), 1, 1, -1)

    def unflatten(self, x: np.ndarray, side: int) -> np.ndarray:
        return x.reshape(len(x), side, side, -1)

    def concat(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.concatenate([x, y], -1)
