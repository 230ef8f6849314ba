"""Sort, code, dequantise and quantise the symbols of coefficients.

The coder is of asymmetric numeral systems (ANS, Duda 2013).
Every coefficient has a symbol i32 and a table index u8; with index 0 the symbol is 0 and is not coded.  Coded symbols
are sorted by index, so that a run of them shares a table.  A symbol's position is its place in its table, whose last
entry is the escape.  `table_of` u8[256] maps an index to the table that codes it (scale offsets).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.native import library, reference
from vaecodec.native.library import check, check_writable
from vaecodec.native.reference import COSTS as COSTS
from vaecodec.native.reference import HALF_LEVEL as HALF_LEVEL
from vaecodec.native.reference import STRIP as STRIP
from vaecodec.native.reference import prior
from vaecodec.native.reference.prior import ANS_BITS, INDICES, LOOKUP_BITS, SMALL

PERIOD_MAX = 4096  # of what shift_indices repeats
CENTROIDS = 4  # of a table: by quantiser, and whether the magnitude is 1
ENTRIES_MAX = 1 << 16  # of a table: the lookup holds 16 bits


def sort_by_table(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order u32[m], counts i32[256]) of u8[n]: places of indices that are not 0, sorted by index, stable.

    counts[0] is 0, so that the counts sum to m.
    """
    check("indices", indices, np.uint8, (indices.size,))
    if library.in_numpy():
        return prior.sort_by_table(indices)
    places, order = np.empty(indices.size, np.uint32), np.empty(indices.size, np.uint32)
    counts = np.empty(INDICES, np.int32)
    count = library.call("sort_by_table", "qpppp", indices.size, indices, places, order, counts)
    return order[:count], counts


def place_symbols(
    size: int,
    positions: np.ndarray,
    order: np.ndarray,
    counts: np.ndarray,
    low: np.ndarray,
    last: np.ndarray,
    table_of: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(symbols i32[size], escapes u32[e]) from sorted positions i32[m] and what sort_by_table returned.

    Tables have the first symbols `low` i32[R] and the escapes `last` i32[R].  `escapes` are sorted places: the
    symbols at order[escapes] are to be replaced by what follows in the stream.
    """
    _check_order(size, order, counts, low, last, table_of)
    check("positions", positions, np.int32, (len(order),))
    if library.in_numpy():
        return prior.place_symbols(size, positions, order, counts, low, last, table_of)
    symbols, escapes = np.empty(size, np.int32), np.empty(len(order), np.uint32)
    arrays = (positions, order, counts, low, last, table_of, symbols, escapes)
    return symbols, escapes[: library.call("place_symbols", "qpppppppp", size, *arrays)]


def gather_symbols(
    symbols: np.ndarray, order: np.ndarray, counts: np.ndarray, low: np.ndarray, last: np.ndarray, table_of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """(positions i32[m], escapes u32[e], uncodable) of symbols i32[n]: the inverse of place_symbols.

    `uncodable` counts symbols of index 0 that are not 0, and coded ones beyond +-65535.
    """
    _check_order(symbols.size, order, counts, low, last, table_of)
    check("symbols", symbols, np.int32, (symbols.size,))
    if library.in_numpy():
        return prior.gather_symbols(symbols, order, counts, low, last, table_of)
    positions, escapes = np.empty(len(order), np.int32), np.empty(len(order), np.uint32)
    uncodable = np.zeros(1, np.int32)
    arrays = (symbols, order, counts, low, last, table_of, positions, escapes, uncodable)
    count = library.call("gather_symbols", "qppppppppp", symbols.size, *arrays)
    return positions, escapes[:count], int(uncodable[0])


def _check_order(
    size: int, order: np.ndarray, counts: np.ndarray, low: np.ndarray, last: np.ndarray, table_of: np.ndarray
) -> None:
    check("order", order, np.uint32, (order.size,))
    check("counts", counts, np.int32, (INDICES,))
    check("low", low, np.int32, (low.size,))
    check("last", last, np.int32, low.shape)
    check("table_of", table_of, np.uint8, (INDICES,))
    if counts[0] or counts.min() < 0 or counts.sum(dtype=np.int64) != order.size:
        raise ValueError("the counts do not add up to the sorted places")
    if order.max(initial=0) >= max(size, 1) or table_of[counts > 0].max(initial=0) >= max(low.size, 1):
        raise ValueError("a sorted place or a table is out of range")


def symbol_values(
    symbols: np.ndarray, indices: np.ndarray, loc: np.ndarray, centroids: np.ndarray, limit: int = 1 << 16
) -> np.ndarray:
    """i32[n] in units of 2**-6 steps: the levels of symbols in a trellis, on their means, within +-limit.

    Symbols i32[n] and indices u8[n] of a whole part, means loc i32[n] in the same units, centroids i8[K, 4].
    """
    shape = (symbols.size,)
    _check_indices(indices, shape, len(centroids))
    check("symbols", symbols, np.int32, shape)
    check("loc", loc, np.int32, shape)
    check("centroids", centroids, np.int8, (len(centroids), CENTROIDS))
    if not 0 <= limit < 1 << 31:
        raise ValueError(f"the limit {limit} is out of range")
    if library.in_numpy():
        return reference.symbol_values(symbols, indices, loc, centroids, limit)
    values = np.empty(shape, np.int32)
    library.call("symbol_values", "qppppip", symbols.size, symbols, indices, loc, centroids, limit, values)
    return values


def quantise(
    target: np.ndarray,
    indices: np.ndarray,
    loc: np.ndarray,
    centroids: np.ndarray,
    costs: np.ndarray,
    prices: np.ndarray | None = None,
) -> np.ndarray:
    """Rate-distortion optimised symbols i32[n] of target f32[n], in quantisation steps: those of a whole part.

    Means loc i32[n] in units of 2**-6 steps, centroids i8[K, 4], and costs f32[K, 16] of magnitudes, in squared steps:
    the path through the trellis with the least sum of squared errors and costs (Schwarz et al. 2019, "Hybrid video
    coding with trellis-coded quantization").  With prices f32[n], the costs of coefficient i count prices[i] times.
    """
    shape = (target.size,)
    _check_indices(indices, shape, len(costs))
    check("target", target, np.float32, shape)
    check("loc", loc, np.int32, shape)
    check("centroids", centroids, np.int8, (len(costs), CENTROIDS))
    check("costs", costs, np.float32, (len(costs), COSTS))
    if prices is not None:
        check("prices", prices, np.float32, shape)
    if library.in_numpy():
        return reference.quantise(target, indices, loc, centroids, costs, prices)
    symbols = np.empty(shape, np.int32)
    library.call("quantise", "qppppppp", target.size, target, indices, loc, centroids, costs, prices, symbols)
    return symbols


ALL_ALIKE = np.zeros(1, np.uint8)


def count_symbols(
    symbols: np.ndarray, indices: np.ndarray, scales: int, groups: np.ndarray = ALL_ALIKE
) -> tuple[np.ndarray, np.ndarray]:
    """Count coded symbols i32[n] by group and table index; the groups u8[p] of places 0, 1, ... repeat.

    Returns:
        Counts i32[G, scales, 49] of symbols -24..24, and the places u32[l] of the other coded ones.
    """
    _check_indices(indices, symbols.shape, scales)
    check("symbols", symbols, np.int32, (symbols.size,))
    check("groups", groups, np.uint8, (max(1, groups.size),))
    if library.in_numpy():
        return prior.count_symbols(symbols, indices, scales, groups)
    histogram = np.zeros((int(groups.max()) + 1, scales, 2 * SMALL + 1), np.int32)
    large, sizes = np.empty(symbols.size, np.uint32), (scales, groups.size)
    count = library.call("count_symbols", "qppiippp", symbols.size, symbols, indices, *sizes, groups, histogram, large)
    return histogram, large[:count]


def shift_indices(indices: np.ndarray, offsets: np.ndarray, scales: int) -> np.ndarray:
    """Table indices u8[n] shifted by offsets i8[p], which repeat, within 1..scales - 1; 0 stays.  p is 1 to 4096."""
    check("indices", indices, np.uint8, (indices.size,))
    check("offsets", offsets, np.int8, (offsets.size,))
    if not 0 < offsets.size <= PERIOD_MAX or not 1 < scales <= INDICES:
        raise ValueError(f"{offsets.size} offsets, or {scales} scales, are out of range")
    if library.in_numpy():
        return prior.shift_indices(indices, offsets, scales)
    out = np.empty_like(indices)
    library.call("shift_indices", "qpipip", indices.size, indices, offsets.size, offsets, scales - 1, out)
    return out


def _check_indices(indices: np.ndarray, shape: tuple[int, ...], scales: int) -> None:
    check("indices", indices, np.uint8, shape)
    if not 0 < scales <= INDICES or indices.max(initial=0) >= scales:
        raise ValueError("a table index is out of range")


class AnsTables(NamedTuple):
    """Frequency tables for the coder: bounds of table t are bounds[offsets[t] : offsets[t + 1]], from 0 to 2**24."""

    offsets: np.ndarray  # i64[R + 1]
    bounds: np.ndarray  # u32[all entries + R]
    lookup: np.ndarray  # u16[R, 2**10 + 1]: entries by the leading bits of a quantile


def ans_tables(freq: np.ndarray, start: np.ndarray) -> AnsTables:
    """Tables whose frequencies u32 lie end to end, table t from start[t] to start[t + 1].

    Raises ValueError unless each has 1 to 2**16 entries of at least 1 that sum to 2**24.
    """
    start, freq = start.astype(np.int64), freq.astype(np.uint32)
    sizes = np.diff(start)
    if start[0] or start[-1] != len(freq) or (sizes < 1).any() or (sizes > ENTRIES_MAX).any() or (freq < 1).any():
        raise ValueError("frequency tables do not add up to their entries")
    sums = np.cumsum(freq, dtype=np.int64)
    if (sums[start[1:] - 1] != np.arange(1, len(start)) << ANS_BITS).any():
        raise ValueError("a frequency table does not sum to 2**24")
    offsets, tables = start + np.arange(len(start)), np.repeat(np.arange(len(sizes)), sizes)
    bounds = np.zeros(len(freq) + len(sizes), np.uint32)
    bounds[np.arange(1, len(freq) + 1) + tables] = sums - (tables << ANS_BITS)
    if library.in_numpy():
        return AnsTables(offsets, bounds, prior.ans_lookup(offsets, bounds))
    lookup = np.empty((len(sizes), (1 << LOOKUP_BITS) + 1), np.uint16)
    library.call("ans_lookup", "qppp", len(sizes), offsets, bounds, lookup)
    return AnsTables(offsets, bounds, lookup)


class AnsStack(NamedTuple):
    """The stack of section 4 of docs/reference/format.md: memory u64[2] is the state and the number of words in use."""

    memory: np.ndarray
    words: np.ndarray  # u32[room], the next one last


def ans_decode(stack: AnsStack, tables: AnsTables, used: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Positions i32 of runs taken off the stack: counts[r] under table used[r], both i32[r].

    An empty stack yields zeros: a caller checks the counts of untrusted input.
    """
    total = _check_runs(stack, tables, used, counts)
    if library.in_numpy():
        return prior.ans_decode(*stack, used, counts, tables.offsets, tables.bounds)
    positions = np.empty(total, np.int32)
    runs = (used, counts, tables.offsets, tables.bounds, tables.lookup)
    library.call("ans_decode", "ppqpppppp", *stack, len(used), *runs, positions)
    return positions


def ans_encode(stack: AnsStack, tables: AnsTables, positions: np.ndarray, used: np.ndarray, counts: np.ndarray) -> None:
    """Put runs of positions i32 onto the stack, the last one first; the inverse of ans_decode.

    Raises ValueError where a position is not in its table.
    """
    total = _check_runs(stack, tables, used, counts)
    check("positions", positions, np.int32, (total,))
    _check_room(stack, total)
    if library.in_numpy():
        return prior.ans_encode(*stack, positions, used, counts, tables.offsets, tables.bounds)
    runs = (used, counts, tables.offsets, tables.bounds)
    _accept(library.call("ans_encode", "ppqppppqp", *stack, len(used), *runs, total, positions))


def _check_runs(stack: AnsStack, tables: AnsTables, used: np.ndarray, counts: np.ndarray) -> int:
    check("used", used, np.int32, (used.size,))
    check("counts", counts, np.int32, (used.size,))
    _check_stack(stack)
    if used.size and (used.min() < 0 or used.max() >= len(tables.lookup) or counts.min() < 0):
        raise ValueError("a table or a count is out of range")
    return int(counts.sum(dtype=np.int64))


def ans_decode_each(stack: AnsStack, bounds: np.ndarray) -> np.ndarray:
    """Positions i32[n], one under each table of bounds u32[n, K + 1], which rise from 0 to 2**24."""
    _check_stack(stack)
    check("bounds", bounds, np.uint32, (len(bounds), bounds.shape[1]))
    if library.in_numpy():
        return prior.ans_decode_each(*stack, bounds)
    positions = np.empty(len(bounds), np.int32)
    library.call("ans_decode_each", "ppqipp", *stack, len(bounds), bounds.shape[1] - 1, bounds, positions)
    return positions


def ans_encode_each(stack: AnsStack, positions: np.ndarray, bounds: np.ndarray) -> None:
    """The inverse of ans_decode_each; raises ValueError where a position is not in its table."""
    _check_stack(stack)
    check("bounds", bounds, np.uint32, (len(bounds), bounds.shape[1]))
    check("positions", positions, np.int32, (len(bounds),))
    _check_room(stack, len(positions))
    if library.in_numpy():
        return prior.ans_encode_each(*stack, positions, bounds)
    _accept(library.call("ans_encode_each", "ppqipp", *stack, len(bounds), bounds.shape[1] - 1, bounds, positions))


def ans_decode_uniform(stack: AnsStack, count: int, bits: int) -> np.ndarray:
    """Positions i32[count] below 2**bits, bits 1 to 24, all equally likely."""
    _check_stack(stack)
    _check_bits(bits)
    if library.in_numpy():
        return prior.ans_decode_uniform(*stack, count, bits)
    positions = np.empty(count, np.int32)
    library.call("ans_decode_uniform", "ppqip", *stack, count, bits, positions)
    return positions


def ans_encode_uniform(stack: AnsStack, positions: np.ndarray, bits: int) -> None:
    """The inverse of ans_decode_uniform; raises ValueError where a position is out of range."""
    _check_stack(stack)
    _check_bits(bits)
    check("positions", positions, np.int32, (positions.size,))
    _check_room(stack, len(positions))
    if library.in_numpy():
        return prior.ans_encode_uniform(*stack, positions, bits)
    _accept(library.call("ans_encode_uniform", "ppqip", *stack, len(positions), bits, positions))


def _check_stack(stack: AnsStack) -> None:
    check_writable("memory", stack.memory, np.uint64, (2,))
    check("words", stack.words, np.uint32, (stack.words.size,))
    if int(stack.memory[1]) > stack.words.size:
        raise ValueError("the stack counts more words than there are")


def _check_room(stack: AnsStack, count: int) -> None:
    check_writable("words", stack.words, np.uint32, (stack.words.size,))
    if int(stack.memory[1]) + count > stack.words.size:
        raise ValueError("the stack has no room for so many symbols")


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= ANS_BITS:
        raise ValueError(f"{bits} bits, expected 1 to {ANS_BITS}")


def _accept(status: int) -> None:
    if status:
        raise ValueError("a position is not in its table")
