"""Which symbols an encoder picks for wavelet coefficients: of two, the one whose error and bits together cost less.

A symbol nearer to 0 is the worse approximation, and the cheaper one: from which residual on the larger of two is
picked depends on the table row alone ("rate-distortion optimised quantisation", Sullivan and Wiegand 1998).
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np

from vaecodec import pyramid
from vaecodec.coding import DETERMINISTIC, SYMBOL_MAX
from vaecodec.config import LEVEL_STEPS, WORTH
from vaecodec.context import UNIT, Prior
from vaecodec.integer import GAIN_BITS
from vaecodec.octaves import Levels
from vaecodec.tables import PRECISION, Tables

MOST = 15  # symbols whose thresholds differ
STRAY = 2.5  # residuals from which on a coefficient that should be 0 is worth the 50 bits of a stray


def targets(prior: Prior, y: np.ndarray, step: int) -> list[np.ndarray]:
    """f32[n, count] of each part of octaves.walk: what its symbols are to stand for.

    y f32[h, w, 256 C] is that of a tile, in quantisation steps.
    """
    coded = pyramid.apart(y)
    low, bands = pyramid.fifth(coded.low)
    return _parts(low, bands / _gain(prior, step), coded)


def slopes(prior: Prior, gradient: np.ndarray, step: int) -> list[np.ndarray]:
    """Gradients with respect to each part, as of `targets`, where those with respect to y are given."""
    coded = pyramid.apart(gradient)
    low, bands = pyramid.fifth_adjoint(coded.low)
    return _parts(low, bands * _gain(prior, step), coded)


def _gain(prior: Prior, step: int) -> np.ndarray:
    """f32[3 C, 1, 1]: steps of the low-pass picture in one of octave 4."""
    assert isinstance(prior.levels, Levels)
    units = prior.levels.inverse_gain[step // LEVEL_STEPS, -pyramid.BANDS * prior.config.channels :]
    return (units * 2.0**-GAIN_BITS).astype(np.float32)[:, None, None]


def _parts(low: np.ndarray, bands: np.ndarray, coded: pyramid.Coded) -> list[np.ndarray]:
    channels = len(low)
    lowest = low.reshape(channels, -1).T
    parts = [lowest[at] for at in pyramid.lowest_places(*low.shape[1:])]
    octaves = (pyramid.to_halves(bands), pyramid.to_halves(coded.third), *reversed(coded.halves))
    for half in chain.from_iterable(octaves):
        parts.append(half.reshape(-1, half.shape[2]))
    return parts


class Rounding(NamedTuple):
    """Thresholds f32[rows, MOST + 1]: the residual from which on symbol n is picked, and not n - 1."""

    thresholds: np.ndarray

    def __call__(self, target: np.ndarray, rows: np.ndarray, loc: np.ndarray) -> np.ndarray:
        """Symbols i32 for what is to be coded, under rows u8 and means f32, unit 2**-6."""
        residual = loc * np.float32(-1 / UNIT)
        residual += target
        # Most are 0, and nothing more is to be asked of them.
        at = np.flatnonzero(np.abs(residual).ravel() > 0.5)
        some, rows = residual.ravel()[at], rows.ravel()[at]
        size = np.abs(some)
        found, idle = np.rint(size), (rows == DETERMINISTIC) & (size < STRAY)
        near = np.minimum(found, MOST)
        size -= found - near
        found -= size < self.thresholds[rows, near.astype(np.intp)]
        found *= ~idle
        np.minimum(found, SYMBOL_MAX, out=found)
        symbols = np.zeros(residual.shape, np.int32)
        symbols.ravel()[at] = np.copysign(found, some, out=found)
        return symbols


def closest(prior: Prior, target: np.ndarray, rows: np.ndarray, loc: np.ndarray) -> np.ndarray:
    """Symbols i32 that stand for what is closest to `target`, whatever they cost; arguments as of Rounding."""
    residual = target - loc * np.float32(1 / UNIT)
    near, found, least = np.rint(residual), np.zeros_like(residual), np.full_like(residual, np.inf)
    for further in (0, -1, 1):  # what a symbol stands for is up to one more, or less, than itself
        some = near + further * np.sign(residual)
        nudge = prior.centroids[rows, (np.abs(some) > 1).astype(np.intp)] * np.float32(1 / UNIT)
        error = np.abs(residual - some - np.sign(some) * nudge)
        found, least = np.where(error < least, some, found), np.minimum(error, least)
    found[(rows == DETERMINISTIC) & (np.abs(residual) < STRAY)] = 0
    return np.clip(found, -SYMBOL_MAX, SYMBOL_MAX).astype(np.int32)


def rounding(prior: Prior, worth: float = WORTH) -> Rounding:
    """That of a prior, where a bit is worth so many squared quantisation steps."""
    return _rounding(prior.models.tables, prior.centroids.tobytes(), prior.scales, worth)


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
