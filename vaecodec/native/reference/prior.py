"""The functions of native.prior in NumPy: short, and equal to the kernels."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from vaecodec.native.reference import networks as layers
from vaecodec.native.reference.networks import rounded

if TYPE_CHECKING:
    from vaecodec.native.networks import Dense
    from vaecodec.native.prior import Before, Octave

SUBBANDS = 3
LOC_SHIFT, INDEX_SHIFT = 7, 12

Strip = tuple[int, int]


def first_half(networks: Octave, vector: np.ndarray, before: Before, strip: Strip) -> list[np.ndarray]:
    """Rows `strip` of features, loc and table indices."""
    shape, local = before.low.shape[1:], Local(strip, before.low.shape)
    x = layers.dense(networks.enter, _inputs(networks, before, local.seen), vector)
    features = layers.block(networks.before, x, local.strip)
    return [features, *_distribution(networks, networks.first, 0, features, shape, strip)]


def second_half(
    networks: Octave, shape: tuple[int, int], features: np.ndarray, values: np.ndarray, strip: Strip
) -> list[np.ndarray | None]:
    """Rows `strip` of what is passed on, loc and table indices."""
    local = Local(strip, shape)
    x = _with_magnitudes(compand(networks.companding, values[local.seen]))
    x = layers.dense(networks.known, x, residual=features[local.seen])
    x = layers.block(networks.after, x, local.strip)
    passed = layers.dense(networks.passing, x) if networks.passing else None
    return [passed, *_distribution(networks, networks.second, 1, x, shape, strip)]


class Local:
    """A strip of rows of cells with a row of either side, where there is one: `seen`; and the strip within that."""

    def __init__(self, strip: Strip, shape: tuple[int, ...]) -> None:
        top, bottom = strip
        above, height = int(top > 0), -(-shape[-2] // 2)
        self.seen = slice(top - above, min(bottom + 1, height))
        self.strip = above, above + bottom - top


def compand(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """i16: the table's entry for each magnitude, with the value's sign."""
    magnitudes = np.minimum(np.abs(values.astype(np.int64)), len(table) - 1)
    return table[magnitudes] * np.sign(values).astype(np.int16)


def details(low: np.ndarray, rows: slice) -> np.ndarray:
    """i32 rows of i32[C, H, W], less the rounded mean of the eight neighbours; edges are mirrored."""
    wide = np.pad(low, [(0, 0), (1, 1), (1, 1)], "reflect")[:, rows.start : rows.stop + 2]
    column = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    here = low[:, rows]
    around = column[..., :-2] + column[..., 1:-1] + column[..., 2:] - here
    return here - rounded(around, 3).astype(np.int32)


@lru_cache(maxsize=16)
def halves(colours: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers ((2 i + j) 3 + b) C + c of a cell's coefficients that are coded first, and second."""
    row, column, subband, colour = np.indices((2, 2, SUBBANDS, colours))
    odd = (row + column + subband + colour).ravel() % 2
    return np.flatnonzero(odd == 0), np.flatnonzero(odd)


def to_cells(planes: np.ndarray) -> np.ndarray:
    """[P, H, W] -> [h, w, 4 P]: four places in order of rows, zero beyond an odd side."""
    wide = np.pad(planes, [(0, 0), (0, planes.shape[1] % 2), (0, planes.shape[2] % 2)])
    count, height, width = wide.shape
    cells = wide.reshape(count, height // 2, 2, width // 2, 2).transpose(1, 3, 2, 4, 0)
    return cells.reshape(height // 2, width // 2, 4 * count)


def _inputs(networks: Octave, before: Before, rows: slice) -> np.ndarray:
    """i16[n, w, inputs] of rows of cells."""
    places = slice(2 * rows.start, min(2 * rows.stop, before.low.shape[1]))
    hidden = to_cells(compand(networks.companding, details(before.low, places)))
    width = hidden.shape[1]
    if before.parents is None:
        parents = np.zeros((*hidden.shape[:2], SUBBANDS * networks.colours), np.int16)
    else:
        joined = np.empty((*before.parents[0].shape[:2], 12 * networks.colours), np.int32)
        for half, numbers in zip(before.parents, halves(networks.colours), strict=True):
            joined[..., numbers] = half
        parents = compand(networks.companding, _by_places(joined)[rows, :width])
    seen = np.concatenate([hidden, parents], -1)
    passed = [] if before.passed is None else [_by_places(before.passed)[rows, :width]]
    return np.concatenate([seen, *passed, np.abs(seen)], -1)


def _by_places(cells: np.ndarray) -> np.ndarray:
    """[h, w, 4 n] -> [2 h, 2 w, n]."""
    height, width, count = *cells.shape[:2], cells.shape[2] // 4
    places = cells.reshape(height, width, 2, 2, count).transpose(0, 2, 1, 3, 4)
    return places.reshape(2 * height, 2 * width, count)


def _with_magnitudes(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.abs(x)], -1)


def _distribution(
    networks: Octave, layer: Dense, half: int, x: np.ndarray, shape: tuple[int, ...], strip: Strip
) -> tuple[np.ndarray, np.ndarray]:
    """loc i32 and table indices u8 of a strip of rows of cells; 0 beyond an odd side of the octave."""
    sums = layers.dense(layer, x)
    count = sums.shape[-1] // 2
    loc = rounded(sums[..., :count], LOC_SHIFT).astype(np.int32)
    rows = np.clip(rounded(sums[..., count:], INDEX_SHIFT), 0, networks.scales - 1).astype(np.uint8)
    place = halves(networks.colours)[half] // (SUBBANDS * networks.colours)
    for axis, odd in ((0, place // 2), (1, place % 2)):
        if shape[axis] % 2 and (axis == 1 or strip[1] == -(-shape[0] // 2)):
            for array in (loc, rows):
                last = array[-1:] if axis == 0 else array[:, -1:]
                last[..., odd == 1] = 0
    return loc, rows
