"""Integer frequency tables: one row a distribution, made once in `freezing` and stored, never recomputed.

    row r:   symbol   low[r]  low[r]+1  ...  low[r]+n-2   escape
             freq        >= 1 each, and each row sums to 2**24

The last entry of a row stands for every symbol outside it; the symbol itself then follows as four bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.errors import ModelError

PRECISION = 24
TOTAL = 1 << PRECISION
MAX_ENTRIES = 1 << 16


class Tables(NamedTuple):
    """freq u32[K], all rows end to end; start i64[R + 1]; low i32[R]."""

    freq: np.ndarray
    start: np.ndarray
    low: np.ndarray

    @property
    def last(self) -> np.ndarray:
        """i32[R]: the position of the escape in each row."""
        return (np.diff(self.start) - 1).astype(np.int32)

    def row(self, index: int) -> np.ndarray:
        """u32[n]: the frequencies of one row, escape last."""
        return self.freq[self.start[index] : self.start[index + 1]]

    def bits(self, symbols: np.ndarray, rows: np.ndarray) -> float:
        """Information content in bits of symbols i32[n] under rows u[n], escapes included; row 0 is not coded."""
        coded = rows != 0
        return float(self.bits_of_each(symbols[coded], rows[coded]).sum())

    def bits_of_each(self, symbols: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """f64: those of each symbol i[...] under its row u[...], which may be 0; shapes that go together."""
        position, last = symbols.astype(np.int64) - self.low[rows], self.last[rows]
        escaped = (position < 0) | (position >= last)
        freq = self.freq[self.start[rows] + np.where(escaped, last, position)]
        return PRECISION - np.log2(freq) + 32 * escaped


def integer_frequencies(masses: np.ndarray) -> np.ndarray:
    """u32[n + 1] that sum to 2**24 from f64[n] probabilities: at least 1 each, the rest of the mass to the escape.

    Raises ModelError on masses that are negative, not finite, or add up to more than 1.
    """
    if not np.isfinite(masses).all() or (masses < 0).any() or masses.sum() > 1 + 1e-6:
        raise ModelError("a probability table is not a distribution")
    masses = np.append(masses, max(0.0, 1.0 - masses.sum()))
    freq = np.floor(masses * (TOTAL - len(masses))).astype(np.int64) + 1
    freq[np.argmax(freq)] += TOTAL - freq.sum()
    return freq.astype(np.uint32)


def build(rows: list[tuple[int, np.ndarray]]) -> Tables:
    """Tables from (low, frequencies) rows."""
    start = np.cumsum([0] + [len(freq) for _, freq in rows], dtype=np.int64)
    tables = Tables(np.concatenate([freq for _, freq in rows]), start, np.array([low for low, _ in rows], np.int32))
    check(tables)
    return tables


def check(tables: Tables) -> None:
    """Raises ModelError unless every row is a distribution that any decoder can use."""
    freq, start, low = tables
    kinds = freq.dtype, start.dtype, low.dtype
    if kinds != (np.uint32, np.int64, np.int32) or freq.ndim != 1 or start.ndim != 1 or low.shape != (len(start) - 1,):
        raise ModelError("probability tables have the wrong type or shape")
    length = np.diff(start.astype(np.int64))
    if start[0] != 0 or start[-1] != len(freq) or (length < 2).any() or (length > MAX_ENTRIES).any():
        raise ModelError("probability tables do not add up to their entries")
    sums = np.add.reduceat(freq.astype(np.int64), start[:-1])
    if (freq == 0).any() or (sums != TOTAL).any():
        raise ModelError("a row of the probability tables does not sum to 2**24")
    if (np.abs(low.astype(np.int64)) > MAX_ENTRIES).any():
        raise ModelError("a row of the probability tables begins out of range")
