"""The kernels of native.symbols in NumPy and Python integers: slower, and normative."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

INDICES = 256
UNIT, VALUE_MAX, SYMBOL_MAX = 64, 1 << 16, (1 << 16) - 1
SMALL = 24  # symbols that the histograms of count_symbols hold
LEVELS = 16  # symbols whose thresholds differ
OUTLIER = 2.5  # residuals of index 0 from which on a symbol is chosen
ANS_BITS, LOOKUP_BITS = 24, 10


def sort_by_table(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    coded = np.flatnonzero(indices)
    order = coded[np.argsort(indices[coded], kind="stable")]
    return order.astype(np.uint32), np.bincount(indices[coded], minlength=INDICES).astype(np.int32)


def place_symbols(
    size: int,
    positions: np.ndarray,
    order: np.ndarray,
    counts: np.ndarray,
    low: np.ndarray,
    last: np.ndarray,
    moved: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    tables = np.repeat(moved, counts)
    symbols = np.zeros(size, np.int32)
    symbols[order] = positions + low[tables]
    return symbols, np.flatnonzero(positions == last[tables]).astype(np.uint32)


def gather_symbols(
    symbols: np.ndarray, order: np.ndarray, counts: np.ndarray, low: np.ndarray, last: np.ndarray, moved: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    tables, coded = np.repeat(moved, counts), symbols[order].astype(np.int64)
    positions = coded - low[tables]
    outside = (positions < 0) | (positions >= last[tables])
    positions[outside] = last[tables][outside]
    uncodable = np.count_nonzero(symbols) - np.count_nonzero(coded) + np.count_nonzero(np.abs(coded) > SYMBOL_MAX)
    return positions.astype(np.int32), np.flatnonzero(outside).astype(np.uint32), uncodable


def symbol_values(symbols: np.ndarray, indices: np.ndarray, loc: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    further = (np.abs(symbols) != 1).astype(np.intp)
    nudge = np.sign(symbols) * centroids[indices, further]
    return np.clip(UNIT * symbols + nudge + loc, -VALUE_MAX, VALUE_MAX)


def quantise(target: np.ndarray, indices: np.ndarray, loc: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    residual = loc.astype(np.float32) * np.float32(-1 / UNIT) + target
    places = np.flatnonzero(np.abs(residual) > 0.5)  # the symbols of all others are 0
    residual, indices = residual[places], indices[places]
    size = np.abs(residual)
    found = np.rint(size)
    near = np.minimum(found, LEVELS - 1)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        found -= size - (found - near) < thresholds[indices, near.astype(np.intp)]
    found[(indices == 0) & (size < OUTLIER)] = 0
    symbols = np.zeros(target.shape, np.int32)
    symbols[places] = np.copysign(np.minimum(found, SYMBOL_MAX), residual)
    return symbols


def count_symbols(symbols: np.ndarray, indices: np.ndarray, scales: int) -> tuple[np.ndarray, np.ndarray]:
    small = (symbols >= -SMALL) & (symbols <= SMALL)
    coded = np.flatnonzero((indices != 0) & small)
    width = 2 * SMALL + 1
    bins = indices[coded].astype(np.int64) * width + symbols[coded] + SMALL
    histogram = np.bincount(bins, minlength=scales * width).reshape(scales, width)
    return histogram.astype(np.int32), np.flatnonzero((indices != 0) & ~small).astype(np.uint32)


class Stack:
    """The stack of section 4 of docs/reference/format.md, read from and written back to its arrays."""

    def __init__(self, memory: np.ndarray, words: np.ndarray) -> None:
        self._memory, self._words = memory, words
        self._state, self._count = int(memory[0]), int(memory[1])

    def close(self) -> None:
        self._memory[:] = self._state, self._count

    @property
    def quantile(self) -> int:
        return self._state % (1 << ANS_BITS)

    def take(self, start: int, size: int) -> None:
        self._state = (self._state >> ANS_BITS) * size + self.quantile - start
        if self._state < 1 << 32 and self._count:
            self._count -= 1
            self._state = self._state << 32 | int(self._words[self._count])

    def put(self, start: int, size: int) -> None:
        if self._state >> (64 - ANS_BITS) >= size:
            self._words[self._count] = self._state & 0xFFFFFFFF
            self._count += 1
            self._state >>= 32
        self._state = (self._state // size << ANS_BITS) + self._state % size + start

    def take_entry(self, edges: list[int]) -> int:
        entry = bisect_right(edges, self.quantile) - 1
        self.take(edges[entry], edges[entry + 1] - edges[entry])
        return entry

    def put_entry(self, edges: list[int], entry: int) -> None:
        if not 0 <= entry < len(edges) - 1:
            raise ValueError("a position is not in its table")
        self.put(edges[entry], edges[entry + 1] - edges[entry])


def ans_lookup(offsets: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    lookup = np.empty((len(offsets) - 1, (1 << LOOKUP_BITS) + 1), np.uint16)
    slots = np.arange(1 << LOOKUP_BITS) << (ANS_BITS - LOOKUP_BITS)
    for row, begin, end in zip(lookup, offsets[:-1], offsets[1:], strict=True):
        row[:-1] = np.searchsorted(bounds[begin:end], slots, "right") - 1
        row[-1] = end - begin - 2
    return lookup


def ans_decode(
    memory: np.ndarray,
    words: np.ndarray,
    used: np.ndarray,
    counts: np.ndarray,
    offsets: np.ndarray,
    bounds: np.ndarray,
) -> np.ndarray:
    stack, positions = Stack(memory, words), list[int]()
    for table, count in zip(used.tolist(), counts.tolist(), strict=True):
        edges = bounds[offsets[table] : offsets[table + 1]].tolist()
        positions += [stack.take_entry(edges) for _ in range(count)]
    stack.close()
    return np.array(positions, np.int32)


def ans_encode(
    memory: np.ndarray,
    words: np.ndarray,
    positions: np.ndarray,
    used: np.ndarray,
    counts: np.ndarray,
    offsets: np.ndarray,
    bounds: np.ndarray,
) -> None:
    stack, entries = Stack(memory, words), positions.tolist()
    for table, count in zip(used[::-1].tolist(), counts[::-1].tolist(), strict=True):
        edges = bounds[offsets[table] : offsets[table + 1]].tolist()
        for _ in range(count):
            stack.put_entry(edges, entries.pop())
    stack.close()


def ans_decode_each(memory: np.ndarray, words: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    stack = Stack(memory, words)
    positions = [stack.take_entry(edges.tolist()) for edges in bounds]
    stack.close()
    return np.array(positions, np.int32)


def ans_encode_each(memory: np.ndarray, words: np.ndarray, positions: np.ndarray, bounds: np.ndarray) -> None:
    stack = Stack(memory, words)
    for edges, entry in zip(bounds[::-1], positions[::-1].tolist(), strict=True):
        stack.put_entry(edges.tolist(), entry)
    stack.close()


def ans_decode_uniform(memory: np.ndarray, words: np.ndarray, count: int, bits: int) -> np.ndarray:
    stack, size, positions = Stack(memory, words), 1 << (ANS_BITS - bits), list[int]()
    for _ in range(count):
        positions.append(stack.quantile // size)
        stack.take(positions[-1] * size, size)
    stack.close()
    return np.array(positions, np.int32)


def ans_encode_uniform(memory: np.ndarray, words: np.ndarray, positions: np.ndarray, bits: int) -> None:
    stack, size = Stack(memory, words), 1 << (ANS_BITS - bits)
    for entry in positions[::-1].tolist():
        if not 0 <= entry < 1 << bits:
            raise ValueError("a position is not in its table")
        stack.put(entry * size, size)
    stack.close()
