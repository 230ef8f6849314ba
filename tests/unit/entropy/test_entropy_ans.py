"""Test the coder: every core writes and reads the same words as constriction."""

import numpy as np
import pytest

from support.symbols import random_tables
from vaecodec.entropy import TOTAL, AnsCoder, Categorical, CategoricalFamily, Tables, Uniform, coding
from vaecodec.model.file import load_model
from vaecodec.native import library
from vaecodec.native import symbols as native

BITS = (1, 4, 16, 24)
UNMOVED = np.arange(256, dtype=np.uint8)


@pytest.fixture(scope="module")
def shipped() -> Tables:
    return load_model("small").models.tables


def each_core(kinds):
    """Yield each core while it is in use, NumPy first."""
    for kind in ("numpy", *kinds):
        with library.use(kind):
            yield kind


def random_words(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(1, 2**32, count, dtype=np.uint32)


def sizes_of(tables: Tables) -> np.ndarray:
    return np.diff(tables.start)


def random_runs(rng: np.random.Generator, tables: Tables, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of tables i32[r] in random order, and counts i32[r], some of them 0."""
    used = rng.permutation(len(tables.low)).astype(np.int32)
    return used, rng.integers(0, longest + 1, len(used), dtype=np.int32)


def random_positions(rng: np.random.Generator, tables: Tables, used: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Positions i32, half of them drawn from the tables and half from all positions alike."""
    parts = []
    for table, count in zip(used, counts, strict=True):
        freq = tables.row(table)
        likely = rng.choice(len(freq), count, p=freq / TOTAL)
        parts.append(np.where(rng.random(count) < 0.5, likely, rng.integers(0, len(freq), count)))
    return np.concatenate(parts).astype(np.int32)


def constriction_encodes(tables: Tables, positions: np.ndarray, used: np.ndarray, counts: np.ndarray) -> np.ndarray:
    coder, ends = coding.writer(), np.cumsum(counts)
    for table, end, count in zip(used[::-1], ends[::-1], counts[::-1], strict=True):
        coder.encode_reverse(positions[end - count : end], coding.categorical(tables.row(table)))
    return coder.get_compressed()


def check_runs(kinds, tables: Tables, used: np.ndarray, counts: np.ndarray, positions: np.ndarray) -> None:
    expected = constriction_encodes(tables, positions, used, counts)
    for _ in each_core(kinds):
        coder_tables, coder = native.ans_tables(tables.freq, tables.start), AnsCoder()
        coder.encode_runs(coder_tables, positions, used, counts)
        np.testing.assert_array_equal(coder.get_compressed(), expected)
        assert coder.num_words() == len(expected)
        reader = AnsCoder(expected)
        np.testing.assert_array_equal(reader.decode_runs(coder_tables, used, counts), positions)
        assert reader.is_empty()


@pytest.mark.parametrize("longest", [0, 1, 9, 90])
def test_runs_of_random_tables_equal_constriction(kinds, longest):
    rng = np.random.default_rng(longest)
    for tables_count, entries in ((1, 2), (5, 30), (20, 900)):
        tables = random_tables(rng, tables_count, entries)
        used, counts = random_runs(rng, tables, longest)
        check_runs(kinds, tables, used, counts, random_positions(rng, tables, used, counts))


def test_runs_of_shipped_tables_equal_constriction(kinds, shipped):
    rng = np.random.default_rng(1)
    used, counts = random_runs(rng, shipped, 40)
    check_runs(kinds, shipped, used, counts, random_positions(rng, shipped, used, counts))
    check_runs(kinds, shipped, used, 1 + 0 * counts, shipped.last[used])


def test_rare_entries_may_share_a_slot_of_the_lookup(kinds):
    """Thousands of entries have frequency 1, before, between and after likely entries."""
    rng = np.random.default_rng(2)
    freq = np.ones(60000, np.uint32)
    freq[[9, 30000, 59999]] = [TOTAL // 4, TOTAL // 2, TOTAL // 4 - 59997]
    tables = Tables(freq, np.array([0, len(freq)]), np.zeros(1, np.int32))
    positions = rng.integers(0, len(freq), 300).astype(np.int32)
    positions[:8] = 0, 8, 9, 10, 29999, 30001, 59998, 59999
    check_runs(kinds, tables, np.zeros(1, np.int32), np.array([300], np.int32), positions)


def test_both_ends_of_every_interval_decode_to_its_entry(kinds):
    rng = np.random.default_rng(3)
    tables = random_tables(rng, count=6, entries=300)
    for _ in each_core(kinds):
        for table in range(len(tables.low)):
            freq = tables.row(table).astype(np.int64)
            model, ends = Categorical(tables.row(table)), np.cumsum(freq)
            for entry in rng.permutation(len(freq))[:60]:
                for quantile in (ends[entry] - freq[entry], ends[entry] - 1):
                    state = 1 << 56 | int(quantile)
                    words = np.array([state & 0xFFFFFFFF, state >> 32], np.uint32)
                    assert AnsCoder(words).decode(model, 1) == entry


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_any_words_decode_as_in_constriction(kinds, count):
    """Zeros follow the end of the words."""
    rng = np.random.default_rng(count)
    tables = random_tables(rng, 8, 400)
    for words in (random_words(rng, count), np.full(count, 2**32 - 1, np.uint32), np.ones(count, np.uint32)):
        used, counts = random_runs(rng, tables, 30)
        constriction_reader = coding.reader(words.tobytes())
        expected = [
            constriction_reader.decode(coding.categorical(tables.row(table)), count)
            for table, count in zip(used.tolist(), counts.tolist(), strict=True)
        ]
        for _ in each_core(kinds):
            coder = AnsCoder(words)
            positions = coder.decode_runs(native.ans_tables(tables.freq, tables.start), used, counts)
            np.testing.assert_array_equal(positions, np.concatenate(expected))
            assert coder.is_empty() == constriction_reader.is_empty()
            np.testing.assert_array_equal(coder.get_compressed(), constriction_reader.get_compressed())


def test_uniform_and_categorical_symbols_alternate(kinds):
    rng = np.random.default_rng(4)
    freq = random_tables(rng, 1, 50).row(0)
    calls = [rng.integers(0, 1 << bits, 70).astype(np.int32) for bits in BITS]
    calls.append(rng.integers(0, len(freq), 70).astype(np.int32))
    constriction_writer = coding.writer()
    for symbols, model in zip(calls, [*map(coding.uniform, BITS), coding.categorical(freq)], strict=True):
        constriction_writer.encode_reverse(symbols, model)
    expected = constriction_writer.get_compressed()
    for _ in each_core(kinds):
        models, coder = [*(Uniform(1 << bits) for bits in BITS), Categorical(freq)], AnsCoder()
        for symbols, model in zip(calls, models, strict=True):
            coder.encode_reverse(symbols, model)
        np.testing.assert_array_equal(coder.get_compressed(), expected)
        for symbols, model in zip(calls[::-1], models[::-1], strict=True):
            np.testing.assert_array_equal(coder.decode(model, len(symbols)), symbols)
        assert coder.is_empty()


@pytest.mark.parametrize("entries", [2, 3, 100])
@pytest.mark.parametrize("count", [0, 1, 60])
def test_symbols_with_individual_tables_equal_constriction(kinds, entries, count):
    rng = np.random.default_rng(entries * count)
    freq = np.maximum(1, (rng.dirichlet(np.full(entries, 0.3), count) * (TOTAL - entries)).astype(np.int64))
    freq[np.arange(count), freq.argmax(1)] += TOTAL - freq.sum(1)
    symbols = rng.integers(0, entries, count).astype(np.int32)
    constriction_writer, words = coding.writer(), random_words(rng, count // 3)
    coding.push_each(constriction_writer, symbols, freq)
    for _ in each_core(kinds):
        coder, family = AnsCoder(), CategoricalFamily()
        coder.encode_reverse(symbols, family, freq)
        np.testing.assert_array_equal(coder.get_compressed(), constriction_writer.get_compressed())
        np.testing.assert_array_equal(coder.decode(family, freq), symbols)
        expected = coding.pop_each(coding.reader(words.tobytes()), freq)
        np.testing.assert_array_equal(AnsCoder(words).decode(family, freq), expected)


def push_part(symbols: np.ndarray, indices: np.ndarray, tables: Tables, table_map: np.ndarray) -> np.ndarray:
    """Encode the symbols of a part; escapes are pushed first, because they are read last."""
    order, counts = native.sort_by_table(indices)
    positions, escapes, uncodable = native.gather_symbols(symbols, order, counts, tables.low, tables.last, table_map)
    assert not uncodable
    coder_tables, coder, used = native.ans_tables(tables.freq, tables.start), AnsCoder(), np.flatnonzero(counts)
    escaped = symbols[order[escapes]].astype("<i4").view(np.uint8).astype(np.int32)
    coder.encode_reverse(escaped, Categorical(tables.row(len(tables.low) - 1)))
    coder.encode_runs(coder_tables, positions, table_map[used].astype(np.int32), counts[used])
    return coder.get_compressed()


def pop_part(words: np.ndarray, indices: np.ndarray, tables: Tables, table_map: np.ndarray) -> np.ndarray:
    order, counts = native.sort_by_table(indices)
    coder_tables, coder, used = native.ans_tables(tables.freq, tables.start), AnsCoder(words), np.flatnonzero(counts)
    positions = coder.decode_runs(coder_tables, table_map[used].astype(np.int32), counts[used])
    symbols, escapes = native.place_symbols(len(indices), positions, order, counts, tables.low, tables.last, table_map)
    numbers = coder.decode(Categorical(tables.row(len(tables.low) - 1)), 4 * len(escapes))
    symbols[order[escapes]] = numbers.astype(np.uint8).view("<i4")
    assert coder.is_empty()
    return symbols


@pytest.mark.parametrize("offset", [0, -3, 7])
def test_kernels_code_a_part_like_constriction(kinds, shipped, offset):
    rng, scales = np.random.default_rng(5), len(shipped.low) - 1
    table_map = np.clip(np.arange(256) + offset, 1, scales - 1).astype(np.uint8)
    indices = rng.integers(0, scales, 3000, dtype=np.uint8)
    symbols = np.rint(rng.standard_cauchy(3000) * 9).clip(-65535, 65535).astype(np.int32) * (indices != 0)
    coder = coding.writer()
    coding.push(coder, symbols, indices, coding.Models(shipped), table_map)
    for _ in each_core(kinds):
        words = push_part(symbols, indices, shipped, table_map)
        np.testing.assert_array_equal(words, coder.get_compressed())
        np.testing.assert_array_equal(pop_part(words, indices, shipped, table_map), symbols)


def test_invalid_symbols_do_not_change_the_stack(kinds):
    freq = np.array([[1, 2, TOTAL - 3]])
    models = (Categorical(freq[0]), None), (Uniform(4), None), (CategoricalFamily(), freq.repeat(2, 0))
    for _ in each_core(kinds):
        coder = AnsCoder(np.array([5, 6, 7], np.uint32))
        for model, frequencies in models:
            for symbols in ([0, 4], [-1, 0], [2**31 - 1, 1]):
                with pytest.raises(ValueError, match="not in its table"):
                    coder.encode_reverse(np.array(symbols, np.int32), model, frequencies)
        np.testing.assert_array_equal(coder.get_compressed(), [5, 6, 7])


@pytest.mark.parametrize("freq", [[1, TOTAL], [0, TOTAL], [TOTAL - 1], [], [2**31, 2**31, TOTAL]])
def test_invalid_distributions_are_refused(freq):
    with pytest.raises(ValueError):
        Categorical(np.array(freq, np.uint32))
    with pytest.raises(ValueError):
        AnsCoder().decode(CategoricalFamily(), np.array([freq]))


def test_invalid_arguments_are_refused(shipped):
    tables, coder = native.ans_tables(shipped.freq, shipped.start), AnsCoder()
    ones = np.ones(1, np.int32)
    for used, counts in ((len(shipped.low) * ones, ones), (-ones, ones), (ones, -ones), (ones, np.ones(2, np.int32))):
        with pytest.raises(ValueError):
            coder.decode_runs(tables, used, counts)
    for size in (0, 1, 3, 1 << 25):
        with pytest.raises(ValueError):
            Uniform(size)
    with pytest.raises(ValueError):
        AnsCoder(np.array([1, 0], np.uint32))
    stack = native.AnsStack(np.array([0, 9], np.uint64), np.zeros(8, np.uint32))
    with pytest.raises(ValueError, match="more words"):
        native.ans_decode_uniform(stack, 1, 8)
    with pytest.raises(ValueError, match="room"):
        native.ans_encode_uniform(native.AnsStack(stack.memory * 0, stack.words), np.zeros(9, np.int32), 8)
