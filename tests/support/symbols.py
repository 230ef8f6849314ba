"""Make random tables and stacks of symbols for tests, and check laws that hold for every table and symbol."""

from __future__ import annotations

import numpy as np

from vaecodec.entropy import TOTAL, Tables, build, coding
from vaecodec.entropy.coding import OUTLIER_FLAG
from vaecodec.model.file import Model
from vaecodec.prior import Distributions, decode_tile, encode_tile


def random_tables(rng: np.random.Generator, count: int, entries: int) -> Tables:
    """Return `count` tables of 2 to `entries` random frequencies, and the table of bytes."""
    frequencies = []
    for _ in range(count):
        n = int(rng.integers(2, entries + 1))
        weights = rng.exponential(size=n) ** rng.integers(1, 6)
        freq = np.maximum(1, np.floor(weights / weights.sum() * (TOTAL - n))).astype(np.int64)
        freq[np.argmax(freq)] += TOTAL - freq.sum()
        frequencies.append((int(rng.integers(-50, 50)), freq.astype(np.uint32)))
    frequencies.append((0, np.full(256, 1 << 16, np.uint32)))
    return build(frequencies)


def pop_inverts_push(tables: Tables, symbols: np.ndarray, indices: np.ndarray, below: np.ndarray) -> bytes:
    """Check that popping returns the pushed symbols and restores the stack below; return the words of the full stack.

    Args:
        indices: the table index of each symbol.
        below: bytes that are pushed first.
    """
    models = coding.Models(tables)
    coder = coding.writer()
    coding.push(coder, below, np.full(len(below), len(tables.low) - 2, np.uint8), models)
    before = coding.words(coder)
    coding.push(coder, symbols, indices, models)
    words = coding.words(coder)
    reader = coding.reader(words)
    assert np.array_equal(coding.pop(reader, indices, models), symbols)
    assert coding.words(reader) == before
    return words


def decoding_inverts_encoding(
    model: Model, cells: tuple[int, int], quality_index: int, rng: np.random.Generator
) -> None:
    """Check that decoding a tile returns the symbols and values of the encoder, for any symbols."""

    def choose(part: int, distributions: Distributions) -> np.ndarray:
        indices = distributions.indices
        spread = 3 * rng.standard_normal(indices.shape) * 40 ** rng.random(indices.shape)
        symbols = np.rint(np.clip(spread, -60000, 60000)).astype(np.int32)
        symbols[(indices == coding.ZERO_TABLE) & (rng.random(indices.shape) < 0.9)] = 0
        return symbols

    coded = encode_tile(model.prior, model.models, cells, quality_index, choose)
    decoded: list[np.ndarray] = []
    values = decode_tile(
        model.prior, model.models, cells, quality_index, coded.payload, coded.crc, observe=decoded.append
    )
    assert all(np.array_equal(a, b) for a, (b, _) in zip(decoded, coded.parts, strict=True))
    assert np.array_equal(values.low, coded.values.low)
    for halves, expected_halves in zip(values.halves, coded.values.halves, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(halves, expected_halves, strict=True))
    assert values.low.shape == (model.config.channels, *cells)


def outlier_stack(models: coding.Models, numbers: list[int], flag: int = 1) -> np.ndarray:
    """Return the words of a stack from which a decoder pops a flag and then these numbers of outliers."""
    coder = coding.writer()
    coding.push_numbers(coder, np.array(numbers), models)
    coding.push(coder, np.array([flag], np.int32), np.array([OUTLIER_FLAG], np.uint8), models)
    return coding.words(coder)


# (numbers, flag) that no encoder writes for five symbols, of which the first, second and fourth have table index 0.
INVALID_OUTLIERS = {
    "a flag of 2": ([1, 0, 1], 2),
    "a flag below 0": ([1, 0, 1], -65535),
    "a count of 0": ([0], 1),
    "a count below 0": ([-1, 0, 1], 1),
    "a count above the number of positions": ([4, 0, 1, 1, 1, 3, 1, 4, 1], 1),
    "a position below 0": ([1, -1, 1], 1),
    "a position beyond the end": ([1, 5, 1], 1),
    "a position with another table index": ([1, 2, 1], 1),
    "a position twice": ([2, 1, 1, 1, 2], 1),
    "positions that decrease": ([2, 3, 1, 1, 1], 1),
    "a symbol of 0": ([1, 0, 0], 1),
    "a symbol out of range": ([1, 0, 65536], 1),
    "the lowest integer": ([1, 0, -(2**31)], 1),
}
