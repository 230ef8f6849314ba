"""Rate-distortion optimised quantisation of wavelet coefficients.

The symbols of a part are the path through a trellis with the least cost D + lambda R (Viterbi's algorithm; Schwarz et
al. 2019, Hybrid video coding with trellis-coded quantization).  The bits of a symbol depend on its table alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from vaecodec.config import SQUARED_STEPS_PER_BIT
from vaecodec.entropy import PRECISION, Tables
from vaecodec.native.prior import lowest_places
from vaecodec.native.symbols import COSTS, STRIP, quantise
from vaecodec.native.wavelet import GAIN_BITS, octave_halves
from vaecodec.prior import OCTAVES, Distributions, Prior, level_of
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms import latents, wavelet
from vaecodec.transforms.wavelet import Values

UNIT = 64  # of means: 2**-6 quantisation steps

SHARED = 1 << 15  # coefficients of a part that threads share, at least

Parts = list[np.ndarray]  # of a tile, in coding order


def targets(prior: Prior, values: Values, quality_index: int) -> Parts:
    """Split values f32, in quantisation steps, into what the symbols of each part of a tile approximate, f32[n]."""
    low, subbands = latents.tile_octave(values.low)
    return _parts(low, subbands / octave_gain(prior, quality_index), values)


def part_gradients(prior: Prior, gradient: Values, quality_index: int) -> Parts:
    """Convert gradients with respect to values into gradients with respect to the targets of each part."""
    low, subbands = latents.tile_octave_adjoint(gradient.low)
    return _parts(low, subbands * octave_gain(prior, quality_index), gradient)


def _parts(low: np.ndarray, subbands: np.ndarray, values: Values) -> Parts:
    lowest = low.reshape(len(low), -1).T
    halves = (octave_halves(np.ascontiguousarray(subbands, np.float32)), *reversed(values.halves))
    return [*(lowest[at].ravel() for at in lowest_places(*low.shape[1:])), *(half.ravel() for half in chain(*halves))]


def octave_gain(prior: Prior, quality_index: int, octave: int = OCTAVES) -> np.ndarray:
    """f32[3 C, 1, 1]: steps of the low-pass image in a step of each subband of an octave, for a normalised wavelet."""
    gain = prior.inverse_gain(octave, level_of(quality_index)) * 2.0**-GAIN_BITS
    gain[-prior.channels :] /= wavelet.NORM**2  # the integer wavelet has this factor in its gains
    return gain.astype(np.float32)[:, None, None]


class Quantizer(NamedTuple):
    """Costs f32[tables, 16] of magnitudes of symbols, in squared quantisation steps, and centroids i8[tables, 4].

    Costs count `prices` times, f32[n] for the coefficients of a part; without, once.
    """

    costs: np.ndarray
    centroids: np.ndarray
    prices: np.ndarray | None = None

    def __call__(self, target: np.ndarray, distributions: Distributions, threads: Threads = ONE_THREAD) -> np.ndarray:
        """Quantise a part f32[n], in quantisation steps, to symbols i32[n]; threads share the strips of the trellis."""
        if threads is ONE_THREAD or len(target) < SHARED:
            return quantise(target, *distributions, self.centroids, self.costs, self.prices)
        symbols = np.empty(target.shape, np.int32)
        coded = np.flatnonzero(distributions.indices)
        count = max(1, -(-len(coded) // STRIP))

        def place(strip: int) -> int:
            """Where a strip begins: after the last coded symbol of the strip before it."""
            return len(target) if strip == count else int(coded[STRIP * strip - 1]) + 1 if strip else 0

        def quantise_strips(strips: tuple[int, int]) -> None:
            here = slice(*map(place, strips))
            prices = None if self.prices is None else self.prices[here]
            of_strips = target[here], distributions.indices[here], distributions.loc[here]
            symbols[here] = quantise(*of_strips, self.centroids, self.costs, prices)

        threads.over_rows(count, quantise_strips)
        return symbols

    def of_parts(
        self, parts: Parts, prices: Sequence[np.ndarray | None] | None, threads: Threads
    ) -> Callable[[int, Distributions], np.ndarray]:
        """Make the function that quantises each part f32[n] of a tile, by its number, with prices f32[n] of each."""

        def choose(part: int, distributions: Distributions) -> np.ndarray:
            of_part = self if prices is None else self._replace(prices=prices[part])
            return of_part(parts[part], distributions, threads)

        return choose


_magnitude_bits: dict[int, tuple[Tables, np.ndarray]] = {}


def quantizer(
    prior: Prior,
    tables: Tables,
    squared_steps_per_bit: float = SQUARED_STEPS_PER_BIT,
    prices: np.ndarray | None = None,
) -> Quantizer:
    """The quantizer of a prior where a bit is worth this many squared quantisation steps, times prices f32[n]."""
    key = id(tables)
    if key not in _magnitude_bits:
        if len(_magnitude_bits) > 16:
            _magnitude_bits.clear()
        bits = np.stack([np.zeros(COSTS), *(symbol_bits(tables, table) for table in range(1, prior.scales))])
        _magnitude_bits[key] = tables, bits  # with the tables, so that no others can have their id
    return Quantizer((squared_steps_per_bit * _magnitude_bits[key][1]).astype(np.float32), prior.centroids, prices)


def symbol_bits(tables: Tables, table: int, count: int = COSTS) -> np.ndarray:
    """f64[count]: bits of symbols 0, 1, ... in a table, the mean of both signs; an escape beyond its ends."""
    freq, low = tables.row(table).astype(np.float64), int(tables.low[table])
    bits = PRECISION - np.log2(freq)
    bits[-1] += 32
    last, symbols = len(freq) - 1, np.arange(count)
    positive, negative = (np.where((p < 0) | (p > last), last, p) for p in (symbols - low, -symbols - low))
    return (bits[positive] + bits[negative]) / 2
