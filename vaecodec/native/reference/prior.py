"""The kernels of the prior in NumPy: layers of integer networks, the networks of an octave, symbols and their coder.

Short and normative: native.networks, native.prior and native.symbols give the same integers.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vaecodec.native.networks import Block, Dense, Depthwise
    from vaecodec.native.prior import Before, Octave

MULTIPLIER_BITS = 12


def rounded(x: np.ndarray, bits: np.ndarray | int) -> np.ndarray:
    """round(x / 2**bits), halves up, of integers."""
    result: np.ndarray = (x + ((np.int64(1) << bits) >> 1)) >> bits
    return result


def dense(
    layer: Dense,
    x: np.ndarray,
    vector: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    multiplier: np.ndarray | None = None,
) -> np.ndarray:
    """i16[..., inputs] -> i16[..., channels], or i32 of the form "sums"."""
    limit = layer.limit
    # Products of int16 and their sums are exact in float64, whose matrix product is far faster than that of int64.
    sums: np.ndarray = (x.astype(np.float64) @ layer.kernel.astype(np.float64)).astype(np.int64) + layer.bias
    if layer.form == "sums":
        return sums.astype(np.int32)
    t = rounded(sums, layer.shifts)
    if layer.form == "gate":
        a, b = np.clip(t[..., : layer.channels], 0, limit), np.clip(t[..., layer.channels :], -limit, limit)
        t = rounded(a * b, layer.gate)
    t = np.clip(t, 0 if layer.form == "relu" else -limit, limit)
    if vector is not None:
        t = np.clip(t + vector, -limit, limit)
    if residual is not None:
        t = np.clip(t + residual, -limit, limit)
    if multiplier is not None:
        t = rounded(t * multiplier, MULTIPLIER_BITS)
    result: np.ndarray = np.clip(t, -limit, limit).astype(np.int16)
    return result


def depthwise(layer: Depthwise, x: np.ndarray) -> np.ndarray:
    """i16[h, w, C] -> the same, as if it were zero around."""
    wide = np.pad(x.astype(np.int32), [(1, 1), (1, 1), (0, 0)])
    (height, width), taps = x.shape[:2], layer.kernel.astype(np.int32)
    sums = np.zeros(x.shape, np.int64) + layer.bias
    for row, column in np.ndindex(3, 3):
        sums += wide[row : row + height, column : column + width] * taps[row, column]
    result: np.ndarray = np.clip(rounded(sums, layer.shifts), -layer.limit, layer.limit).astype(np.int16)
    return result


def block(layers: Block, x: np.ndarray, strip: tuple[int, int], multiplier: np.ndarray | None = None) -> np.ndarray:
    """Rows `strip` of the block of i16[h, w, C]."""
    top, bottom = strip
    above = int(top > 0)
    context = x[top - above : bottom + 1]  # with a row of either side, where there is one
    spread = depthwise(layers.space, dense(layers.enter, context))[above : above + bottom - top]
    x = dense(layers.out, spread, residual=x[top:bottom])
    return dense(layers.mix, dense(layers.gate, x), residual=x, multiplier=multiplier)


SUBBANDS = 3
LOC_SHIFT, INDEX_SHIFT = 7, 12

Strip = tuple[int, int]


def first_half(networks: Octave, vector: np.ndarray, before: Before, strip: Strip) -> list[np.ndarray]:
    """Rows `strip` of features, loc and table indices."""
    shape, local = before.low.shape[1:], Local(strip, before.low.shape)
    x = dense(networks.enter, _inputs(networks, before, local.context), vector)
    features = block(networks.before, x, local.strip)
    return [features, *_distribution(networks, networks.first, 0, features, shape, strip)]


def second_half(
    networks: Octave, shape: tuple[int, int], features: np.ndarray, values: np.ndarray, strip: Strip
) -> list[np.ndarray | None]:
    """Rows `strip` of what is passed on, loc and table indices."""
    local = Local(strip, shape)
    x = _with_magnitudes(compand(networks.companding, values[local.context]))
    x = dense(networks.known, x, residual=features[local.context])
    x = block(networks.after, x, local.strip)
    passed = dense(networks.passing, x) if networks.passing else None
    return [passed, *_distribution(networks, networks.second, 1, x, shape, strip)]


class Local:
    """A `strip` of rows of cells within its `context`: itself and a row of either side, where there is one."""

    def __init__(self, strip: Strip, shape: tuple[int, ...]) -> None:
        top, bottom = strip
        above, height = int(top > 0), -(-shape[-2] // 2)
        self.context = slice(top - above, min(bottom + 1, height))
        self.strip = above, above + bottom - top


def compand(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """i16: the table's entry for each magnitude, with the value's sign."""
    magnitudes = np.minimum(np.abs(values.astype(np.int64)), len(table) - 1)
    result: np.ndarray = table[magnitudes] * np.sign(values).astype(np.int16)
    return result


def details(low: np.ndarray, rows: slice) -> np.ndarray:
    """i32 rows of i32[C, H, W], less the rounded mean of the eight neighbours; edges are mirrored."""
    wide = np.pad(low, [(0, 0), (1, 1), (1, 1)], "reflect")[:, rows.start : rows.stop + 2]
    column = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    here = low[:, rows]
    around = column[..., :-2] + column[..., 1:-1] + column[..., 2:] - here
    return here - rounded(around, 3).astype(np.int32)


@lru_cache(maxsize=16)
def octave_order(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of a 2x2 square, numbered by row, column, subband and channel, in the first and second half."""
    odd = np.indices((2, 2, SUBBANDS, channels)).sum(0).ravel() % 2
    return np.flatnonzero(odd == 0), np.flatnonzero(odd)


def to_cells(planes: np.ndarray) -> np.ndarray:
    """[P, H, W] -> [h, w, 4 P]: four places in order of rows, zero beyond an odd side."""
    wide = np.pad(planes, [(0, 0), (0, planes.shape[1] % 2), (0, planes.shape[2] % 2)])
    count, height, width = wide.shape
    cells = wide.reshape(count, height // 2, 2, width // 2, 2).transpose(1, 3, 2, 4, 0)
    result: np.ndarray = cells.reshape(height // 2, width // 2, 4 * count)
    return result


def _inputs(networks: Octave, before: Before, rows: slice) -> np.ndarray:
    """i16[n, w, inputs] of rows of cells."""
    places = slice(2 * rows.start, min(2 * rows.stop, before.low.shape[1]))
    hidden = to_cells(compand(networks.companding, details(before.low, places)))
    width = hidden.shape[1]
    if before.parents is None:
        parents = np.zeros((*hidden.shape[:2], SUBBANDS * networks.colours), np.int16)
    else:
        joined = np.empty((*before.parents[0].shape[:2], 12 * networks.colours), np.int32)
        for half, numbers in zip(before.parents, octave_order(networks.colours), strict=True):
            joined[..., numbers] = half
        parents = compand(networks.companding, _by_places(joined)[rows, :width])
    signed = np.concatenate([hidden, parents], -1)
    passed = [] if before.passed is None else [_by_places(before.passed)[rows, :width]]
    return np.concatenate([signed, *passed, np.abs(signed)], -1)


def _by_places(cells: np.ndarray) -> np.ndarray:
    """[h, w, 4 n] -> [2 h, 2 w, n]."""
    height, width, count = *cells.shape[:2], cells.shape[2] // 4
    places = cells.reshape(height, width, 2, 2, count).transpose(0, 2, 1, 3, 4)
    result: np.ndarray = places.reshape(2 * height, 2 * width, count)
    return result


def _with_magnitudes(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.abs(x)], -1)


def _distribution(
    networks: Octave, layer: Dense, half: int, x: np.ndarray, shape: tuple[int, ...], strip: Strip
) -> tuple[np.ndarray, np.ndarray]:
    """loc i32 and table indices u8 of a strip of rows of cells; 0 beyond an odd side of the octave."""
    sums = dense(layer, x)
    count = sums.shape[-1] // 2
    loc = rounded(sums[..., :count], LOC_SHIFT).astype(np.int32)
    indices = np.clip(rounded(sums[..., count:], INDEX_SHIFT), 0, networks.scales - 1).astype(np.uint8)
    place = octave_order(networks.colours)[half] // (SUBBANDS * networks.colours)
    for axis, odd in ((0, place // 2), (1, place % 2)):
        if shape[axis] % 2 and (axis == 1 or strip[1] == -(-shape[0] // 2)):
            for array in (loc, indices):
                last = array[-1:] if axis == 0 else array[:, -1:]
                last[..., odd == 1] = 0
    return loc, indices


INDICES = 256
SYMBOL_MAX = (1 << 16) - 1
SMALL = 24  # symbols that the histograms of count_symbols hold
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
    table_of: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    tables = np.repeat(table_of, counts)
    symbols = np.zeros(size, np.int32)
    symbols[order] = positions + low[tables]
    return symbols, np.flatnonzero(positions == last[tables]).astype(np.uint32)


def gather_symbols(
    symbols: np.ndarray, order: np.ndarray, counts: np.ndarray, low: np.ndarray, last: np.ndarray, table_of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    tables, coded = np.repeat(table_of, counts), symbols[order].astype(np.int64)
    positions = coded - low[tables]
    outside = (positions < 0) | (positions >= last[tables])
    positions[outside] = last[tables][outside]
    uncodable = np.count_nonzero(symbols) - np.count_nonzero(coded) + np.count_nonzero(np.abs(coded) > SYMBOL_MAX)
    return positions.astype(np.int32), np.flatnonzero(outside).astype(np.uint32), uncodable


def count_symbols(
    symbols: np.ndarray, indices: np.ndarray, scales: int, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    small = (symbols >= -SMALL) & (symbols <= SMALL)
    coded = np.flatnonzero((indices != 0) & small)
    shape = int(groups.max()) + 1, scales, 2 * SMALL + 1
    bins = np.ravel_multi_index((groups[coded % len(groups)], indices[coded], symbols[coded] + SMALL), shape)
    histogram = np.bincount(bins, minlength=np.prod(shape)).reshape(shape)
    return histogram.astype(np.int32), np.flatnonzero((indices != 0) & ~small).astype(np.uint32)


def shift_indices(indices: np.ndarray, offsets: np.ndarray, scales: int) -> np.ndarray:
    shifted = indices + np.resize(offsets, len(indices)).astype(np.int16)
    return np.where(indices == 0, 0, np.clip(shifted, 1, scales - 1)).astype(np.uint8)


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
