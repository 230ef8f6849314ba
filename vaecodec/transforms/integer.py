"""Exact integer networks: what chooses a probability is computed here, and has one right answer everywhere.

Numbers are integers carried in floats.  A matrix product of integers is exact in any order of summation, on
any library and with any number of threads, while no partial sum can reach 2**24 (float32) or 2**53 (float64);
the bound follows from the weights, is checked when they are loaded, and picks the type.

    activations   11 bits and sign, unit 2**-6
    weights       unit 2**-9
    products      unit 2**-15, rounded back to 2**-6 with halves up
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
INDEX_GAIN = 8.0  # an activation of 1 is 8 rungs of the scale ladder
GAIN_BITS = 10  # gains are integers in units of 2**-10

EXACT32, EXACT64 = 2**24, 2**53


class Layer(NamedTuple):
    """Kernel and bias in the float type that keeps every sum exact.

    Where that is float64 for some outputs alone, `beyond`, the others are taken from `narrow`, the kernel in float32.
    """

    kernel: np.ndarray
    bias: np.ndarray
    narrow: np.ndarray | None = None
    beyond: np.ndarray | None = None

    def product(self, x: np.ndarray, outputs: slice = slice(None)) -> np.ndarray:
        """[n, C] -> [n, K], or those of the given outputs, with bias, in a type that holds them."""
        if self.narrow is None or self.beyond is None:
            t = x.astype(self.kernel.dtype, copy=False) @ self.kernel[:, outputs]
        else:
            t = x @ self.narrow[:, outputs]
            first, last, _ = outputs.indices(self.kernel.shape[1])
            beyond = self.beyond[(self.beyond >= first) & (self.beyond < last)]
            if len(beyond):
                t = t.astype(np.float64)
                t[:, beyond - first] = x.astype(np.float64) @ self.kernel[:, beyond]
        t += self.bias[outputs].astype(t.dtype, copy=False)
        return t


def prepare(weights: Mapping[str, np.ndarray]) -> dict[str, Layer]:
    """Integer kernels (unit 2**-9) and biases (unit 2**-15) by name -> layers, each in the cheapest exact type.

    Raises ModelError where even float64 could round.
    """
    layers = {}
    for key, value in weights.items():
        name, part = key.rsplit("/", 1)
        if part == "bias":
            continue
        kernel = value.astype(np.int64)
        bias = weights[f"{name}/bias"].astype(np.int64)
        sums = np.abs(kernel.astype(np.float64)).sum(tuple(range(kernel.ndim - 1))) * ACTIVATION_MAX
        # Rounding adds half a unit, which must be exact as well.
        bounds = sums + np.abs(bias.astype(np.float64)) + 2**WEIGHT_BITS
        if bounds.max() >= EXACT64:
            raise ModelError(f"integer layer {name} can reach {bounds.max():.3g}, beyond exact float64")
        beyond = np.flatnonzero(bounds >= EXACT32)
        dtype = np.float64 if len(beyond) else np.float32
        layer = Layer(np.ascontiguousarray(kernel, dtype), bias.astype(dtype))
        if 0 < len(beyond) < len(bounds) and kernel.ndim == 2:
            layer = layer._replace(narrow=np.ascontiguousarray(kernel, np.float32), beyond=beyond)
        layers[name] = layer
    return layers


def shift(x: np.ndarray, bits: int) -> np.ndarray:
    """round(x / 2**bits), halves up, in place; exact for integers that the float type carries with a bit to spare."""
    x *= 2.0**-bits
    return nearest(x)


def nearest(x: np.ndarray) -> np.ndarray:
    """round(x), halves up, in place."""
    x += 0.5
    return np.floor(x, out=x)


def padded(x: np.ndarray, above: int, below: int, dtype: type) -> np.ndarray:
    """[h, w, C] with a zero column on either side, and a zero row where it does not begin and end with one to spare."""
    out = np.zeros((len(x) + 2 - above - below, x.shape[1] + 2, x.shape[2]), dtype)
    out[1 - above : len(out) - 1 + below, 1:-1] = x
    return out


def depthwise(x: np.ndarray, kernel: np.ndarray, above: int = 0, below: int = 0) -> np.ndarray:
    """[h, w, C] convolved channel by channel with [3, 3, C], zero padding, in the kernel's type.

    Of `above` and `below` rows, 0 or 1, that it has beyond what is asked for, there is no result.
    """
    wide = padded(x, above, below, kernel.dtype.type)
    height, width = len(wide) - 2, x.shape[1]
    total = wide[:height, :width] * kernel[0, 0]
    term = np.empty_like(total)
    for n in range(1, 9):
        top, left = divmod(n, 3)
        np.multiply(wide[top : top + height, left : left + width], kernel[top, left], out=term)
        total += term
    return total


def shuffle(x: np.ndarray, r: int) -> np.ndarray:
    """[h, w, r * r * C] -> [h * r, w * r, C]."""
    height, width, channels = x.shape[0], x.shape[1], x.shape[2] // (r * r)
    x = x.reshape(height, width, r, r, channels).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(x).reshape(height * r, width * r, channels)


class Exact:
    """The arithmetic of `network` in integers; arrays are [h, w, C], integer-valued, unit 2**-6.

    Of a band of rows, `above` and `below` say whether a row of its neighbours comes along: the depthwise layer, one in
    each block, takes it, and what comes after is without.
    """

    def __init__(self, layers: Mapping[str, Layer], above: bool = False, below: bool = False) -> None:
        self.layers, self.above, self.below = layers, int(above), int(below)

    def channels(self, x: np.ndarray) -> int:
        return x.shape[-1]

    def _clip(self, x: np.ndarray, low: float = -ACTIVATION_MAX) -> np.ndarray:
        return np.clip(x, low, ACTIVATION_MAX, out=x)

    def _round(self, x: np.ndarray, low: float = -ACTIVATION_MAX) -> np.ndarray:
        return self._clip(shift(x, WEIGHT_BITS), low).astype(np.float32, copy=False)

    def dense(self, name: str, x: np.ndarray, channels: int, relu: bool = False, small: bool = False) -> np.ndarray:
        t = self.layers[name].product(x.reshape(-1, x.shape[-1]))
        return self._round(t, 0 if relu else -ACTIVATION_MAX).reshape(*x.shape[:-1], channels)

    def depthwise(self, name: str, x: np.ndarray) -> np.ndarray:
        layer = self.layers[name]
        t = depthwise(x, layer.kernel, self.above, self.below)
        t += layer.bias
        return self._round(t)

    def gate(self, name: str, x: np.ndarray) -> np.ndarray:
        rows, middle = x.reshape(-1, x.shape[-1]), x.shape[-1]
        a = self._round(self.layers[name].product(rows, slice(0, middle)), 0)
        a *= self._round(self.layers[name].product(rows, slice(middle, None)))
        return self._clip(shift(a, ACTIVATION_BITS)).reshape(x.shape)

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """In y, which is made for it; x may still have the rows that a depthwise layer has taken."""
        y += x[self.above : self.above + len(y)] if len(x) > len(y) else x
        return self._clip(y)

    def shuffle(self, x: np.ndarray, r: int) -> np.ndarray:
        return shuffle(x, r)
