"""Colours, coefficients and the networks of both transforms in NumPy, for a whole image at once.

Samples are i16[16h, 16w, C] in units of 2**-14, on a scale of 1 for 255 levels; coefficients are planes of i32 in that
unit; activations i16 in units of 2**-11.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vaecodec.native.reference.networks import dense, rounded

if TYPE_CHECKING:
    from vaecodec.native.networks import Dense

LIMIT = 32767
CELL, FINE_CELL = 16, 8


def narrow(x: np.ndarray) -> np.ndarray:
    """i16 within +-32767."""
    return np.clip(x, -LIMIT, LIMIT).astype(np.int16)


def inverse_colors(planes: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """i32[C, H, W] of rotated colours -> samples i16[H, W, C]; rotation i32[C, C], unit 2**-14."""
    return narrow((np.einsum("khw,kc->hwc", planes, rotation).astype(np.int32) + np.int32(1 << 13)) >> 14)


def forward_colors(pixels: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """u8[H, W, C] -> i32[C, H, W] of rotated colours; 257 / 8 is 2**14 / 510, all but."""
    sums = np.einsum("hwc,kc->khw", 2 * pixels.astype(np.int64) - 255, rotation)
    return ((257 * sums + (1 << 16)) >> 17).astype(np.int32)


def unshuffle(x: np.ndarray, side: int) -> np.ndarray:
    """[h * side, w * side, C] -> [h, w, side * side * C]: each cell's positions in rows, channels innermost."""
    h, w, channels = x.shape[0] // side, x.shape[1] // side, x.shape[2]
    return x.reshape(h, side, w, side, channels).transpose(0, 2, 1, 3, 4).reshape(h, w, -1)


def shuffle(x: np.ndarray, side: int) -> np.ndarray:
    """The inverse of unshuffle."""
    h, w, channels = x.shape[0], x.shape[1], x.shape[2] // (side * side)
    return x.reshape(h, w, side, side, channels).transpose(0, 2, 1, 3, 4).reshape(h * side, w * side, channels)


def cells_of(planes: np.ndarray, side: int) -> np.ndarray:
    """[P, h * side, w * side] -> [h, w, P * side * side], plane by plane, each in rows."""
    count, h, w = planes.shape[0], planes.shape[1] // side, planes.shape[2] // side
    return planes.reshape(count, h, side, w, side).transpose(1, 3, 0, 2, 4).reshape(h, w, -1)


def planes_of(cells: np.ndarray, side: int) -> np.ndarray:
    """The inverse of cells_of."""
    h, w, count = cells.shape[0], cells.shape[1], cells.shape[2] // (side * side)
    return cells.reshape(h, w, count, side, side).transpose(2, 0, 3, 1, 4).reshape(count, h * side, w * side)


def synthesis_coarse(layer: Dense, bands: Sequence[np.ndarray], low: np.ndarray) -> np.ndarray:
    """Coefficients -> i16[h, w, coarse]."""
    cells = [cells_of(plane, FINE_CELL >> octave) for octave, plane in enumerate(bands)]
    x = np.concatenate([*cells, cells_of(low, 1)], -1)
    return dense(layer, narrow((x + np.int32(4)) >> 3))


def synthesis_fine(
    coarse: Dense, skip: Dense, x: np.ndarray, samples: np.ndarray, multiplier: np.ndarray
) -> np.ndarray:
    """i16[h, w, coarse] and samples -> i16[2h, 2w, fine]."""
    residual = shuffle(dense(coarse, x), 2)
    return dense(skip, unshuffle(samples, FINE_CELL), residual=residual, multiplier=multiplier)


def synthesis_levels(layer: Dense, x: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """i16[2h, 2w, fine] and samples -> levels i16[16h, 16w, C], unit 2**-6, 0 in the middle of the range."""
    added = shuffle(dense(layer, x), FINE_CELL).astype(np.int32)
    return narrow(rounded(255 * (samples + added), 8))


def pixels_of(levels: np.ndarray) -> np.ndarray:
    """u8: levels, rounded and clipped."""
    return np.clip((levels.astype(np.int32) + 8192) >> 6, 0, 255).astype(np.uint8)


def analysis_fine(layer: Dense, pixels: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """u8[16h, 16w, C] -> i16[2h, 2w, fine]."""
    x = unshuffle((64 * (2 * pixels.astype(np.int32) - 255)).astype(np.int16), FINE_CELL)
    zero = np.zeros((*x.shape[:2], layer.channels), np.int16)
    return dense(layer, x, residual=zero, multiplier=multiplier)


def analysis_coarse(layer: Dense, x: np.ndarray) -> np.ndarray:
    """i16[2h, 2w, fine] -> i16[h, w, coarse]."""
    return dense(layer, unshuffle(x, 2))


def analysis_latents(layer: Dense, x: np.ndarray, bands: Sequence[np.ndarray], low: np.ndarray) -> None:
    """i16[h, w, coarse] through the last layer, added to the coefficients in place."""
    made, first = dense(layer, x), 0
    for octave, plane in enumerate((*bands, low)):
        side = FINE_CELL >> octave if octave < len(bands) else 1
        count = len(plane) * side * side
        plane += planes_of(made[..., first : first + count], side)
        first += count
