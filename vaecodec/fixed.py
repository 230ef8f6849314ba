"""The synthesis in fixed point: pixels that are the same on every machine, for what must be (docs/arrays.md).

The networks of `network.synthesis`, in integers carried in float64, as in `integer`, but finer:

    activations, pixels   unit 2**-14, magnitude below 2**24
    weights               unit 2**-16, as are the multipliers of wavelets
    gains                 unit 2**-20
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from itertools import pairwise

import numpy as np

from vaecodec import network, pyramid, wiener
from vaecodec.bases import rotation
from vaecodec.config import ANCHORS, STRIDE, SUBSTEPS
from vaecodec.errors import ModelError
from vaecodec.gradients import unshuffle
from vaecodec.integer import ACTIVATION_BITS, EXACT64, Layer, depthwise, shift, shuffle
from vaecodec.vetting import require
from vaecodec.weights import Model, conditions
from vaecodec.wiener import Filter

BITS = 14
WEIGHT_BITS = 16
GAIN_BITS = 20
MOST = float(2**24 - 1)
GAIN_MOST = 2**28  # so that a gain times anything stays exact
DIGITS = 40
RAMP_BITS = 8  # of the way from one class of a filter to the next


class Lifted:
    """lifting.Arithmetic in integers, unit 2**-14: clipped before samples are joined, and so below 2**30 until then."""

    def begin(self, samples: np.ndarray) -> np.ndarray:
        return np.clip(samples, -MOST, MOST, order="C")

    def times(self, samples: np.ndarray, factor: float) -> np.ndarray:
        samples *= float(whole(np.float64(factor), WEIGHT_BITS))
        return shift(samples, WEIGHT_BITS)


class Fixed:
    """The arithmetic of `network` in fixed point; arrays are f64[h, w, C], integers."""

    def __init__(self, layers: dict[str, Layer], conditions: dict[str, np.ndarray]) -> None:
        self._layers, self._conditions = layers, conditions

    def channels(self, x: np.ndarray) -> int:
        return x.shape[-1]

    def _round(self, x: np.ndarray, bits: int, low: float = -MOST) -> np.ndarray:
        return np.clip(shift(x, bits), low, MOST, out=x)

    def dense(self, name: str, x: np.ndarray, channels: int, relu: bool = False, small: bool = False) -> np.ndarray:
        t = self._layers[name].product(x.reshape(-1, x.shape[-1]))
        return self._round(t, WEIGHT_BITS, 0 if relu else -MOST).reshape(*x.shape[:-1], channels)

    def depthwise(self, name: str, x: np.ndarray) -> np.ndarray:
        layer = self._layers[name]
        t = depthwise(x, layer.kernel)
        t += layer.bias
        return self._round(t, WEIGHT_BITS)

    def gate(self, name: str, x: np.ndarray) -> np.ndarray:
        both = self.dense(name, x, 2 * x.shape[-1])
        a, b = np.split(both, 2, -1)
        return self._round(np.maximum(a, 0) * b, BITS)

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        t = x + y
        return np.clip(t, -MOST, MOST, out=t)

    def condition(self, name: str, x: np.ndarray) -> np.ndarray:
        return self._round(x * self._conditions[name], GAIN_BITS)

    def shuffle(self, x: np.ndarray, r: int) -> np.ndarray:
        return shuffle(x, r)

    def unshuffle(self, x: np.ndarray, r: int) -> np.ndarray:
        return unshuffle(x, r)

    def samples(self, y: np.ndarray) -> np.ndarray:
        planes = pyramid.restored(pyramid.unpack(y), Lifted())
        turned = np.moveaxis(np.clip(planes, -MOST, MOST, out=planes), 0, -1)
        return self._round(turned @ whole(rotation(len(planes)), WEIGHT_BITS), WEIGHT_BITS)


class Synthesis:
    """The synthesis of one model; raises ModelError where its weights do not fit, or are too large for exact sums."""

    def __init__(self, model: Model) -> None:
        self._model, self._layers = model, _layers(model)
        self._vector = lru_cache(maxsize=16)(lambda name, step: _vector(model, name, step))
        try:
            made = self(np.zeros((1, 1, model.config.latents)), 0)
        except (ValueError, KeyError, IndexError) as exc:
            raise ModelError(f"the weights of the model's synthesis do not fit ({exc})") from exc
        require(made.shape == (STRIDE, STRIDE, model.config.channels), "the model's synthesis makes other pixels")

    def __call__(self, y: np.ndarray, step: int, found: Filter | None = None) -> np.ndarray:
        """Latents [h, w, M], unit 2**-6 steps, -> f64[16h, 16w, C], integers, unit 2**-14, within +-1/2, about; through
        the filter of their picture where it has one.
        """
        told = {name: self._vector(name, step) for name in conditions("synthesis")}
        ops = Fixed(self._layers, told)
        x = y * self._vector("inverse_gain", step)
        x = np.clip(shift(x, GAIN_BITS + ACTIVATION_BITS - BITS), -MOST, MOST, out=x)
        picture = network.synthesis(ops, self._model.config, x)
        return restored(picture, found, int(self._vector("inverse_gain", step)[0])) if found else picture


def restored(picture: np.ndarray, found: Filter, step: int) -> np.ndarray:
    """wiener.Restoration of f64[H, W, C], integers, unit 2**-14; the quantisation step is in units of 2**-20."""
    channels = picture.shape[2]
    turn = whole(rotation(channels), WEIGHT_BITS)
    planes = shift(picture.reshape(-1, channels) @ turn.T, WEIGHT_BITS).T.reshape(channels, *picture.shape[:2])
    margin = ((0, 0), (wiener.REACH, wiener.REACH), (wiener.REACH, wiener.REACH))
    planes = wiener.mirrored(np.pad(np.clip(planes, -MOST, MOST), margin))
    sums = wiener.basis(planes[0])
    first, shared, each = found.weights()
    values = [shift(one @ sums, bits) for one, bits in zip(first, found.shifts.tolist(), strict=True)]
    active, added = wiener.activity(planes[0]).ravel(), np.zeros((channels, sums.shape[1]))
    added[0] = 2**RAMP_BITS * values[0]
    for limit, (low, high) in zip(wiener.LIMITS[len(first)], pairwise(values), strict=True):
        middle = float(limit * step)  # in the unit of activities, 2**-26
        # A quotient is rounded alike everywhere, and so is its floor.
        part = np.floor(2**RAMP_BITS * (3 * active - 2 * middle) / (2 * middle))
        added[0] += np.clip(part, 0, 2**RAMP_BITS) * (high - low)
    added[0] = shift(added[0], RAMP_BITS)
    near = wiener.nearest_of(sums)
    for plane, one, out in zip(planes[1:], each, added[1:], strict=True):
        out[:] = shift(shared[0] @ wiener.nearest(plane) + one @ near, wiener.OTHER_SHIFT)
    out = picture + shift(added.T @ turn, WEIGHT_BITS).reshape(picture.shape)
    return np.clip(out, -MOST, MOST, out=out)


def whole(x: np.ndarray, bits: int) -> np.ndarray:
    """f64: x in units of 2**-bits, rounded to integers, halves to even; of floats, so exact before it is rounded."""
    return np.rint(np.ldexp(x.astype(np.float64), bits))


def _layers(model: Model) -> dict[str, Layer]:
    prefix, layers = "weights/synthesis/", {}
    for name, kernel in model.arrays.items():
        if name.startswith(prefix) and name.endswith("/kernel"):
            layer = name[len("weights/") : -len("/kernel")]
            kernel = whole(kernel, WEIGHT_BITS)
            bias = model.arrays.get(f"weights/{layer}/bias", np.zeros(kernel.shape[-1]))
            bias = whole(bias, WEIGHT_BITS + BITS)
            sums = np.abs(kernel).sum(tuple(range(kernel.ndim - 1)))
            bound = sums.max() * MOST + np.abs(bias).max() + 2.0**WEIGHT_BITS
            require(bound < EXACT64, f"the sums of {layer} are too large to be exact")
            layers[layer] = Layer(kernel, bias)
    return layers


def _vector(model: Model, name: str, step: int) -> np.ndarray:
    """f64[channels]: Model.vector in units of 2**-20, from 40 digits, so that no library's exp matters."""
    anchors = model.array(f"anchors/{name}")
    first = min(step // SUBSTEPS, ANCHORS - 2)
    part, context = step - first * SUBSTEPS, Context(prec=DIGITS, rounding=ROUND_HALF_EVEN)
    found = []
    for low, high in anchors[first : first + 2].T.tolist():
        power = context.divide(Decimal(low) * (SUBSTEPS - part) + Decimal(high) * part, Decimal(SUBSTEPS))
        require(abs(power) < 20, "a gain is out of range")
        units = int(context.multiply(context.exp(power), Decimal(1 << GAIN_BITS)).to_integral_value(ROUND_HALF_EVEN))
        require(units < GAIN_MOST, "a gain is out of range")
        found.append(units)
    return np.array(found, np.float64)
