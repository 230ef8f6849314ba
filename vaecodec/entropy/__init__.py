"""Hold integer frequency tables, and code symbols under them by asymmetric numeral systems (ANS, Duda 2013).

    table t:   symbol   low[t]  low[t]+1  ...  low[t]+n-2   escape
               freq        >= 1 each, and each table sums to 2**24

The last entry of a table, the escape, stands for every symbol outside it; the symbol then follows as four bytes.
`training.freezing` computes tables, and model files store them.  Symbols are coded on a stack (section 4 of
docs/reference/format.md):

    coder = AnsCoder()                    coder = AnsCoder(words)
    coder.encode_reverse(b, model)        a = coder.decode(model, len(a))
    coder.encode_reverse(a, model)        b = coder.decode(model, len(b))
    words = coder.get_compressed()        coder.is_empty()

The words are those of constriction.stream.stack.AnsCoder (Bamler 2022, arXiv:2201.01741) with models of 24 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.errors import ModelError
from vaecodec.native import symbols as native
from vaecodec.native.reference.prior import ANS_BITS
from vaecodec.native.symbols import AnsStack, AnsTables

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


WORD_BITS = 32
FIRST_ROOM = 1 << 10  # words


class Categorical:
    """Symbols 0..n-1 with frequencies u32[n], at least 1 each, sum 2**24; raises ValueError otherwise."""

    def __init__(self, freq: np.ndarray) -> None:
        self.tables = native.ans_tables(freq, np.array([0, len(freq)]))


class Uniform:
    """Symbols 0..size-1, all equally likely; size is a power of two, 2 to 2**24."""

    def __init__(self, size: int) -> None:
        self.bits = size.bit_length() - 1
        if size != 1 << self.bits or not 1 <= self.bits <= ANS_BITS:
            raise ValueError(f"{size} symbols, expected a power of two from 2 to 2**{ANS_BITS}")


class CategoricalFamily:
    """Symbol k of n with frequencies freq[k] of i64[n, K], at least 1 each, of sum 2**24."""

    def bounds(self, freq: np.ndarray) -> np.ndarray:
        """Cumulative frequencies u32[n, K + 1]; raises ValueError where they are not distributions."""
        bounds = np.zeros((len(freq), freq.shape[1] + 1), np.int64)
        np.cumsum(freq, axis=1, out=bounds[:, 1:])
        if (freq < 1).any() or (bounds[:, -1] != 1 << ANS_BITS).any():
            raise ValueError("frequencies are below 1 or do not sum to 2**24")
        return bounds.astype(np.uint32)


Model = Categorical | Uniform | CategoricalFamily


class AnsCoder:
    """A stack of symbols: the last one encoded is decoded first."""

    def __init__(self, compressed: np.ndarray | None = None) -> None:
        """An empty stack, or one of compressed words u32[n]; raises ValueError where the last of these is 0."""
        words = np.zeros(FIRST_ROOM, np.uint32) if compressed is None else np.array(compressed, np.uint32)
        count = 0 if compressed is None else len(words)
        if count and words[-1] == 0:
            raise ValueError("the last word is 0")
        state = 0
        for _ in range(min(2, count)):
            count -= 1
            state = state << WORD_BITS | int(words[count])
        self._stack = AnsStack(np.array([state, count], np.uint64), words)

    def encode_reverse(self, symbols: np.ndarray, model: Model, freq: np.ndarray | None = None) -> None:
        """Put symbols i32[n] on the stack, the last one first, so that they are decoded in order.

        `freq` i64[n, K] belongs to a CategoricalFamily.  Raises ValueError where a symbol is not in the model.
        """
        symbols = np.ascontiguousarray(symbols, np.int32)
        if isinstance(model, Categorical):
            self.encode_runs(model.tables, symbols, np.zeros(1, np.int32), np.array([len(symbols)], np.int32))
            return
        self._make_room(len(symbols))
        if isinstance(model, Uniform):
            native.ans_encode_uniform(self._stack, symbols, model.bits)
        else:
            assert freq is not None
            native.ans_encode_each(self._stack, symbols, model.bounds(freq))

    def decode(self, model: Model, count_or_freq: int | np.ndarray) -> np.ndarray:
        """Take symbols i32[n] off the stack: n of them, or one for each row of frequencies i64[n, K] of a family."""
        if isinstance(model, CategoricalFamily):
            return native.ans_decode_each(self._stack, model.bounds(np.asarray(count_or_freq)))
        count = int(count_or_freq)
        if isinstance(model, Uniform):
            return native.ans_decode_uniform(self._stack, count, model.bits)
        return self.decode_runs(model.tables, np.zeros(1, np.int32), np.array([count], np.int32))

    def encode_runs(self, tables: AnsTables, positions: np.ndarray, used: np.ndarray, counts: np.ndarray) -> None:
        """Put runs of positions i32 on the stack: counts[r] of them under table used[r], both i32[r]."""
        self._make_room(len(positions))
        native.ans_encode(self._stack, tables, positions, used, counts)

    def decode_runs(self, tables: AnsTables, used: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Take runs of positions i32 off the stack; the inverse of encode_runs."""
        return native.ans_decode(self._stack, tables, used, counts)

    def get_compressed(self) -> np.ndarray:
        """The stack as words u32[n], the last of which is not 0."""
        state, count = int(self._stack.memory[0]), int(self._stack.memory[1])
        rest = []
        while state:
            rest.append(state & 0xFFFFFFFF)
            state >>= WORD_BITS
        return np.append(self._stack.words[:count], np.array(rest, np.uint32))

    def num_words(self) -> int:
        """The length of `get_compressed`."""
        state, count = int(self._stack.memory[0]), int(self._stack.memory[1])
        return count + -(-state.bit_length() // WORD_BITS)

    def is_empty(self) -> bool:
        """Whether nothing but zeros is left."""
        return self.num_words() == 0

    def _make_room(self, count: int) -> None:
        """Make room for `count` more symbols, each of which adds a word at most."""
        memory, words = self._stack
        needed = int(memory[1]) + count
        if needed > len(words):
            longer = np.zeros(max(needed, 2 * len(words)), np.uint32)
            longer[: len(words)] = words
            self._stack = AnsStack(memory, longer)
