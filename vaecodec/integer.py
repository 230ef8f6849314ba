"""Exact integer networks: what chooses a probability is computed here, and has one right answer everywhere.

Numbers are integers carried in floats.  A matrix product of integers is exact in any order of summation, on
any library and with any number of threads, while no partial sum can reach 2**24 (float32) or 2**53 (float64);
the bound follows from the weights, is checked when they are loaded, and picks the type.

    activations   11 bits and sign, unit 2**-6
    weights       unit 2**-9
    products      unit 2**-15, rounded back to 2**-6 with halves up
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vaecodec.errors import ModelError

ACTIVATION_BITS = 6
ACTIVATION_MAX = 1023
WEIGHT_BITS = 9
PRODUCT_BITS = ACTIVATION_BITS + WEIGHT_BITS
LOC_GAIN = 4.0  # means reach further than activations: +-64 from the network, +-1024 with the predictor
LOC_MAX = 1024.0
INDEX_GAIN = 8.0  # an activation of 1 is 8 rungs of the scale ladder
INDEX_BITS = 4  # scale indices carry 4 fractional bits until the gain's rungs are added
GAIN_BITS = 10  # gains are integers in units of 2**-10
VALUE_MAX = 2**22  # bound on decoded latents in units of 2**-6: 65536 quantisation steps
CONTEXT_MAX = 2**14  # bound on latents as context, before the gain: more than any picture has, and exact in float32

EXACT32, EXACT64 = 2**24, 2**53

# What enters each layer is at most this; hyper-latents and predictions reach further than activations do.
INPUT_MAX = {"hyper/in": 2**20}


class Conditions(NamedTuple):
    """The integer side of one prior level, from the tables of a frozen model (N, M: channels of z and y)."""

    bias: np.ndarray  # i[prior], unit 2**-6, added to the features
    gain: np.ndarray  # i[M], unit 2**-10
    inverse_gain: np.ndarray  # i[M], unit 2**-10
    index: np.ndarray  # type: ignore[assignment]  # i[M], rungs in units of 2**-4: the gain, on the scale ladder
    hyper_inverse_gain: np.ndarray  # i[N], unit 2**-10


class Layer(NamedTuple):
    """Kernel and bias in the float type that keeps every sum exact.

    Where that is float64 for some outputs alone, `beyond`, the others are taken from `narrow`, the kernel in float32.
    """

    kernel: np.ndarray
    bias: np.ndarray
    narrow: np.ndarray | None = None
    beyond: np.ndarray | None = None

    def product(self, x: np.ndarray, outputs: slice = slice(None), inputs: slice = slice(None)) -> np.ndarray:
        """[n, C] -> [n, K], or those of the given outputs, with bias, in a type that holds them; of those inputs."""
        if self.narrow is None or self.beyond is None:
            t = x.astype(self.kernel.dtype, copy=False) @ self.kernel[inputs, outputs]
        else:
            t = x @ self.narrow[inputs, outputs]
            first, last, _ = outputs.indices(self.kernel.shape[1])
            beyond = self.beyond[(self.beyond >= first) & (self.beyond < last)]
            if len(beyond):
                t = t.astype(np.float64)
                t[:, beyond - first] = x.astype(np.float64) @ self.kernel[inputs, beyond]
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
        if part == "predictor":
            name, bias, reach = key, np.zeros(kernel.shape[-1], np.int64), CONTEXT_MAX
        else:
            bias, reach = weights[f"{name}/bias"].astype(np.int64), INPUT_MAX.get(name, ACTIVATION_MAX)
        sums = np.abs(kernel.astype(np.float64)).sum(tuple(range(kernel.ndim - 1))) * reach
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


class OneThread:
    """Within it, matrix products run on the calling thread alone; for any number of threads at once.

    The products here are small, and a BLAS worker that has done its share spins for some 20 ms in wait of more:
    it then holds the core that the transforms want (768x512 on 2 cores: 17 ms of 33 ms of analysis).
    """

    def __init__(self) -> None:
        self._lock, self._users, self._limit = threading.Lock(), 0, nullcontext()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0 and os.environ.get("OPENBLAS_NUM_THREADS") != "1":
                self._limit = _blas().limit(limits=1, user_api="blas")
                self._limit.__enter__()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limit.__exit__(None, None, None)
                self._limit = nullcontext()

    def hold(self) -> None:
        """Lets no thread begin or end, until let_go."""
        self._lock.acquire()

    def let_go(self) -> None:
        self._lock.release()


@lru_cache(maxsize=1)
def _blas():  # type: ignore[no-untyped-def]
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


one_thread = OneThread()

if hasattr(os, "register_at_fork"):
    # Not while some thread tells BLAS how many it may use: the child would wait for ever for the lock that takes.
    os.register_at_fork(
        before=one_thread.hold,
        after_in_parent=one_thread.let_go,
        after_in_child=lambda: one_thread.__init__(),  # type: ignore[misc]
    )


@lru_cache(maxsize=64)
def parity(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of the even and the odd cells of an [h, w] grid, by row plus column, each in rows from the top."""
    odd = (np.arange(height)[:, None] + np.arange(width)).ravel() % 2
    return np.flatnonzero(odd == 0), np.flatnonzero(odd)


def columns(channels: int, half: int, odd: int) -> slice:
    """The channels that step `half` codes at even (0) or odd (1) cells: the two halves trade places."""
    middle = channels // 2
    return slice(middle, channels) if half != odd else slice(0, middle)


def take_half(x: np.ndarray, half: int) -> np.ndarray:
    """[h, w, C] -> [h * w, C/2]: what step `half` codes, in coding order: even cells, then odd cells."""
    cells = x.reshape(-1, x.shape[-1])
    picked = [cells[at, columns(x.shape[-1], half, odd)] for odd, at in enumerate(parity(*x.shape[:2]))]
    return np.concatenate(picked)


def put_half(values: np.ndarray, out: np.ndarray, half: int) -> None:
    """The inverse of take_half, into those of [h, w, C]: [h * w, C/2]."""
    cells, (even, odd) = out.reshape(-1, out.shape[2]), parity(*out.shape[:2])
    cells[even, columns(out.shape[2], half, 0)] = values[: len(even)]
    cells[odd, columns(out.shape[2], half, 1)] = values[len(even) :]


class Exact:
    """The arithmetic of `network` in integers; arrays are [h, w, C], integer-valued, unit 2**-6.

    Of a band of rows, `above` and `below` say whether a row of its neighbours comes along: the depthwise layer, one in
    each block, takes it, and what comes after is without.  Bands begin at even rows.  Where half of y is known, it is
    given without zeros: the half [h, w, C/2] that each cell has.
    """

    def __init__(
        self, layers: Mapping[str, Layer], conditions: Conditions, above: bool = False, below: bool = False
    ) -> None:
        self.layers, self.conditions, self.above, self.below = layers, conditions, int(above), int(below)

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

    def condition(self, name: str, x: np.ndarray) -> np.ndarray:
        return self._clip(np.add(x, self.conditions.bias.astype(x.dtype), out=x))

    def gate(self, name: str, x: np.ndarray) -> np.ndarray:
        rows, middle = x.reshape(-1, x.shape[-1]), x.shape[-1]
        a = self._round(self.layers[name].product(rows, slice(0, middle)), 0)
        a *= self._round(self.layers[name].product(rows, slice(middle, None)))
        return self._clip(shift(a, ACTIVATION_BITS)).reshape(x.shape)

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """In y, which is made for it; x may still have the rows that a depthwise layer has taken."""
        y += x[self.above : self.above + len(y)] if len(x) > len(y) else x
        return self._clip(y)

    def compand(self, x: np.ndarray) -> np.ndarray:
        """Latents f32, unit 2**-6 -> activations: unit slope to 7.5, then 1/16, flat beyond 128."""
        t = np.clip(x, -8192, 8192)
        t *= 0.0625
        t += np.clip(x, -480, 480)
        return self._clip(nearest(t))

    def context(self, name: str, y: np.ndarray, channels: int) -> np.ndarray:
        """The known half of y, companded, through a dense layer of all channels."""
        rows = self.compand(y).reshape(-1, y.shape[-1])
        out = np.empty((len(rows), channels), np.float32)
        for odd, cells in enumerate(parity(*y.shape[:2])):
            known = columns(2 * y.shape[-1], 0, odd ^ self.above)
            out[cells] = self._round(self.layers[name].product(rows[cells], inputs=known))
        return out.reshape(*y.shape[:2], channels)

    def parameters(
        self, name: str, x: np.ndarray, channels: int, half: int, predictor: np.ndarray | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """(means, unit 2**-15, and scale indices, unit 2**-4 rungs), [cells, C/2], of even and then of odd cells."""
        layer, rows, out = self.layers[name], x.reshape(-1, x.shape[-1]), []
        known = None
        if predictor is not None:
            kernel = self.layers[f"{name}/predictor"].kernel
            known = padded(predictor, self.above, self.below, kernel.dtype.type)
        for odd, cells in enumerate(parity(*x.shape[:2])):
            here, part = columns(channels, half, odd), rows[cells]
            there = slice(here.start + channels, here.stop + channels)
            loc = layer.product(part, here)
            loc *= LOC_GAIN
            loc = loc.astype(np.float64, copy=False)
            if known is not None:
                loc += neighbours(known, kernel[..., here], cells)
            np.clip(loc, -LOC_MAX * 2**PRODUCT_BITS, LOC_MAX * 2**PRODUCT_BITS, out=loc)
            # An activation unit is INDEX_GAIN = 2**3 rungs.
            out.append((loc, shift(layer.product(part, there), PRODUCT_BITS - 3 - INDEX_BITS)))
        return out

    def shuffle(self, x: np.ndarray, r: int) -> np.ndarray:
        return shuffle(x, r)


def neighbours(known: np.ndarray, kernel: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """[cells, C]: of [3, 3, C] over the padded [h + 2, w + 2, C], what the four direct neighbours contribute.

    On a checkerboard that is all of it: the others are not known.
    """
    across = known.shape[1]
    row, column = np.divmod(cells, across - 2)
    corner, rows = row * across + column, known.reshape(-1, known.shape[2])
    total = rows.take(corner + 1, 0)
    total *= kernel[0, 1]
    for top, left in ((1, 0), (1, 2), (2, 1)):
        term = rows.take(corner + (top * across + left), 0)
        term *= kernel[top, left]
        total += term
    return total
