"""Compute densities as integer frequencies that sum to 2**24, exactly: the models of `generative.bitsback`.

    posterior(means, scales)   Normal over bins of equal mass under N(0, 1)   (Townsend et al. 2019, section 2.5.1)
    ink(odds)                  whether a pixel is not 0
    values(natural)            the value of a pixel that is not 0

All factors but powers of two come from tables in the model file (`training.generative_freezing`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.entropy.tables import PRECISION, TOTAL
from vaecodec.model.exact import ACTIVATION_MAX, Layer

VALUES = 255  # of a pixel that is not 0
BINS = 10
COUNT = 1 << BINS
EDGE_BITS = 16  # edges of bins are in units of 2**-16
REACH, KNOT_BITS = 6, 6  # the cumulative Normal is tabulated within +-6, at steps of 2**-6
INVERSE_BITS = 10
SCALE_COUNT = 449  # scales 2**-6 .. 2**1, at steps of 2**(1/64)
SCALE_OFFSET = 384 - 64  # index of a scale, less the activation for its logarithm: 64 stands for 2**0
ODDS_MAX = 1023
EXP_BITS, EXP_ENTRIES = 7, 24 * 128 + 1  # powers of two at steps of 2**-7, down to 2**-24
LOGIT_BITS = 15


class Tables(NamedTuple):
    """Tables of a model; fields are the names of arrays in its file, after discrete/."""

    edges: np.ndarray  # between bins, unit 2**-16
    centres: np.ndarray  # the latent that a bin stands for, unit 2**-8
    cumulative: np.ndarray  # 2**24 times the Normal's cdf at the knots
    inverse: np.ndarray  # 1 / scale, unit 2**-10
    ink: np.ndarray  # frequency of not 0
    exp: np.ndarray  # 2**(24 - n / 128)


class TableFormat(NamedTuple):
    """Length, type and range of a table: within it all results stay below 2**53, and no sum of weights is 0."""

    length: int
    dtype: str
    low: int
    high: int


FORMATS = {
    "edges": TableFormat(COUNT - 1, "<i4", -(8 << EDGE_BITS), 8 << EDGE_BITS),
    "centres": TableFormat(COUNT, "<i2", -ACTIVATION_MAX, ACTIVATION_MAX),
    "cumulative": TableFormat(2 * REACH * 2**KNOT_BITS + 1, "<i4", 0, TOTAL),
    "inverse": TableFormat(SCALE_COUNT, "<i4", 1, 1 << 20),
    "ink": TableFormat(2 * ODDS_MAX + 1, "<i4", 1, TOTAL - 1),
    "exp": TableFormat(EXP_ENTRIES, "<i4", 1, TOTAL),
}


def posterior(tables: Tables, means: np.ndarray, log_scales: np.ndarray) -> np.ndarray:
    """Frequencies i64[n, COUNT] of the bins of Normals; means, unit 2**-8, and log-scales are activations [n].

    The cdf is linear between knots, and every bin keeps at least 1.
    """
    place = tables.edges.astype(np.int64) - (means.astype(np.int64)[:, None] << (EDGE_BITS - 8))
    scale_indices = np.clip(log_scales.astype(np.int64) + SCALE_OFFSET, 0, SCALE_COUNT - 1)
    place *= tables.inverse[scale_indices].astype(np.int64)[:, None]
    place >>= INVERSE_BITS
    np.clip(place, -REACH << EDGE_BITS, (REACH << EDGE_BITS) - 1, out=place)
    place += REACH << EDGE_BITS
    shift = EDGE_BITS - KNOT_BITS
    knot = place >> shift
    place &= (1 << shift) - 1
    steps = np.diff(tables.cumulative.astype(np.int64))
    place *= steps[knot]
    place >>= shift
    place += tables.cumulative[knot]
    place *= TOTAL - COUNT
    place >>= PRECISION
    place += np.arange(1, COUNT)
    return np.diff(place, axis=1, prepend=0, append=TOTAL)


def ink(tables: Tables, odds: np.ndarray) -> np.ndarray:
    """Frequencies i64[n, 2] of 0 and of not 0; odds are activations [n], base-2 logarithms."""
    inked = tables.ink[odds.astype(np.int64) + ODDS_MAX].astype(np.int64)
    return np.stack([TOTAL - inked, inked], -1)


def values(tables: Tables, layer: Layer, natural: np.ndarray) -> np.ndarray:
    """Frequencies i64[n, VALUES] of 1, 2, ...; natural parameters are activations [n, K].

    All IEEE 754 machines round a product and a quotient of doubles alike; floors keep the sum within 2**24.
    """
    logits = layer.product(natural).astype(np.float64, copy=False)
    np.subtract(logits.max(1, keepdims=True), logits, out=logits)
    np.minimum(logits, (EXP_ENTRIES - 1) << (LOGIT_BITS - EXP_BITS), out=logits)
    logits *= 2.0 ** (EXP_BITS - LOGIT_BITS)
    logits += 0.5
    weights = tables.exp[logits.astype(np.int64)].astype(np.float64)
    weights *= (TOTAL - VALUES) / weights.sum(1, keepdims=True)
    freq = weights.astype(np.int64)
    freq += 1
    freq[np.arange(len(freq)), freq.argmax(1)] += TOTAL - freq.sum(1)
    return freq
