"""Wavelet transforms and neighbourhoods of [B, H, W, C] in TensorFlow, for training.

The same as `transforms.wavelet` and `transforms.latents`, with gradients that are fast on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec.config import CELL, STRIDE
from vaecodec.native.prior import lowest_parts
from vaecodec.native.reference.prior import octave_order
from vaecodec.transforms.wavelet import BLOCK, NORM, OCTAVES, REACH, STEPS, SUBBANDS

Tensor = Any


def dwt_macs(samples: int, octaves: range) -> int:
    """Multiply-accumulates of these octaves of a transform of so many samples, as products with banded matrices."""
    return sum(2 * (BLOCK + 2 * REACH) * (samples >> (2 * octave)) for octave in octaves)


def forward_dwt(x: Tensor) -> Tensor:
    """Transform f[B, H, W, C], sides multiples of 16, to y f[B, h, w, 256 C]."""
    octaves = []
    for _ in range(OCTAVES):
        x, subbands = forward_octave(x)
        octaves.append(subbands)
    return pack(x, octaves)


def inverse_dwt(y: Tensor) -> Tensor:
    """The inverse of forward_dwt."""
    low, octaves = unpack(y)
    for subbands in reversed(octaves):
        low = inverse_octave(low, subbands)
    return low


def forward_octave(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split f[B, H, W, C] into low f[B, H/2, W/2, C] and subbands f[B, H/2, W/2, 3 C]."""
    channels, parts = x.shape[3], []
    for half in _split_rows(_merge_columns(x)):
        columns = _transpose(_split_columns(half, tf.shape(x)[2], channels))
        quarters = _split_rows(_merge_columns(columns))
        parts += [_transpose(_split_columns(quarter, tf.shape(x)[1] // 2, channels)) for quarter in quarters]
    return parts[0], tf.concat(parts[1:], -1)


def inverse_octave(low: Tensor, subbands: Tensor) -> Tensor:
    """The inverse of forward_octave."""
    channels, height, width = low.shape[3], tf.shape(low)[1], 2 * tf.shape(low)[2]
    across, down, both = tf.split(subbands, SUBBANDS, -1)
    halves = []
    for pair in ((low, across), (down, both)):
        joined = _join_rows(*(_merge_columns(_transpose(quarter)) for quarter in pair))
        halves.append(_merge_columns(_transpose(_split_columns(joined, height, channels))))
    return tf.ensure_shape(_split_columns(_join_rows(*halves), width, channels), [None, None, None, channels])


def _split_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Lift the rows of f[B, H, n] to low, high f[B, H/2, n]."""
    shape = tf.shape(x)
    even, odd = tf.unstack(tf.reshape(x, [shape[0], shape[1] // 2, 2, shape[2]]), axis=2)
    odd += STEPS[0] * _add_next(even)
    even += STEPS[1] * _add_previous(odd)
    odd += STEPS[2] * _add_next(even)
    even += STEPS[3] * _add_previous(odd)
    return even * NORM, odd / NORM


def _join_rows(low: Tensor, high: Tensor) -> Tensor:
    """The inverse of _split_rows."""
    even, odd = low / NORM, high * NORM
    even -= STEPS[3] * _add_previous(odd)
    odd -= STEPS[2] * _add_next(even)
    even -= STEPS[1] * _add_previous(odd)
    odd -= STEPS[0] * _add_next(even)
    shape = tf.shape(even)
    return tf.reshape(tf.stack([even, odd], 2), [shape[0], 2 * shape[1], shape[2]])


def _add_next(x: Tensor) -> Tensor:
    """Add to each row of f[B, H, n] the next one; edges are mirrored.

    tf.slice, because its gradient takes a tenth of the time of that of an index.
    """
    last = tf.shape(x)[1] - 1
    return x + tf.concat([tf.slice(x, [0, 1, 0], [-1, -1, -1]), tf.slice(x, [0, last, 0], [-1, 1, -1])], 1)


def _add_previous(x: Tensor) -> Tensor:
    last = tf.shape(x)[1] - 1
    return x + tf.concat([tf.slice(x, [0, 0, 0], [-1, 1, -1]), tf.slice(x, [0, 0, 0], [-1, last, -1])], 1)


def _merge_columns(x: Tensor) -> Tensor:
    """[B, H, W, C] -> [B, H, W * C]."""
    return tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], tf.shape(x)[2] * x.shape[3]])


def _split_columns(x: Tensor, width: Tensor, channels: int) -> Tensor:
    """The inverse of _merge_columns."""
    return tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], width, channels])


def _transpose(x: Tensor) -> Tensor:
    return tf.transpose(x, [0, 2, 1, 3])


def pack(low: Tensor, octaves: list[Tensor]) -> Tensor:
    """Arrange low f[B, h, w, C] and the subbands f[B, n h, n w, 3 C] of each octave, finest first, as y."""
    channels, shape = low.shape[3], tf.shape(low)
    for subbands in reversed(octaves):
        joined = tf.ensure_shape(tf.concat([low, subbands], -1), [None, None, None, 4 * channels])
        low = tf.nn.depth_to_space(joined, 2)
    places = tf.reshape(low, [shape[0], shape[1], STRIDE, shape[2], STRIDE, channels])
    cells = tf.reshape(tf.transpose(places, [0, 1, 3, 5, 2, 4]), [*tf.unstack(shape[:3]), CELL * channels])
    return tf.ensure_shape(cells, [None, None, None, CELL * channels])


def unpack(y: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The inverse of pack."""
    channels, shape, octaves = y.shape[3] // CELL, tf.shape(y), []
    places = tf.transpose(tf.reshape(y, [*tf.unstack(shape[:3]), channels, STRIDE, STRIDE]), [0, 1, 4, 2, 5, 3])
    low = tf.reshape(places, [shape[0], shape[1] * STRIDE, shape[2] * STRIDE, channels])
    for _ in range(OCTAVES):
        parts = tf.nn.space_to_depth(tf.ensure_shape(low, [None, None, None, channels]), 2)
        low, subbands = tf.split(parts, [channels, SUBBANDS * channels], -1)
        octaves.append(subbands)
    return low, octaves


def to_halves(subbands: Tensor) -> tuple[Tensor, Tensor]:
    """Split the coefficients f[B, H, W, 3 C] of an octave into halves f[B, H/2, W/2, 6 C]."""
    order = np.concatenate(octave_order(subbands.shape[3] // SUBBANDS))
    first, second = tf.split(_permute(tf.nn.space_to_depth(subbands, 2), order), 2, -1)
    return first, second


def from_halves(first: Tensor, second: Tensor) -> Tensor:
    """The inverse of to_halves."""
    order = np.argsort(np.concatenate(octave_order(first.shape[3] // 6)))
    cells = _permute(tf.concat([first, second], -1), order)
    return tf.nn.depth_to_space(tf.ensure_shape(cells, [None, None, None, len(order)]), 2)


def _permute(x: Tensor, order: np.ndarray) -> Tensor:
    """Reorder channels; the gradient is the inverse permutation, so that TensorFlow does not scatter and add."""
    inverse = np.argsort(order)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def gather(x: Tensor) -> Any:
        return tf.gather(x, order, axis=-1), lambda gradient: tf.gather(gradient, inverse, axis=-1)

    return gather(x)


def details(low: Tensor) -> Tensor:
    """f[B, h, w, C] less the mean of the eight neighbours; edges are mirrored."""
    wide = tf.pad(low, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    return low - (sums - low) / 8


def with_magnitudes(*parts: Tensor, between: Sequence[Tensor] = ()) -> Tensor:
    """Concatenate channels: the parts, the tensors `between`, and the magnitudes of the parts."""
    return tf.concat([*parts, *between, *map(tf.abs, parts)], -1)


def lowest_masks(height: Tensor, width: Tensor) -> list[Tensor]:
    """The places bool[h, w, 1] of each part of the lowest coefficients: see native.prior.lowest_parts."""
    row, column = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    return [mask[..., None] for mask in lowest_parts(row, column)]


def four_neighbours(x: Tensor, distance: int, corners: bool) -> list[Tensor]:
    """The four neighbours of each place of f[B, h, w, C], as in native.prior.

    They are at the corners of a square or in a row and a column.  Values at places that a part does not code are
    arbitrary.
    """
    (up, down), (left, right) = (_either_side(tf.shape(x)[axis], distance) for axis in (1, 2))
    vertical = [tf.gather(x, at, axis=1) for at in (up, down)]
    if corners:
        return [tf.gather(row, at, axis=2) for row in vertical for at in (left, right)]
    across = [tf.gather(x, at, axis=2) for at in (left, right)]
    single_row, single_column = tf.shape(x)[1] <= distance, tf.shape(x)[2] <= distance
    return [
        *(tf.where(single_row, beside, above) for above, beside in zip(vertical, across, strict=True)),
        *(tf.where(single_column, above, beside) for above, beside in zip(vertical, across, strict=True)),
    ]


def _either_side(count: Tensor, distance: int) -> list[Tensor]:
    place = tf.range(count)
    before = tf.where(place >= distance, place - distance, place + distance)
    after = tf.where(place + distance < count, place + distance, place - distance)
    return [tf.clip_by_value(at, 0, count - 1) for at in (before, after)]
