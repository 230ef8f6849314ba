"""Fit frequency tables and centroids of a model to the symbols that its encoder chooses.

What an encoder chooses with a trellis depends on the tables, so they are fitted in a few rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaecodec import entropy
from vaecodec.container.image_file import quality_index_of
from vaecodec.entropy import TOTAL, Tables, integer_frequencies
from vaecodec.model.file import Model, pack_model, parse_model
from vaecodec.native.reference.trellis import HALF_LEVEL, UNIT, states
from vaecodec.native.symbols import CENTROIDS
from vaecodec.prior import Distributions, choose_symbols
from vaecodec.rdo.quantization import quantizer, targets
from vaecodec.transforms.wavelet import quantisation_targets

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
