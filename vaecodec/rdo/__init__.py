"""Rate-distortion optimised quantisation of wavelet coefficients, and tables fitted to what it chooses.

The symbols of a part are the path through a trellis with the least cost D + lambda R (Viterbi's algorithm; Schwarz et
al. 2019, Hybrid video coding with trellis-coded quantization).  The bits of a symbol depend on its table alone.

What the trellis chooses depends on the tables, so tables and centroids of a model are fitted in a few rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from vaecodec import entropy
from vaecodec.config import SQUARED_STEPS_PER_BIT
from vaecodec.container.image_file import quality_index_of
from vaecodec.entropy import PRECISION, TOTAL, Tables, integer_frequencies
from vaecodec.model.file import Model, pack_model, parse_model
from vaecodec.native.prior import lowest_places
from vaecodec.native.reference import HALF_LEVEL, states
from vaecodec.native.symbols import CENTROIDS, COSTS, STRIP, quantise
from vaecodec.native.wavelet import GAIN_BITS, octave_halves
from vaecodec.prior import OCTAVES, Distributions, Prior, choose_symbols, level_of
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms import latents, wavelet
from vaecodec.transforms.wavelet import Values, quantisation_targets

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


QUALITIES = (5, 15, 25, 35, 45, 55, 65, 75, 85, 95)  # of the images, in turn
ROUNDS = 4
STRENGTH = 40  # symbols that the tables of the first round count as
CENTROID_STRENGTH = 20  # residuals of 0 in each mean
CENTROID_MAX = 63


class Statistics:
    """Counts of symbols by table, and sums of what lies beyond their levels."""

    def __init__(self, start: Tables, scales: int) -> None:
        self._start, self._scales = start, scales
        self._counts = [np.zeros(len(start.row(table)) - 1) for table in range(scales)]
        self._sums, self._numbers = (np.zeros(CENTROIDS * scales) for _ in range(2))

    def add(self, residuals: np.ndarray, symbols: np.ndarray, indices: np.ndarray) -> None:
        """Count the symbols i32[n] of residuals f32[n], in steps, with table indices u8[n]: those of a whole part."""
        coded = np.flatnonzero(indices)
        symbols, indices, residuals = symbols[coded], indices[coded], residuals[coded]
        sizes = np.abs(symbols)
        for table in np.unique(indices):
            places = symbols[indices == table] - self._start.low[table]
            counts = self._counts[table]
            counts += np.bincount(places[(places >= 0) & (places < len(counts))], minlength=len(counts))
        quantisers = states(sizes.astype(np.int64) % 2) % 2
        entries = CENTROIDS * indices.astype(np.int64) + 2 * quantisers + (sizes > 1)
        beyond = UNIT * residuals * np.sign(symbols) - HALF_LEVEL * (2 * sizes - quantisers)
        nonzero = sizes > 0
        self._sums += np.bincount(entries[nonzero], beyond[nonzero], minlength=len(self._sums))
        self._numbers += np.bincount(entries[nonzero], minlength=len(self._sums))

    def tables(self) -> Tables:
        """The tables with the fewest bits for what was counted, for both signs alike; the escapes as before."""
        rows = []
        for table in range(len(self._start.low)):
            low, freq = int(self._start.low[table]), self._start.row(table)
            if table < self._scales:
                before, counts = freq[:-1] / TOTAL, self._counts[table]
                if low == -((len(freq) - 2) // 2):
                    counts = (counts + counts[::-1]) / 2
                mass = (counts + STRENGTH * before) / (counts.sum() + STRENGTH * before.sum()) * before.sum()
                freq = integer_frequencies(mass)
            rows.append((low, freq))
        return entropy.build(rows)

    def centroids(self) -> np.ndarray:
        """i8[scales, 4] in units of 2**-6 steps."""
        means = self._sums / (self._numbers + CENTROID_STRENGTH)
        return np.clip(np.rint(means), -CENTROID_MAX, CENTROID_MAX).astype(np.int8).reshape(-1, CENTROIDS)


def fit_tables(model: Model, images: Sequence[np.ndarray]) -> Model:
    """The model with tables and centroids fitted to images u8[H, W, C]; its id changes."""
    start = model.models.tables
    for _ in range(ROUNDS):
        statistics = Statistics(start, model.prior.scales)
        for n, pixels in enumerate(images):
            _count(model, pixels, quality_index_of(QUALITIES[n % len(QUALITIES)]), statistics)
        arrays = dict(model.arrays)
        arrays |= {f"tables/{name}": array for name, array in statistics.tables()._asdict().items()}
        arrays["centroids"] = statistics.centroids()
        data = pack_model(model.name, model.config, arrays, model.notes)
        fitted = parse_model(data, model.name)
        assert isinstance(fitted, Model)
        model = fitted
    return model


def _count(model: Model, pixels: np.ndarray, quality_index: int, statistics: Statistics) -> None:
    """Add the symbols of an image, of which whole cells are taken."""
    height, width = (16 * (extent // 16) for extent in pixels.shape[:2])
    [coefficients] = model.transforms.analysis([np.ascontiguousarray(pixels[:height, :width])], quality_index)
    parts = targets(model.prior, quantisation_targets(coefficients, model.gains.scaled(quality_index)), quality_index)
    choose = quantizer(model.prior, model.models.tables)

    def chosen(part: int, distributions: Distributions) -> np.ndarray:
        symbols = choose(parts[part], distributions)
        residuals = parts[part] - distributions.loc * np.float32(1 / UNIT)
        statistics.add(residuals, symbols, distributions.indices)
        return symbols

    choose_symbols(model.prior, coefficients.cells, quality_index, chosen)
