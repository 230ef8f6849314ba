"""Code integers of any size with adaptive tables, on a stack of asymmetric numeral systems.

    integer ---> token (sign and magnitude class), under the adaptive table of the integer's context
                 low bits, uniform

Tables change between blocks of symbols and are quotients of integers, so that encoder and decoder have the same.  A
magnitude below 16 is its own class; above, a class is an exponent and the bit below the leading one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from vaecodec.entropy import TOTAL
from vaecodec.entropy.coding import Coder, EntropyModel, by_table, categorical, uniform

DIRECT = 16  # magnitudes that are classes of their own
MAX_BITS = 40  # of a magnitude
CLASSES = DIRECT + 2 * (MAX_BITS - 4)
TOKENS = 2 * CLASSES - 1
CONTEXTS = 64  # two to an octave of the expected magnitude
EXPECTED_UNIT = 8  # expected magnitudes are in eighths
RAW = 16  # bits of a uniform symbol, at most

STRENGTH = 40  # symbols that the initial counts weigh as much as
FINE = 1 << 8  # counts are in units of 1 / FINE symbols
FIRST_BLOCK, LAST_BLOCK = 1 << 9, 1 << 15
FORGET = 1 << 12  # symbols in a context at which its counts are halved


def contexts(expected: np.ndarray) -> np.ndarray:
    """u8[n], 1..CONTEXTS: the contexts of expected magnitudes f64[n], integers >= 0 in eighths."""
    mantissa, exponent = np.frexp(expected + 1.0)  # exact on every machine
    context: np.ndarray = np.clip(2 * exponent + (mantissa >= 0.75) - 2, 0, CONTEXTS - 1) + 1
    return context.astype(np.uint8)


def tokens(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens i32[n], low bits i64[n], number of low bits i32[n]) of integers i64[n]."""
    size = np.abs(values)
    bits = np.frexp(size.astype(np.float64))[1]  # of the magnitude, exact below 2**53
    large = size >= DIRECT
    low = np.where(large, bits - 2, 0)
    kind = np.where(large, DIRECT + 2 * (bits - 5) + ((size >> low) & 1), size).astype(np.int32)
    return np.where(values < 0, -kind, kind) + (CLASSES - 1), size & ((1 << low.astype(np.int64)) - 1), low


def low_bits(token: np.ndarray) -> np.ndarray:
    """i64[n]: the number of low bits that follow each token i32[n]."""
    kind = np.abs(token.astype(np.int64) - (CLASSES - 1))
    return np.where(kind >= DIRECT, (kind - DIRECT) // 2 + 3, 0)


def values(token: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """The integers i64[n] of tokens and low bits; inverse of `tokens`."""
    signed = token.astype(np.int64) - (CLASSES - 1)
    kind, low = np.abs(signed), low_bits(token)
    size = np.where(kind >= DIRECT, ((2 + (kind & 1)) << low) + raw, kind)
    return np.where(signed < 0, -size, size)


@lru_cache(maxsize=CONTEXTS)
def initial_counts(context: int) -> np.ndarray:
    """i64[TOKENS], sum about STRENGTH * FINE: the initial counts of a context, from a long-tailed density.

    It is 1 / (a**2 + m**2)**2 at magnitude m, with expectation a; Python integers make it exact.
    """
    octave, half = divmod(context - 1, 2)
    expected = max(1, (2 + half) * (1 << octave) - 2)  # in sixteenths
    mass, begin = [], 0
    for kind in range(CLASSES):
        width = 1 if kind < DIRECT else 1 << ((kind - DIRECT) // 2 + 3)
        middle = 16 * begin + 8 * (width - 1)
        mass.append((width << 400) // (expected**2 + 8 + middle**2) ** 2)
        begin += width
    both = mass[:0:-1] + mass
    total = sum(both)
    return np.array([part * STRENGTH * FINE // total for part in both], np.int64)


class Adaptive:
    """Counts of tokens by context, and the tables that they give."""

    def __init__(self) -> None:
        self._counts: dict[int, np.ndarray] = {}
        self._models: dict[int, EntropyModel] = {}
        self.coded = 0

    def model(self, context: int) -> EntropyModel:
        """The entropy model of a context, as of the last `update`."""
        if context not in self._models:
            if context not in self._counts:
                self._counts[context] = initial_counts(context).copy()
            counts = self._counts[context]
            freq = counts * (TOTAL - TOKENS) // counts.sum() + 1
            freq[np.argmax(freq)] += TOTAL - freq.sum()
            self._models[context] = categorical(freq.astype(np.uint32))
        return self._models[context]

    def update(self, context: int, token: np.ndarray) -> None:
        """Count tokens i32[n] of one context."""
        counts = self._counts[context]
        counts += FINE * np.bincount(token, minlength=TOKENS)
        if counts.sum() > FORGET * FINE:
            counts //= 2
        del self._models[context]

    def blocks(self, count: int) -> Iterator[slice]:
        """Yield blocks of `count` symbols, the longer the more symbols were coded before."""
        begin = 0
        while begin < count:
            end = min(count, begin + min(max(self.coded // 4, FIRST_BLOCK), LAST_BLOCK))
            self.coded += end - begin
            yield slice(begin, end)
            begin = end


class Encoder:
    """Collect integers, first to last, and push them, last to first."""

    def __init__(self) -> None:
        self._tables, self._calls = Adaptive(), list[tuple[np.ndarray, EntropyModel]]()

    def put(self, numbers: np.ndarray, contexts: np.ndarray) -> None:
        """Add integers i64[n] in contexts u8[n]; those in context 0 are known to be 0 and cost nothing."""
        token, raw, low = tokens(numbers)
        for block in self._tables.blocks(len(contexts)):
            order, runs = _runs(contexts[block])
            position = token[block][order]
            for context, begin, end in runs:
                self._calls.append((position[begin:end], self._tables.model(context)))
            for context, begin, end in runs:
                self._tables.update(context, position[begin:end])
            for places, bits, shift in _raw_parts(low[block][order]):
                part = raw[block][order][places] >> shift & ((1 << bits) - 1)
                self._calls.append((part.astype(np.int32), uniform(bits)))

    def push(self, coder: Coder) -> None:
        """Put all of them on a stack."""
        for symbols, model in reversed(self._calls):
            coder.encode_reverse(symbols, model)


class Decoder:
    """Take off a stack what Encoder put there."""

    def __init__(self, coder: Coder) -> None:
        self._tables, self._coder = Adaptive(), coder

    def get(self, contexts: np.ndarray) -> np.ndarray:
        """The next integers i64[n], in contexts u8[n]."""
        token, raw = np.full(len(contexts), CLASSES - 1, np.int32), np.zeros(len(contexts), np.int64)
        for block in self._tables.blocks(len(contexts)):
            order, runs = _runs(contexts[block])
            position, low = np.empty(len(order), np.int32), np.zeros(len(order), np.int64)
            for context, begin, end in runs:
                position[begin:end] = self._coder.decode(self._tables.model(context), end - begin)
            for context, begin, end in runs:
                self._tables.update(context, position[begin:end])
            for places, bits, shift in _raw_parts(low_bits(position)):
                low[places] |= self._coder.decode(uniform(bits), len(places)).astype(np.int64) << shift
            token[block][order], raw[block][order] = position, low
        return values(token, raw)


def _runs(contexts: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """(order u32[m], [(context, begin, end)]): the symbols that are coded, by context."""
    order, counts = by_table(contexts)
    used = np.flatnonzero(counts)
    ends = np.cumsum(counts[used]).tolist()
    return order, list(zip(used.tolist(), [0, *ends][:-1], ends, strict=True))


def _raw_parts(low: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yield (places, bits, shift) of uniform symbols for these numbers of low bits, RAW bits at most, lowest first."""
    for bits in np.flatnonzero(np.bincount(low, minlength=1)[1:]) + 1:
        places = np.flatnonzero(low == bits)
        for shift in range(0, int(bits), RAW):
            yield places, min(RAW, int(bits) - shift), shift
