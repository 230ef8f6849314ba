"""Wavelets in TensorFlow, for training and for GPUs: what `float_wavelet` and `latents` do, on [B, H, W, C].

Also the arithmetic of the prior: `octaves.Scaled` carried in floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec.config import CELL, STRIDE
from vaecodec.native.prior import lowest_parts
from vaecodec.native.reference.prior import octave_order
from vaecodec.rdo.prior_gradients import COMPANDED
from vaecodec.training import grid_layers, layers
from vaecodec.transforms.float_wavelet import BLOCK, NORM, REACH, STEPS
from vaecodec.transforms.integer import ACTIVATION_BITS, INDEX_GAIN, LOC_GAIN
from vaecodec.transforms.networks import color_transform
from vaecodec.transforms.wavelet import OCTAVES, SUBBANDS


def octaves_macs(samples: int, octaves: range) -> int:
    """Multiply-accumulates of these octaves of so many samples, as products with banded matrices: along, and down."""
    return sum(2 * (BLOCK + 2 * REACH) * (samples >> (2 * octave)) for octave in octaves)


class Shapes(grid_layers.Shapes):
    """layers.Shapes with what wavelets ask for."""

    def coefficients(self, x):
        self._lift(x)
        return (x[-3] // 16, x[-2] // 16, CELL * x[-1])

    def samples(self, y):
        x = (y[-3] * 16, y[-2] * 16, y[-1] // CELL)
        self._lift(x)
        return x

    def _lift(self, x):
        self.macs["wavelet"] = octaves_macs(math.prod(x), range(OCTAVES)) + math.prod(x) * x[-1]  # then colours turn

    def rectify(self, x):
        return x

    def distribution(self, name, x, count):
        self._add(name, (x[-1], 2 * count), x[-1], math.prod(x[:-1]), 0.1)
        return (*x[:-1], count), (*x[:-1], count)


class Quantised(grid_layers.Quantised):
    """octaves.Scaled carried in floats; conditioning vectors [B, 1, 1, C] by name."""

    def __init__(self, weights: Any, conditions: Any) -> None:
        super().__init__(weights)
        self.conditions = conditions

    def rectify(self, x):
        return tf.nn.relu(x)

    def distribution(self, name, x, count):
        """(means, in quantisation steps, scale indices, in rungs) [..., count]."""
        loc, index = tf.split(self._product(name, x), [count, count], -1)
        return loc * LOC_GAIN, index * INDEX_GAIN

    def compand(self, x):
        """Values, in quantisation steps, to +-log 256."""
        size = tf.math.log1p(tf.minimum(tf.abs(x), tf.constant(COMPANDED, x.dtype)))
        return layers.on_grid(tf.sign(x) * size, ACTIVATION_BITS)


def mirrored(x: tf.Tensor) -> tf.Tensor:
    """[B, h, w, C] with a row and a column more on every side."""
    return tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")


def details(low: tf.Tensor) -> tf.Tensor:
    """octaves.details."""
    wide = mirrored(low)
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    return low - (around - low) / 8


def around(known: tf.Tensor, distance: int, corners: bool) -> list[tf.Tensor]:
    """Four neighbours of each place of [B, h, w, C], whatever they are where nobody asks."""
    (up, down), (left, right) = (_either_side(tf.shape(known)[axis], distance) for axis in (1, 2))
    if corners:
        rows = [tf.gather(known, at, axis=1) for at in (up, down)]
        return [tf.gather(row, at, axis=2) for row in rows for at in (left, right)]
    vertical = [tf.gather(known, at, axis=1) for at in (up, down)]
    across = [tf.gather(known, at, axis=2) for at in (left, right)]
    lone_row, lone_column = tf.shape(known)[1] <= distance, tf.shape(known)[2] <= distance
    return [
        *(tf.where(lone_row, two, one) for one, two in zip(vertical, across, strict=True)),
        *(tf.where(lone_column, one, two) for one, two in zip(vertical, across, strict=True)),
    ]


def _either_side(count: tf.Tensor, distance: int) -> list[tf.Tensor]:
    place = tf.range(count)
    before = tf.where(place >= distance, place - distance, place + distance)
    after = tf.where(place + distance < count, place + distance, place - distance)
    return [tf.clip_by_value(at, 0, count - 1) for at in (before, after)]


def lowest_masks(height: tf.Tensor, width: tf.Tensor) -> list[tf.Tensor]:
    """bool[h, w, 1] of each part of the lowest coefficients: native.prior.lowest_parts."""
    row, column = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    return [mask[..., None] for mask in lowest_parts(row, column)]


def _next(x: tf.Tensor) -> tf.Tensor:
    return x + tf.concat([_rows_of(x, 1, -1), _rows_of(x, tf.shape(x)[1] - 1, 1)], 1)


def _last(x: tf.Tensor) -> tf.Tensor:
    return x + tf.concat([_rows_of(x, 0, 1), _rows_of(x, 0, tf.shape(x)[1] - 1)], 1)


def _rows_of(x: tf.Tensor, first: Any, count: Any) -> tf.Tensor:
    """x[:, first : first + count], whose gradient is a tenth of the time of that of an index."""
    return tf.slice(x, [0, first, 0], [-1, count, -1])


def _part(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[B, H, n] -> low, high [B, H/2, n]."""
    shape = tf.shape(x)
    even, odd = tf.unstack(tf.reshape(x, [shape[0], shape[1] // 2, 2, shape[2]]), axis=2)
    odd += STEPS[0] * _next(even)
    even += STEPS[1] * _last(odd)
    odd += STEPS[2] * _next(even)
    even += STEPS[3] * _last(odd)
    return even * NORM, odd / NORM


def _join(low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    even, odd = low / NORM, high * NORM
    even -= STEPS[3] * _last(odd)
    odd -= STEPS[2] * _next(even)
    even -= STEPS[1] * _last(odd)
    odd -= STEPS[0] * _next(even)
    shape = tf.shape(even)
    return tf.reshape(tf.stack([even, odd], 2), [shape[0], 2 * shape[1], shape[2]])


def _rows(x: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] -> [B, H, W * C]."""
    return tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], tf.shape(x)[2] * x.shape[3]])


def _turned(x: tf.Tensor) -> tf.Tensor:
    return tf.transpose(x, [0, 2, 1, 3])


def _columns(x: tf.Tensor, width: tf.Tensor, channels: int) -> tf.Tensor:
    """The inverse of _rows."""
    return tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], width, channels])


def forward(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[B, H, W, C] -> (low [B, H/2, W/2, C], bands [B, H/2, W/2, 3 C]): float_wavelet.forward_dwt."""
    channels, found = x.shape[3], []
    for half in _part(_rows(x)):
        turned = _turned(_columns(half, tf.shape(x)[2], channels))
        found += [_turned(_columns(one, tf.shape(x)[1] // 2, channels)) for one in _part(_rows(turned))]
    return found[0], tf.concat(found[1:], -1)


def inverse(low: tf.Tensor, bands: tf.Tensor) -> tf.Tensor:
    """The inverse of forward."""
    channels, height, width = low.shape[3], tf.shape(low)[1], 2 * tf.shape(low)[2]
    across, down, both = tf.split(bands, SUBBANDS, -1)
    halves = [
        _turned(_columns(_join(*(_rows(_turned(one)) for one in pair)), height, channels))
        for pair in ((low, across), (down, both))
    ]
    return tf.ensure_shape(_columns(_join(*map(_rows, halves)), width, channels), [None, None, None, channels])


def unpack(y: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """[B, h, w, 256 C] -> (low [B, h, w, C], bands [B, n h, n w, 3 C], finest first): latents.unpack."""
    channels, shape, bands = y.shape[3] // CELL, tf.shape(y), []
    places = tf.transpose(tf.reshape(y, [*tf.unstack(shape[:3]), channels, STRIDE, STRIDE]), [0, 1, 4, 2, 5, 3])
    low = tf.reshape(places, [shape[0], shape[1] * STRIDE, shape[2] * STRIDE, channels])
    for _ in range(OCTAVES):
        parts = tf.nn.space_to_depth(tf.ensure_shape(low, [None, None, None, channels]), 2)
        low, octave = tf.split(parts, [channels, SUBBANDS * channels], -1)
        bands.append(octave)
    return low, bands


def pack(low: tf.Tensor, bands: list[tf.Tensor]) -> tf.Tensor:
    """The inverse of unpack."""
    channels, shape = low.shape[3], tf.shape(low)
    for octave in reversed(bands):
        joined = tf.ensure_shape(tf.concat([low, octave], -1), [None, None, None, 4 * channels])
        low = tf.nn.depth_to_space(joined, 2)
    places = tf.reshape(low, [shape[0], shape[1], STRIDE, shape[2], STRIDE, channels])
    cells = tf.reshape(tf.transpose(places, [0, 1, 3, 5, 2, 4]), [*tf.unstack(shape[:3]), CELL * channels])
    return tf.ensure_shape(cells, [None, None, None, CELL * channels])


def coefficients(x: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] -> y [B, h, w, 256 C]."""
    low, bands = layers.pointwise(x, tf.constant(color_transform(x.shape[3]).T, x.dtype)), []
    for _ in range(OCTAVES):
        low, octave = forward(low)
        bands.append(octave)
    return pack(low, bands)


def samples(y: tf.Tensor) -> tf.Tensor:
    """The inverse of coefficients."""
    low, bands = unpack(y)
    for octave in reversed(bands):
        low = inverse(low, octave)
    return layers.pointwise(low, tf.constant(color_transform(low.shape[3]), y.dtype))


def permuted(x: tf.Tensor, order: np.ndarray) -> tf.Tensor:
    """[..., n] -> the same channels in another order; the gradient goes the way back, and adds nothing up."""
    back = np.argsort(order)

    @tf.custom_gradient
    def gathered(x: tf.Tensor) -> Any:
        return tf.gather(x, order, axis=-1), lambda gradient: tf.gather(gradient, back, axis=-1)

    return gathered(x)


def to_halves(bands: tf.Tensor) -> list[tf.Tensor]:
    """[B, H, W, 3 C] -> two of [B, H/2, W/2, 6 C]: octave_halves."""
    return tf.split(
        permuted(tf.nn.space_to_depth(bands, 2), np.concatenate(octave_order(bands.shape[3] // SUBBANDS))), 2, -1
    )


def from_halves(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """The inverse of to_halves."""
    order = np.argsort(np.concatenate(octave_order(first.shape[3] // 6)))
    cells = permuted(tf.concat([first, second], -1), order)
    return tf.nn.depth_to_space(tf.ensure_shape(cells, [None, None, None, len(order)]), 2)


def with_magnitudes(*parts: tf.Tensor, beside: Sequence[tf.Tensor] = ()) -> tf.Tensor:
    """octaves.with_magnitudes of all parts together; between them and their magnitudes what is `beside`."""
    return tf.concat([*parts, *beside, *map(tf.abs, parts)], -1)
