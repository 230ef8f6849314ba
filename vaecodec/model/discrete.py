"""Densities as integer frequencies that sum to 2**24, computed exactly: what `bitsback` codes with.

    posterior(means, scales)   Normal over bins of equal mass under N(0, 1)   (Townsend et al. 2019, section 2.5.1)
    ink(odds)                  whether a pixel is not 0
    values(natural)            which value, if it is not

All that is not a power of two comes from tables in the model file, made once in `generative_freezing`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.entropy.tables import PRECISION, TOTAL
from vaecodec.model.generative import VALUES
from vaecodec.transforms.integer import Layer

BINS = 10
COUNT = 1 << BINS
EDGE_BITS = 16  # edges of bins are in units of 2**-16
REACH, KNOT_BITS = 6, 6  # the cumulative Normal is tabulated within +-6, at steps of 2**-6
INVERSE_BITS = 10
RUNGS = 449  # scales 2**-6 .. 2**1, at steps of 2**(1/64)
RUNG_OFFSET = 384 - 64  # from an activation, whose 64 stands for 2**0
ODDS_MAX = 1023
EXP_BITS, EXP_ENTRIES = 7, 24 * 128 + 1  # powers of two at steps of 2**-7, down to 2**-24
LOGIT_BITS = 15


class Tables(NamedTuple):
    """Of one model; also the names and types of arrays in its file, after discrete/."""

    edges: np.ndarray  # i32[COUNT - 1], unit 2**-16: between bins
    centres: np.ndarray  # i16[COUNT], unit 2**-8: the latent that a bin stands for
    cumulative: np.ndarray  # i32[769]: 2**24 times the Normal's cdf at the knots
    inverse: np.ndarray  # i32[RUNGS], unit 2**-10: 1 / scale
    ink: np.ndarray  # i32[2 * ODDS_MAX + 1]: frequency of not 0
    exp: np.ndarray  # i32[EXP_ENTRIES]: 2**(24 - n / 128)


SHAPES = Tables(
    *[(COUNT - 1,), (COUNT,), (2 * REACH * 2**KNOT_BITS + 1,), (RUNGS,), (2 * ODDS_MAX + 1,), (EXP_ENTRIES,)]  # type: ignore[arg-type]
)


def rungs(log_scales: np.ndarray) -> np.ndarray:
    """Activations that stand for logarithms of scales -> i64 indices into `inverse`."""
    return np.clip(log_scales.astype(np.int64) + RUNG_OFFSET, 0, RUNGS - 1)


def posterior(tables: Tables, means: np.ndarray, log_scales: np.ndarray) -> np.ndarray:
    """Frequencies i64[n, COUNT] of a Normal's bins; means, unit 2**-8, and log-scales are activations [n].

    Between knots the cdf is a straight line; every bin keeps at least 1.
    """
    place = tables.edges.astype(np.int64) - (means.astype(np.int64)[:, None] << (EDGE_BITS - 8))
    place *= tables.inverse[rungs(log_scales)].astype(np.int64)[:, None]
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

    A product and a quotient of doubles are rounded alike by all machines of IEEE 754; floors keep the sum in bounds.
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
