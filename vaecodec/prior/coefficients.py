"""Go through the coefficients of a tile from coarse to fine, and say how each is distributed: for both directions.

    lowest coefficients, five parts --> octave 4 --> low-pass image, twice as large --> octave 3 --> ... --> octave 0

A generator yields the distributions of a part and is sent its symbols.  An encoder sends the symbols it chose, a
decoder those it decodes, and both compute the same integers in between.  A tile is coded by itself: edges are mirrored.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from vaecodec.config import INDICES_PER_LEVEL
from vaecodec.native import prior as networks
from vaecodec.native.symbols import symbol_values
from vaecodec.native.wavelet import context_low
from vaecodec.prior.model import OCTAVES, Distributions, Prior
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.wavelet import Half, Values

LOWEST_PARTS = networks.LOWEST_PARTS
PARTS = LOWEST_PARTS + 2 * (OCTAVES + 1)
# Parts of each octave, coarse to fine, the lowest coefficients first.
PARTS_BY_OCTAVE = [slice(0, LOWEST_PARTS), *(slice(part, part + 2) for part in range(LOWEST_PARTS, PARTS, 2))]

Walk = Generator[Distributions, np.ndarray, Values]


def code_coefficients(prior: Prior, cells: tuple[int, int], quality_index: int, threads: Threads = ONE_THREAD) -> Walk:
    """Yield the distributions of each of the PARTS of a tile of (h, w) cells, and be sent its symbols i32[n].

    In order: five parts of the lowest coefficients, then both halves of octaves 4, 3, 2, 1 and 0.
    """
    level = quality_index // INDICES_PER_LEVEL
    low = yield from _code_lowest(prior, (-(-cells[0] // 2), -(-cells[1] // 2)), level)
    parents: tuple[Half, Half] | None = None
    passed: np.ndarray | None = None
    halves: list[tuple[Half, Half]] = []
    for octave in range(OCTAVES, -1, -1):
        before = networks.Before(low, parents, passed)
        parents, passed = yield from _code_octave(prior, octave, level, before, threads)
        if octave < OCTAVES:
            halves.insert(0, parents)
        if octave:
            shape = cells if octave == OCTAVES else None  # an odd side of the tile has one row less than two squares
            low = context_low(low, *parents, prior.inverse_gain(octave, level), shape)
        if octave == OCTAVES:
            tile_low = low
    return Values(halves, tile_low)


def _code_lowest(prior: Prior, size: tuple[int, int], level: int) -> Generator[Distributions, np.ndarray, np.ndarray]:
    """The values i32[C, h, w] of the lowest coefficients."""
    known = networks.Lowest(prior.lowest, size, prior.lowest_bias(level), prior.start(level))
    for part in range(LOWEST_PARTS):
        known.put(part, (yield from _code_half(prior, *known.distribution(part))))
    return known.planes()


def _code_octave(
    prior: Prior, octave: int, level: int, before: networks.Before, threads: Threads
) -> Generator[Distributions, np.ndarray, tuple[tuple[Half, Half], np.ndarray | None]]:
    """Both halves of an octave, and what its networks pass on to the next."""
    layers, vector = prior.octaves[octave], prior.bias(octave, level)
    shape = before.low.shape[1:]
    cells = networks.cells_of(shape)
    first = networks.empty_first(layers, cells)
    threads.over_rows(cells[0], lambda rows: networks.first_half(layers, vector, before, first, rows))
    values = yield from _code_half(prior, first.indices, first.loc)
    second = networks.empty_second(layers, cells)
    threads.over_rows(cells[0], lambda rows: networks.second_half(layers, shape, first.features, values, second, rows))
    others = yield from _code_half(prior, second.indices, second.loc)
    return (values, others), second.passed


def _code_half(prior: Prior, indices: np.ndarray, loc: np.ndarray) -> Generator[Distributions, np.ndarray, Half]:
    """The values of half an octave, or of a part of the lowest coefficients."""
    flat = Distributions(indices.ravel(), loc.ravel())
    symbols = yield flat
    return symbol_values(symbols, *flat, prior.centroids).reshape(indices.shape)
