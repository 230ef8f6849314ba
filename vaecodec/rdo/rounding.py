"""Which symbols an encoder picks for wavelet coefficients: of two, the one whose error and bits together cost less.

A symbol nearer to 0 is the worse approximation, and the cheaper one: from which residual on the larger of two is
picked depends on the table row alone ("rate-distortion optimised quantisation", Sullivan and Wiegand 1998).
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np

from vaecodec.config import LEVEL_STEPS, WORTH
from vaecodec.entropy.coding import DETERMINISTIC, SYMBOL_MAX
from vaecodec.entropy.tables import PRECISION, Tables
from vaecodec.native.lowest import places
from vaecodec.native.symbols import quantise
from vaecodec.native.wavelet import GAIN_BITS, octave_halves
from vaecodec.prior.model import OCTAVES, Distributions, Prior
from vaecodec.transforms import lifting, pyramid
from vaecodec.transforms.coefficients import Values

UNIT = 64  # of means: 2**-6 quantisation steps
MOST = 15  # symbols whose thresholds differ
STRAY = 2.5  # residuals from which on a coefficient that should be 0 is worth the 50 bits of a stray

Parts = list[np.ndarray]


def targets(prior: Prior, wanted: Values, quality_index: int) -> Parts:
    """What the symbols of each part of a tile are to stand for, f32[n], from values f32 in quantisation steps."""
    low, bands = pyramid.fifth(wanted.low)
    return _parts(low, bands / octave_gain(prior, quality_index), wanted)


def slopes(prior: Prior, gradient: Values, quality_index: int) -> Parts:
    """Gradients with respect to each part, where those with respect to values are given."""
    low, bands = pyramid.fifth_adjoint(gradient.low)
    return _parts(low, bands * octave_gain(prior, quality_index), gradient)


def octave_gain(prior: Prior, quality_index: int, octave: int = OCTAVES) -> np.ndarray:
    """f32[3 C, 1, 1]: steps of the low-pass image in one of each subband of an octave, for a normalised wavelet."""
    gain = prior.inverse_gain(octave, quality_index // LEVEL_STEPS) * 2.0**-GAIN_BITS
    gain[-prior.channels :] /= lifting.NORM**2  # the core's wavelet has that in its gains
    return gain.astype(np.float32)[:, None, None]


def _parts(low: np.ndarray, bands: np.ndarray, wanted: Values) -> Parts:
    lowest = low.reshape(len(low), -1).T
    halves = (octave_halves(np.ascontiguousarray(bands, np.float32)), *reversed(wanted.halves))
    return [*(lowest[at].ravel() for at in places(*low.shape[1:])), *(half.ravel() for half in chain(*halves))]


class Rounding(NamedTuple):
    """Thresholds f32[rows, MOST + 1]: the residual from which on symbol n is picked, and not n - 1."""

    thresholds: np.ndarray

    def __call__(self, target: np.ndarray, question: Distributions) -> np.ndarray:
        """Symbols i32[n] for what is to be coded, f32[n] in quantisation steps."""
        return quantise(target, *question, self.thresholds)


def closest(prior: Prior, target: np.ndarray, question: Distributions) -> np.ndarray:
    """Symbols i32[n] that stand for what is closest to `target`, whatever they cost; arguments as of Rounding."""
    rows, residual = question.indices, target - question.loc * np.float32(1 / UNIT)
    near, found, least = np.rint(residual), np.zeros_like(residual), np.full_like(residual, np.inf)
    for further in (0, -1, 1):  # what a symbol stands for is up to one more, or less, than itself
        some = near + further * np.sign(residual)
        nudge = prior.centroids[rows, (np.abs(some) > 1).astype(np.intp)] * np.float32(1 / UNIT)
        error = np.abs(residual - some - np.sign(some) * nudge)
        found, least = np.where(error < least, some, found), np.minimum(error, least)
    found[(rows == DETERMINISTIC) & (np.abs(residual) < STRAY)] = 0
    return np.clip(found, -SYMBOL_MAX, SYMBOL_MAX).astype(np.int32)


def rounding(prior: Prior, tables: Tables, worth: float = WORTH) -> Rounding:
    """That of a prior, where a bit is worth so many squared quantisation steps."""
    return _rounding(tables, prior.centroids.tobytes(), prior.scales, worth)


def _rounding(tables: Tables, centroids: bytes, scales: int, worth: float) -> Rounding:
    key = (id(tables), centroids, worth)
    found = _cache.get(key)
    if found is None:
        if len(_cache) > 16:
            _cache.clear()
        found = tables, _thresholds(tables, np.frombuffer(centroids, np.int8).reshape(scales, 2), worth)
        _cache[key] = found
    return Rounding(found[1])


_cache: dict[tuple[int, bytes, float], tuple[Tables, np.ndarray]] = {}


def _thresholds(tables: Tables, centroids: np.ndarray, worth: float) -> np.ndarray:
    out = np.zeros((len(centroids), MOST + 1), np.float32)
    for row, (one, more) in enumerate(centroids[1:] / UNIT, 1):
        bits = bits_of(tables, row)
        values = np.arange(MOST + 1) + np.where(np.arange(MOST + 1) > 1, more, one)
        values[0] = 0
        steps = np.maximum(np.diff(values), 0.1)
        out[row, 1:] = (values[1:] + values[:-1]) / 2 + worth / 2 * np.diff(bits) / steps
        out[row, 0] = -1
    return out


def bits_of(tables: Tables, row: int) -> np.ndarray:
    """f64[MOST + 1]: bits of symbols 0, 1, ... in a row, the mean of either sign; of those beyond it, an escape's."""
    freq, low = tables.row(row).astype(np.float64), int(tables.low[row])
    cost = PRECISION - np.log2(freq)
    cost[-1] += 32
    place = np.arange(MOST + 1) - low
    mirrored = -np.arange(MOST + 1) - low
    last = len(freq) - 1
    at = [np.where((p < 0) | (p > last), last, p) for p in (place, mirrored)]
    return (cost[at[0]] + cost[at[1]]) / 2
