"""Hold integer frequency tables, one a distribution, as training.freezing computes them and model files store them.

    table t:   symbol   low[t]  low[t]+1  ...  low[t]+n-2   escape
               freq        >= 1 each, and each table sums to 2**24

The last entry of a table, the escape, stands for every symbol outside it; the symbol then follows as four bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.errors import ModelError

PRECISION = 24
TOTAL = 1 << PRECISION
MAX_ENTRIES = 1 << 16


class Tables(NamedTuple):
    """Frequencies u32[K] of R tables, end to end; start i64[R + 1] of each; low i32[R], the first symbol of each."""

    freq: np.ndarray
    start: np.ndarray
    low: np.ndarray

    @property
    def last(self) -> np.ndarray:
        """i32[R]: the position of the escape in each table."""
        return (np.diff(self.start) - 1).astype(np.int32)

    def row(self, index: int) -> np.ndarray:
        """u32[n]: the frequencies of one table, escape last."""
        return self.freq[self.start[index] : self.start[index + 1]]

    def bits(self, symbols: np.ndarray, indices: np.ndarray) -> float:
        """Information content in bits of symbols i32[n] under tables u[n], escapes included; table 0 is not coded."""
        coded = indices != 0
        return float(self.bits_of_each(symbols[coded], indices[coded]).sum())

    def bits_of_each(self, symbols: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """f64[...]: information content of each symbol i[...] under its table u[...], which may be 0."""
        position, last = symbols.astype(np.int64) - self.low[indices], self.last[indices]
        escaped = (position < 0) | (position >= last)
        freq = self.freq[self.start[indices] + np.where(escaped, last, position)]
        bits: np.ndarray = PRECISION - np.log2(freq) + 32 * escaped
        return bits


def integer_frequencies(masses: np.ndarray) -> np.ndarray:
    """Frequencies u32[n + 1] of sum 2**24 from probabilities f64[n]: at least 1 each, the escape last.

    The escape gets the mass that is left.  Raises ModelError on masses that are negative, not finite, or sum above 1.
    """
    if not np.isfinite(masses).all() or (masses < 0).any() or masses.sum() > 1 + 1e-6:
        raise ModelError("a probability table is not a distribution")
    masses = np.append(masses, max(0.0, 1.0 - masses.sum()))
    freq: np.ndarray = np.floor(masses * (TOTAL - len(masses))).astype(np.int64) + 1
    freq[np.argmax(freq)] += TOTAL - freq.sum()
    return freq.astype(np.uint32)


def build(tables_of: list[tuple[int, np.ndarray]]) -> Tables:
    """Tables from (low, frequencies) of each."""
    low, freq = zip(*tables_of, strict=True)
    start = np.cumsum([0, *map(len, freq)], dtype=np.int64)
    tables = Tables(np.concatenate(freq), start, np.array(low, np.int32))
    check(tables)
    return tables


def check(tables: Tables) -> None:
    """Raise ModelError unless every table is a distribution that any decoder can use."""
    freq, start, low = tables
    typed = freq.dtype == np.uint32 and start.dtype == np.int64 and low.dtype == np.int32
    if not typed or freq.ndim != 1 or start.ndim != 1 or low.shape != (len(start) - 1,):
        raise ModelError("probability tables have the wrong type or shape")
    length = np.diff(start.astype(np.int64))
    if start[0] != 0 or start[-1] != len(freq) or (length < 2).any() or (length > MAX_ENTRIES).any():
        raise ModelError("probability tables do not add up to their entries")
    sums = np.add.reduceat(freq.astype(np.int64), start[:-1])
    if (freq == 0).any() or (sums != TOTAL).any():
        raise ModelError("a probability table does not sum to 2**24")
    if (np.abs(low.astype(np.int64)) > MAX_ENTRIES).any():
        raise ModelError("a probability table begins out of range")
