"""Test entropy coding: popping inverts pushing, tables are exact, and sizes follow the tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.symbols import pop_inverts_push, random_tables
from vaecodec.entropy import TOTAL, build, coding, integer_frequencies
from vaecodec.errors import CodecError, FormatError, ModelError


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2, 17, 400]), st.sampled_from([0, 1, 30]))
def test_pop_inverts_push(seed, count, below):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, count=5, entries=60)
    indices = rng.integers(0, 5, count).astype(np.uint8)
    symbols = np.rint(rng.standard_cauchy(count) * 20).clip(-65535, 65535).astype(np.int32)
    symbols[indices == coding.ZERO_TABLE] = 0
    pop_inverts_push(tables, symbols, indices, rng.integers(-90, 90, below).astype(np.int32))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_coded_size_is_close_to_the_information_content(seed):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, count=8, entries=100)
    indices = rng.integers(1, 8, 3000).astype(np.uint8)
    symbols = np.rint(rng.standard_normal(3000) * 30).astype(np.int32)
    data = pop_inverts_push(tables, symbols, indices, np.zeros(0, np.int32))
    bits = tables.bits(symbols, indices)
    # On an empty stack the first entry of a table costs nothing; the zeros of a first escape are such entries.
    assert bits - 64 <= 8 * len(data) <= bits * 1.001 + 64


def test_both_ends_of_every_interval_decode_to_its_entry():
    """A state at either end of the interval of an entry decodes to that entry."""
    rng = np.random.default_rng(7)
    tables = random_tables(rng, count=12, entries=300)
    for table in range(len(tables.low)):
        freq = tables.row(table).astype(np.int64)
        model = coding.categorical(tables.row(table))
        start = np.cumsum(freq) - freq
        for quantile, entry in [*zip(start, range(len(freq))), *zip(start + freq - 1, range(len(freq)))]:  # noqa: B905
            state = (1 << 56) | int(quantile)
            words = np.array([state & 0xFFFFFFFF, state >> 32], "<u4")
            assert coding.reader(words.tobytes()).decode(model, 1)[0] == entry


def test_push_refuses_symbols_that_pop_cannot_return():
    tables = random_tables(np.random.default_rng(0), count=2, entries=9)
    models = coding.Models(tables)
    for symbol, index in ((1, 0), (70000, 1), (-70000, 1)):
        with pytest.raises(CodecError):
            coding.push(coding.writer(), np.array([symbol], np.int32), np.array([index], np.uint8), models)


@pytest.mark.parametrize("data", [b"abc", b"\x01\0\0\0\0\0\0\0"])
def test_reader_refuses_invalid_words(data):
    with pytest.raises(FormatError):
        coding.reader(data)


def test_escapes_out_of_range_are_refused():
    tables = random_tables(np.random.default_rng(3), count=2, entries=9)
    models = coding.Models(tables)
    coder = coding.writer()
    escaped = np.array([2**30], "<i4").view(np.uint8).astype(np.int32)
    coder.encode_reverse(escaped, models.bytes)
    coder.encode_reverse(np.array([tables.last[1]], np.int32), models[1])
    with pytest.raises(FormatError):
        coding.pop(coding.reader(coding.words(coder)), np.array([1], np.uint8), models)


def test_integer_frequencies_keep_every_entry_and_sum_exactly():
    masses = np.array([0.7, 1e-12, 0.2999, 0.0])
    freq = integer_frequencies(masses)
    assert freq.sum() == TOTAL and freq.min() >= 1 and len(freq) == 5
    assert np.allclose(freq[:4] / TOTAL, masses, atol=1e-6)


@pytest.mark.parametrize("masses", [[0.5, np.nan], [-0.1, 0.5], [0.9, 0.9]])
def test_integer_frequencies_refuse_invalid_distributions(masses):
    with pytest.raises(ModelError):
        integer_frequencies(np.array(masses))


@pytest.mark.parametrize(
    "frequencies",
    [[(0, np.array([TOTAL], np.uint32))], [(0, np.array([TOTAL, 0], np.uint32))], [(0, np.array([5, 6], np.uint32))]],
)
def test_invalid_tables_are_refused(frequencies):
    with pytest.raises(ModelError):
        build(frequencies)
