"""Code symbols by asymmetric numeral systems (ANS, Duda 2013), on a stack: section 4 of docs/reference/format.md.

    coder = AnsCoder()                    coder = AnsCoder(words)
    coder.encode_reverse(b, model)        a = coder.decode(model, len(a))
    coder.encode_reverse(a, model)        b = coder.decode(model, len(b))
    words = coder.get_compressed()        coder.is_empty()

The words are those of constriction.stream.stack.AnsCoder (Bamler 2022, arXiv:2201.01741) with models of 24 bits.
"""

from __future__ import annotations

import numpy as np

from vaecodec.native import symbols as native
from vaecodec.native.reference.prior import ANS_BITS
from vaecodec.native.symbols import AnsStack, AnsTables

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
