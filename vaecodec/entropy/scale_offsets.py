"""Choose and code scale offsets, which shift the scales of all symbols of a part, or of its bands.

The scales of an image may be larger or smaller than its prior predicts from neighbourhoods: more grain, or less.  So an
encoder may shift the scale index of every symbol in a part, or by other amounts in its bands:

    a bit, whether it does; then before any symbol for each part
        its offset + 8, four bits;  and where the part has bands
        a bit, whether they have offsets of their own;  then for each band its offset, less that of the part, + 4

The bands of a part are a pattern u8[p] of numbers from 0 on: coefficients 0, 1, ... have them in turn, again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vaecodec.entropy import Tables
from vaecodec.entropy.coding import SAME, ZERO_TABLE, Coder, Part, uniform
from vaecodec.native.reference.prior import SMALL
from vaecodec.native.symbols import count_symbols, shift_indices
from vaecodec.threads import ONE_THREAD, Threads

OFFSET_BITS, MIN_OFFSET, MAX_OFFSET = 4, -8, 7
BAND_BITS, MOST_BELOW = 3, 4  # of the offset of a band: it is at most so much below that of its part
SAMPLE = 1024  # how many symbols beyond +-24 of a part are sampled

Patterns = Sequence[np.ndarray]  # u8[p] of each part


class Offsets(NamedTuple):
    """The scale offset of a part, and those of its bands where these have their own."""

    part: int = 0
    bands: tuple[int, ...] = ()


def choose_scale_offsets(
    parts: Sequence[Part], patterns: Patterns, tables: Tables, scales: int, threads: Threads = ONE_THREAD
) -> list[Offsets] | None:
    """The offsets of each part that save most; None where all of them save less than they cost."""
    shifted = shifted_scales(scales)
    costs_of, bits_of_small = [np.zeros((1, 1))] * len(parts), bits_of_small_symbols(tables, shifted)

    def estimate(part: int) -> None:
        costs_of[part] = scale_offset_costs(*parts[part], patterns[part], bits_of_small, tables, shifted)

    threads.run(estimate, range(len(parts) - 1, -1, -1))
    offsets, saved = list[Offsets](), -float(OFFSET_BITS * len(parts))
    for costs in costs_of:
        whole = costs.sum(0)
        best, bands = int(np.argmin(whole)) if whole.any() else -MIN_OFFSET, ()
        saved += float(whole[-MIN_OFFSET] - whole[best])
        if len(costs) > 1:
            low = max(best - MOST_BELOW, 0)
            near = costs[:, low : best - MOST_BELOW + (1 << BAND_BITS)]
            more = float(whole[best] - near.min(1).sum()) - BAND_BITS * len(costs)
            saved -= 1
            if more > 0:
                of_bands = np.where(near.any(1), near.argmin(1) + low, best) + MIN_OFFSET
                bands, saved = tuple(of_bands.tolist()), saved + more
        offsets.append(Offsets(best + MIN_OFFSET, bands))
    return offsets if saved > 0 else None


def shifted_scales(scales: int) -> np.ndarray:
    """i64[16, scales]: the table of each index under each offset."""
    return np.clip(np.arange(scales) + np.arange(MIN_OFFSET, MAX_OFFSET + 1)[:, None], 1, scales - 1)


def bits_of_small_symbols(tables: Tables, shifted: np.ndarray) -> np.ndarray:
    """f64[16, scales * 49]: bits of symbols -24..24 of each index under each offset."""
    indices, small = np.meshgrid(np.arange(shifted.shape[1]), np.arange(-SMALL, SMALL + 1), indexing="ij")
    return tables.bits_of_each(small, indices)[shifted].reshape(len(shifted), -1)


def scale_offset_costs(
    symbols: np.ndarray,
    indices: np.ndarray,
    pattern: np.ndarray,
    bits_of_small: np.ndarray,
    tables: Tables,
    shifted: np.ndarray,
) -> np.ndarray:
    """f64[bands, 16]: bits of the coded symbols of each band of a part under each offset.

    Small symbols are counted, and `bits_of_small` f64[16, scales * 49] are theirs.  Of large ones a sample is taken.
    `shifted` i64[16, scales] is the table of each index under each offset.
    """
    counts, large = count_symbols(symbols, indices, shifted.shape[1], pattern)
    costs: np.ndarray = counts.reshape(len(counts), -1).astype(np.float64) @ bits_of_small.T
    sample = large[:: max(1, len(large) // SAMPLE)]
    if len(sample):
        bits = tables.bits_of_each(symbols[sample], shifted[:, indices[sample]])
        bands = pattern[sample % len(pattern)]
        for band, of_band in enumerate(costs):
            of_band += bits[:, bands == band].sum(1) * (len(large) / len(sample))
    return costs


def shift_tables(indices: np.ndarray, offset: int, scales: int) -> np.ndarray:
    """Table indices shifted by a scale offset, within 1..scales - 1; ZERO_TABLE stays."""
    if not offset:
        return indices
    return np.where(indices == ZERO_TABLE, indices, np.clip(indices.astype(np.int16) + offset, 1, scales - 1))


@lru_cache(maxsize=64)
def shifted_tables(offset: int, scales: int) -> np.ndarray:
    """u8[256], not to be changed: the table that codes the symbols of each index under a scale offset."""
    return shift_tables(SAME, offset, scales).astype(np.uint8)


def shifted_indices(
    indices: Sequence[np.ndarray], offsets: Sequence[Offsets], patterns: Patterns, scales: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The table indices u8[n] by which symbols of parts are sorted, and the table u8[256] that codes those of each.

    Where bands have offsets of their own, indices are shifted before they are sorted.
    """
    shifted = []
    for of_part, (part, bands), pattern in zip(indices, offsets, patterns, strict=True):
        if bands:
            shifted.append((shift_indices(of_part, np.array(bands, np.int8)[pattern], scales), SAME))
        else:
            shifted.append((of_part, shifted_tables(part, scales)))
    return shifted


def push_scale_offsets(coder: Coder, offsets: Sequence[Offsets] | None, patterns: Patterns) -> None:
    """Put the scale offsets of all parts on the stack; inverse of pop_scale_offsets."""

    def push(number: int, bits: int) -> None:
        coder.encode_reverse(np.array([number], np.int32), uniform(bits))

    for of_part, pattern in zip(reversed(offsets or ()), reversed(patterns), strict=False):
        for offset in reversed(of_part.bands):
            push(offset - of_part.part + MOST_BELOW, BAND_BITS)
        if pattern.any():
            push(bool(of_part.bands), 1)
        push(of_part.part - MIN_OFFSET, OFFSET_BITS)
    push(offsets is not None, 1)


def pop_scale_offsets(coder: Coder, patterns: Patterns) -> list[Offsets]:
    """Take the scale offsets of parts off the stack."""

    def pop(bits: int, count: int = 1) -> list[int]:
        return [int(number) for number in coder.decode(uniform(bits), count)]

    if not pop(1)[0]:
        return [Offsets()] * len(patterns)
    offsets = []
    for pattern in patterns:
        part, bands = pop(OFFSET_BITS)[0] + MIN_OFFSET, list[int]()
        if pattern.any() and pop(1)[0]:
            bands = [number + part - MOST_BELOW for number in pop(BAND_BITS, int(pattern.max()) + 1)]
        offsets.append(Offsets(part, tuple(bands)))
    return offsets


def scale_offset_bits(offsets: Sequence[Offsets] | None, patterns: Patterns) -> int:
    """Bits of what push_scale_offsets puts on the stack."""
    if offsets is None:
        return 1
    with_bands = sum(bool(pattern.any()) for pattern in patterns)
    return 1 + OFFSET_BITS * len(offsets) + with_bands + BAND_BITS * sum(len(of_part.bands) for of_part in offsets)
