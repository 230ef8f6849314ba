"""Integers of any size <-> an ANS stack, by tables that adapt to what was coded before.

integer --token--> (sign, magnitude class)  adaptive table of the integer's context
                   low bits                 uniform

Tables change between blocks of symbols and are quotients of integers, so that both sides have the same.  A magnitude
below 16 is its own class; above, a class is an exponent and the bit below the leading one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vaecodec.entropy.coding import by_table, categorical, uniform
from vaecodec.entropy.tables import TOTAL

DIRECT = 16  # magnitudes that are classes of their own
MAX_BITS = 40  # of a magnitude
CLASSES = DIRECT + 2 * (MAX_BITS - 4)
TOKENS = 2 * CLASSES - 1
CONTEXTS = 64  # two to an octave of the expected magnitude
EXPECTED_UNIT = 8  # expected magnitudes are in eighths
RAW = 16  # bits of a uniform symbol, at most

STRENGTH = 40  # symbols that the table at the beginning counts for
FINE = 1 << 8  # counts are in units of 1 / FINE symbols
FIRST_BLOCK, LAST_BLOCK = 1 << 9, 1 << 15
FORGET = 1 << 12  # symbols in a context at which its counts are halved


def contexts(expected: np.ndarray) -> np.ndarray:
    """u8[n], 1..CONTEXTS: the context of an expected magnitude, integers >= 0 in eighths, as floats."""
    mantissa, exponent = np.frexp(expected + 1.0)  # exact, whatever the machine
    return (np.clip(2 * exponent + (mantissa >= 0.75) - 2, 0, CONTEXTS - 1) + 1).astype(np.uint8)


def tokens(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers i64[n] -> (tokens i32[n], their low bits i64[n], how many i32[n])."""
    size = np.abs(values)
    bits = np.frexp(size.astype(np.float64))[1]  # of the magnitude, exact below 2**53
    large = size >= DIRECT
    low = np.where(large, bits - 2, 0)
    kind = np.where(large, DIRECT + 2 * (bits - 5) + ((size >> low) & 1), size).astype(np.int32)
    return np.where(values < 0, -kind, kind) + (CLASSES - 1), size & ((1 << low.astype(np.int64)) - 1), low


def low_bits(token: np.ndarray) -> np.ndarray:
    """i64[n]: how many low bits follow each token i32[n]."""
    kind = np.abs(token.astype(np.int64) - (CLASSES - 1))
    return np.where(kind >= DIRECT, (kind - DIRECT) // 2 + 3, 0)


def values(token: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """The integers i64[n] of tokens and low bits; inverse of `tokens`."""
    signed = token.astype(np.int64) - (CLASSES - 1)
    kind, low = np.abs(signed), low_bits(token)
    size = np.where(kind >= DIRECT, ((2 + (kind & 1)) << low) + raw, kind)
    return np.where(signed < 0, -size, size)


@lru_cache(maxsize=CONTEXTS)
def beginning(context: int) -> np.ndarray:
    """i64[TOKENS], sum about STRENGTH * FINE: the counts that a context begins with, of a long-tailed density.

    1 / (a**2 + m**2)**2 at magnitude m, a its expectation; in integers of Python, so exact.
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
    """Counts of tokens by context, and the tables that follow from them."""

    def __init__(self) -> None:
        self._counts: dict[int, np.ndarray] = {}
        self._models: dict[int, object] = {}
        self.coded = 0

    def model(self, context: int):  # type: ignore[no-untyped-def]
        """The entropy model of a context, as of the last `update`."""
        if context not in self._models:
            if context not in self._counts:
                self._counts[context] = beginning(context).copy()
            counts = self._counts[context]
            freq = counts * (TOTAL - TOKENS) // counts.sum() + 1
            freq[np.argmax(freq)] += TOTAL - freq.sum()
            self._models[context] = categorical(freq.astype(np.uint32))
        return self._models[context]

    def update(self, context: int, token: np.ndarray) -> None:
        """Counts tokens i32[n] of one context."""
        counts = self._counts[context]
        counts += FINE * np.bincount(token, minlength=TOKENS)
        if counts.sum() > FORGET * FINE:
            counts //= 2
        del self._models[context]

    def blocks(self, count: int) -> Iterator[slice]:
        """`count` symbols in blocks, each longer the more were coded before."""
        begin = 0
        while begin < count:
            end = min(count, begin + min(max(self.coded // 4, FIRST_BLOCK), LAST_BLOCK))
            self.coded += end - begin
            yield slice(begin, end)
            begin = end


class Call(NamedTuple):
    """Symbols i32[n] to be coded with one entropy model."""

    symbols: np.ndarray
    model: object


class Encoder:
    """Collects integers from the first to the last; the stack takes them from the last to the first."""

    def __init__(self) -> None:
        self._tables, self._calls = Adaptive(), list[Call]()

    def put(self, numbers: np.ndarray, rows: np.ndarray) -> None:
        """Integers i64[n] in contexts u8[n]; those of context 0 are known to be 0 and cost nothing."""
        token, raw, low = tokens(numbers)
        for block in self._tables.blocks(len(rows)):
            order, runs = _runs(rows[block])
            position = token[block][order]
            for context, begin, end in runs:
                self._calls.append(Call(position[begin:end], self._tables.model(context)))
            for context, begin, end in runs:
                self._tables.update(context, position[begin:end])
            for places, bits, shift in _raw_parts(low[block][order]):
                part = raw[block][order][places] >> shift & ((1 << bits) - 1)
                self._calls.append(Call(part.astype(np.int32), uniform(bits)))

    def push(self, coder) -> None:  # type: ignore[no-untyped-def]
        """Puts all on a stack."""
        for call in reversed(self._calls):
            coder.encode_reverse(call.symbols, call.model)


class Decoder:
    """Takes off a stack what Encoder put there."""

    def __init__(self, coder) -> None:  # type: ignore[no-untyped-def]
        self._tables, self._coder = Adaptive(), coder

    def get(self, rows: np.ndarray) -> np.ndarray:
        """i64[n] in contexts u8[n]."""
        token, raw = np.full(len(rows), CLASSES - 1, np.int32), np.zeros(len(rows), np.int64)
        for block in self._tables.blocks(len(rows)):
            order, runs = _runs(rows[block])
            position, low = np.empty(len(order), np.int32), np.zeros(len(order), np.int64)
            for context, begin, end in runs:
                position[begin:end] = self._coder.decode(self._tables.model(context), end - begin)
            for context, begin, end in runs:
                self._tables.update(context, position[begin:end])
            for places, bits, shift in _raw_parts(low_bits(position)):
                low[places] |= self._coder.decode(uniform(bits), len(places)).astype(np.int64) << shift
            token[block][order], raw[block][order] = position, low
        return values(token, raw)


def _runs(rows: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """(order u32[m], [(row, begin, end)]): the symbols that are coded, by rows."""
    order, counts = by_table(rows)
    used = np.flatnonzero(counts)
    ends = np.cumsum(counts[used]).tolist()
    return order, list(zip(used.tolist(), [0, *ends][:-1], ends, strict=True))


def _raw_parts(low: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """(places, bits, shift) of the uniform symbols for these numbers of low bits: RAW bits at most, lowest first."""
    for bits in np.flatnonzero(np.bincount(low, minlength=1)[1:]) + 1:
        places = np.flatnonzero(low == bits)
        for shift in range(0, int(bits), RAW):
            yield places, min(RAW, int(bits) - shift), shift
