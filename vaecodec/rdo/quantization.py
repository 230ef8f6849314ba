"""Rate-distortion optimised quantisation of wavelet coefficients.

Of two candidate symbols the one with the lower cost D + lambda R is chosen.  The symbol nearer to 0 has the larger
error and fewer bits, so the choice is a threshold on the residual, which depends on the table index alone (Sullivan and
Wiegand 1998, Rate-distortion optimization for video compression).
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np

from vaecodec.config import INDICES_PER_LEVEL, SQUARED_STEPS_PER_BIT
from vaecodec.entropy.coding import SYMBOL_MAX, ZERO_TABLE
from vaecodec.entropy.tables import PRECISION, Tables
from vaecodec.native.prior import lowest_places
from vaecodec.native.symbols import quantise
from vaecodec.native.wavelet import GAIN_BITS, octave_halves
from vaecodec.prior.context_model import OCTAVES, Distributions, Prior
from vaecodec.transforms import float_wavelet, latents
from vaecodec.transforms.wavelet import Values

UNIT = 64  # of means: 2**-6 quantisation steps
THRESHOLDS = 15  # symbols above this have the same threshold
OUTLIER = 2.5  # residual from which a coefficient with the zero table is worth the 50 bits of an outlier

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
    gain = prior.inverse_gain(octave, quality_index // INDICES_PER_LEVEL) * 2.0**-GAIN_BITS
    gain[-prior.channels :] /= float_wavelet.NORM**2  # the integer wavelet has this factor in its gains
    return gain.astype(np.float32)[:, None, None]


class Quantizer(NamedTuple):
    """Thresholds f32[tables, THRESHOLDS + 1]: the residual from which symbol n is chosen rather than n - 1."""

    thresholds: np.ndarray

    def __call__(self, target: np.ndarray, distributions: Distributions) -> np.ndarray:
        """Quantise f32[n], in quantisation steps, to symbols i32[n]."""
        return quantise(target, *distributions, self.thresholds)


class ThresholdTerms(NamedTuple):
    """What thresholds follow from, f64[tables - 1, THRESHOLDS] each, of symbols n and n - 1."""

    middles: np.ndarray  # between their values
    bits: np.ndarray  # by which they differ
    distances: np.ndarray  # of their values


_terms: dict[tuple[int, bytes], tuple[Tables, ThresholdTerms]] = {}


def quantizer(prior: Prior, tables: Tables, squared_steps_per_bit: float = SQUARED_STEPS_PER_BIT) -> Quantizer:
    """The quantizer of a prior where a bit is worth this many squared quantisation steps."""
    key = (id(tables), prior.centroids.tobytes())
    if key not in _terms:
        if len(_terms) > 16:
            _terms.clear()
        # The entry keeps the tables, so that no others can have their id.
        _terms[key] = tables, _threshold_terms(tables, prior.centroids)
    middles, bits, distances = _terms[key][1]
    thresholds = np.zeros((len(middles) + 1, THRESHOLDS + 1), np.float32)
    thresholds[1:, 0] = -1
    thresholds[1:, 1:] = middles + squared_steps_per_bit / 2 * bits / distances
    return Quantizer(thresholds)


def _threshold_terms(tables: Tables, centroids: np.ndarray) -> ThresholdTerms:
    symbols = np.arange(THRESHOLDS + 1)
    values = symbols + np.where(symbols > 1, centroids[1:, 1:], centroids[1:, :1]) / UNIT
    values[:, 0] = 0
    bits = np.diff([symbol_bits(tables, table) for table in range(1, len(centroids))])
    return ThresholdTerms((values[:, 1:] + values[:, :-1]) / 2, bits, np.maximum(np.diff(values), 0.1))


def symbol_bits(tables: Tables, table: int) -> np.ndarray:
    """f64[THRESHOLDS + 1]: bits of symbols 0, 1, ... in a table, the mean of both signs; an escape beyond its ends."""
    freq, low = tables.row(table).astype(np.float64), int(tables.low[table])
    bits = PRECISION - np.log2(freq)
    bits[-1] += 32
    last, symbols = len(freq) - 1, np.arange(THRESHOLDS + 1)
    positive, negative = (np.where((p < 0) | (p > last), last, p) for p in (symbols - low, -symbols - low))
    return (bits[positive] + bits[negative]) / 2


def nearest_symbols(prior: Prior, target: np.ndarray, distributions: Distributions) -> np.ndarray:
    """Quantise f32[n], in quantisation steps, to the symbols i32[n] with the least error, whatever their bits."""
    tables, residual = distributions.indices, target - distributions.loc * np.float32(1 / UNIT)
    nearest, best, least = np.rint(residual), np.zeros_like(residual), np.full_like(residual, np.inf)
    for offset in (0, -1, 1):  # centroids move values by up to a symbol
        symbols = nearest + offset * np.sign(residual)
        centroid = prior.centroids[tables, (np.abs(symbols) > 1).astype(np.intp)] * np.float32(1 / UNIT)
        error = np.abs(residual - symbols - np.sign(symbols) * centroid)
        best, least = np.where(error < least, symbols, best), np.minimum(error, least)
    best[(tables == ZERO_TABLE) & (np.abs(residual) < OUTLIER)] = 0
    return np.clip(best, -SYMBOL_MAX, SYMBOL_MAX).astype(np.int32)
