"""Test the kernels of symbols: every core equals NumPy and plain formulas."""

import itertools

import numpy as np
import pytest

from support.symbols import random_tables
from vaecodec import rdo
from vaecodec.entropy import coding, scale_offsets
from vaecodec.model.file import load_model
from vaecodec.native import library
from vaecodec.native import symbols as native
from vaecodec.prior import Distributions

SIZES = [0, 1, 7, 8, 9, 31, 32, 33, 64, 250, 3001]
EXTREMES = np.array([-(2**31), 2**31 - 1, -65536, -65535, 65535, 65536, -25, -24, 24, 25, -1, 0, 1], np.int32)
UNMOVED = np.arange(256, dtype=np.uint8)


@pytest.fixture(scope="module")
def prior():
    return load_model("small").prior


@pytest.fixture(scope="module")
def shipped_tables():
    return load_model("small").models.tables


def same(kinds, function, *arguments):
    """Check that every core returns the result of NumPy, and return it."""
    with library.use("numpy"):
        expected = function(*arguments)
    for kind in kinds:
        with library.use(kind):
            result = function(*arguments)
        expected_parts, result_parts = (part if isinstance(part, tuple) else (part,) for part in (expected, result))
        for expected_array, array in zip(expected_parts, result_parts, strict=True):
            assert np.asarray(array).dtype == np.asarray(expected_array).dtype, kind
            np.testing.assert_array_equal(array, expected_array, kind)
    return expected


def sparse_indices(rng: np.random.Generator, size: int, tables: int) -> np.ndarray:
    """u8 below `tables`, with runs of zeros."""
    indices = rng.integers(0, tables, size, dtype=np.uint8)
    indices[np.repeat(rng.random(size // 10 + 1) < rng.random(), 10)[:size]] = 0
    return indices


def integers(rng: np.random.Generator, size: int, scale: float = 5) -> np.ndarray:
    """i32: mostly small, many zeros and a few extremes."""
    numbers = np.rint(rng.standard_normal(size) * scale * 10 ** rng.uniform(-1, 1, size)).astype(np.int32)
    return np.where(rng.random(size) < 0.05, rng.choice(EXTREMES, size), numbers).astype(np.int32)


@pytest.mark.parametrize("tables", [1, 2, 90, 256])
def test_sort_by_table(kinds, tables):
    rng = np.random.default_rng(tables)
    for size in SIZES:
        indices = sparse_indices(rng, size, tables)
        order, counts = same(kinds, native.sort_by_table, indices)
        expected = np.argsort(indices, kind="stable")
        np.testing.assert_array_equal(order, expected[np.count_nonzero(indices == 0) :])
        np.testing.assert_array_equal(counts[1:], np.bincount(indices, minlength=256)[1:])
        assert counts[0] == 0


def test_sort_by_table_of_indices_without_a_zero(kinds):
    for size in SIZES:
        order, _ = same(kinds, native.sort_by_table, np.full(size, 255, np.uint8))
        np.testing.assert_array_equal(order, np.arange(size))


def test_gather_and_place_are_inverses_but_for_escapes(kinds):
    rng = np.random.default_rng(1)
    tables = random_tables(rng, count=40, entries=90)
    for size in SIZES:
        indices, table_map = sparse_indices(rng, size, 40), rng.integers(0, 40, 256, dtype=np.uint8)
        symbols = integers(rng, size, 20) * (indices != 0)
        order, counts = native.sort_by_table(indices)
        arguments = order, counts, tables.low, tables.last, table_map
        positions, escapes, uncodable = same(kinds, native.gather_symbols, symbols, *arguments)
        assert uncodable == np.count_nonzero(np.abs(symbols.astype(np.int64)) > coding.SYMBOL_MAX)
        placed, placed_escapes = same(kinds, native.place_symbols, size, positions, *arguments)
        np.testing.assert_array_equal(placed_escapes, escapes)
        placed[order[escapes]] = symbols[order[escapes]]
        np.testing.assert_array_equal(placed, symbols)


def test_symbols_that_cannot_be_coded_are_counted(kinds):
    tables = random_tables(np.random.default_rng(2), count=3, entries=9)
    indices = np.array([0, 1, 0, 2, 1, 0], np.uint8)
    for symbols, expected in (([0, 1, 0, 0, -3, 0], 0), ([1, 1, 0, 0, 0, -1], 2), ([0, 65536, 1, -65535, 0, 0], 2)):
        arguments = *native.sort_by_table(indices), tables.low, tables.last, UNMOVED
        assert same(kinds, native.gather_symbols, np.array(symbols, np.int32), *arguments)[2] == expected


NEXT_STATE = (0, 2, 5, 6, 1, 3, 4, 7), (1, 3, 4, 7, 0, 2, 5, 6)  # docs/reference/format.md, section 5.2


def level(size: int, state: int, centroids: np.ndarray) -> int:
    """The magnitude of a value by the definition of the format."""
    quantiser = state % 2
    return 45 * (2 * size - quantiser) + int(centroids[2 * quantiser + (size > 1)]) if size else 0


def defined_values(symbols, indices, loc, centroids):
    """The values of a part by the definition of the format."""
    values, state, count = [], 0, 0
    for symbol, index, mean in zip(symbols.tolist(), indices.tolist(), loc.tolist(), strict=True):
        size = min(abs(symbol), coding.SYMBOL_MAX)
        state = 0 if count % 256 == 0 else state
        magnitude = level(size, state, centroids[index]) if index else 64 * size
        values.append(max(-(2**16), min(mean + (magnitude if symbol > 0 else -magnitude), 2**16)))
        if index:
            state, count = NEXT_STATE[size % 2][state], count + 1
    return np.array(values, np.int32)


def test_symbol_values(kinds, prior):
    rng = np.random.default_rng(3)
    for size in SIZES:
        indices, symbols = sparse_indices(rng, size, prior.scales), integers(rng, size, 1)
        loc = np.clip(integers(rng, size, 300), -(2**30), 2**30)  # beyond, sums wrap
        values = same(kinds, native.symbol_values, symbols, indices, loc, prior.centroids)
        np.testing.assert_array_equal(values, defined_values(symbols, indices, loc, prior.centroids))


def test_symbol_values_of_long_runs_of_zeros(kinds, prior):
    """Whole blocks without a symbol advance the state, across the ends of strips as well."""
    rng = np.random.default_rng(8)
    for _ in range(20):
        indices = (rng.random(2000) < rng.random()).astype(np.uint8)
        symbols = np.where(rng.random(2000) < 0.01, rng.integers(-3, 4, 2000), 0).astype(np.int32) * indices
        arguments = symbols, indices, np.zeros(2000, np.int32), prior.centroids
        values = same(kinds, native.symbol_values, *arguments)
        np.testing.assert_array_equal(values, defined_values(*arguments))


def test_symbol_values_of_extreme_centroids(kinds):
    rng = np.random.default_rng(4)
    centroids = rng.choice(np.array([-128, 127, 0], np.int8), (256, 4))
    symbols, indices = integers(rng, 3001, 1), rng.integers(0, 256, 3001, dtype=np.uint8)
    loc = np.clip(integers(rng, 3001, 10**5), -(2**30), 2**30)
    values = same(kinds, native.symbol_values, symbols, indices, loc, centroids)
    np.testing.assert_array_equal(values, defined_values(symbols, indices, loc, centroids))


def test_quantise_is_equal_everywhere(kinds, prior, shipped_tables):
    rng, rule = np.random.default_rng(5), rdo.quantizer(prior, shipped_tables)
    special = [np.nan, np.inf, -np.inf, 0.5, -0.5, 2.5, -2.5, 1e-40, -0.0, 65535.5, 2**23 + 1, 3e38]
    for size in [*SIZES, 255, 256, 257, 512, 5000]:
        target = (rng.standard_normal(size) * 10 ** rng.uniform(-2, 2, size)).astype(np.float32)
        halves = rng.random(size) < 0.2
        target[halves] = np.rint(2 * target[halves]) / 2
        places = rng.random(size) < 0.1
        target[places] = rng.choice(special, int(places.sum()))
        indices = sparse_indices(rng, size, prior.scales)
        loc = np.where(rng.random(size) < 0.5, 0, integers(rng, size, 64)).astype(np.int32)
        with np.errstate(invalid="ignore", over="ignore"):
            symbols = same(kinds, native.quantise, target, indices, loc, rule.centroids, rule.costs)
        np.testing.assert_array_equal(rule(target, Distributions(indices, loc)), symbols)
        assert np.abs(symbols).max(initial=0) <= coding.SYMBOL_MAX


def path_cost(sizes, magnitudes, tables, rule):
    """Squared errors and costs, in float64, of a path from state 0."""
    total, state = 0.0, 0
    for size, magnitude, table in zip(sizes, magnitudes, tables, strict=True):
        error = size - level(magnitude, state, rule.centroids[table]) / 64
        total += error * error + float(rule.costs[table, magnitude])
        state = NEXT_STATE[magnitude % 2][state]
    return total


def test_quantise_finds_the_path_of_least_cost(prior, shipped_tables):
    """Of residuals as their tables expect them; for others, symbols nearer to 0 than the next ones may cost less."""
    rng, rule = np.random.default_rng(6), rdo.quantizer(prior, shipped_tables)
    for _ in range(6):
        tables = rng.integers(12, 30, 6)
        sizes = np.abs(rng.normal(0, 0.11 * 1.11 ** (tables + 4.0))).clip(0, 4).astype(np.float32)
        chosen = np.abs(
            native.quantise(sizes, tables.astype(np.uint8), np.zeros(6, np.int32), rule.centroids, rule.costs)
        )
        paths = itertools.product(range(5), repeat=6)
        least = min(path_cost(sizes, path, tables, rule) for path in paths)
        assert path_cost(sizes, chosen.tolist(), tables, rule) == pytest.approx(least, abs=1e-4)


def test_a_bit_that_costs_nothing_leaves_the_least_error(prior, shipped_tables):
    rng, rule = np.random.default_rng(7), rdo.quantizer(prior, shipped_tables, 0.0)
    target = rng.uniform(-20, 20, 5000).astype(np.float32)
    distributions = Distributions(
        rng.integers(1, 60, 5000, dtype=np.uint8), rng.integers(-99, 99, 5000, dtype=np.int32)
    )
    values = native.symbol_values(rule(target, distributions), *distributions, prior.centroids)
    error = values / 64 - target
    assert np.sqrt(np.mean(np.square(error))) < 0.4  # a quantiser alone has 90 / 64 / sqrt(12) = 0.406


def test_count_symbols_leads_to_the_costs_of_scale_offsets(kinds, prior, shipped_tables):
    rng, tables, scales = np.random.default_rng(6), shipped_tables, prior.scales
    shifted = scale_offsets.shifted_scales(scales)
    bits_of_small = scale_offsets.bits_of_small_symbols(tables, shifted)
    for size in SIZES:
        indices = sparse_indices(rng, size, scales)
        symbols = np.clip(integers(rng, size), -coding.SYMBOL_MAX, coding.SYMBOL_MAX)
        histogram, large = same(kinds, native.count_symbols, symbols, indices, scales)
        costs = bits_of_small @ histogram.ravel().astype(np.float64)
        if len(large):
            costs += tables.bits_of_each(symbols[large], shifted[:, indices[large]]).sum(1)
        offsets = range(scale_offsets.MIN_OFFSET, scale_offsets.MAX_OFFSET + 1)
        expected = [tables.bits(symbols, scale_offsets.shift_tables(indices, offset, scales)) for offset in offsets]
        np.testing.assert_allclose(costs, expected, rtol=1e-9)


@pytest.mark.parametrize("period", [1, 5, 18, 96])
def test_groups_of_places_repeat(kinds, period):
    rng = np.random.default_rng(period)
    groups = rng.integers(0, min(period, 6), period, dtype=np.uint8)
    groups[0] = min(period, 6) - 1
    for size in SIZES:
        indices, symbols = sparse_indices(rng, size, 90), integers(rng, size)
        histogram, _ = same(kinds, native.count_symbols, symbols, indices, 90, groups)
        assert histogram.shape == (min(period, 6), 90, 49)
        for group, counts in enumerate(histogram):
            here = np.resize(groups, size) == group
            alone, _ = native.count_symbols(symbols[here].copy(), indices[here].copy(), 90)
            np.testing.assert_array_equal(counts, alone[0])


@pytest.mark.parametrize("period", [1, 5, 18, 96, 4096])
def test_shifted_indices_are_in_range_and_zero_stays(kinds, period):
    rng = np.random.default_rng(period)
    for scales in (2, 90, 256):
        offsets = rng.integers(-12, 11, period).astype(np.int8)
        for size in (*SIZES, 9000):
            indices = sparse_indices(rng, size, scales)
            shifted = same(kinds, native.shift_indices, indices, offsets, scales)
            expected = [
                min(max(int(index) + int(offsets[n % period]), 1), scales - 1) if index else 0
                for n, index in enumerate(indices)
            ]
            assert shifted.tolist() == expected
    for wrong in (np.zeros(0, np.int8), np.zeros(4097, np.int8)):
        with pytest.raises(ValueError, match="range"):
            native.shift_indices(np.ones(3, np.uint8), wrong, 90)


def test_wrong_arrays_are_refused(kinds, prior):
    symbols, indices, loc = np.zeros(3, np.int32), np.ones(3, np.uint8), np.zeros(3, np.int32)
    order, counts = native.sort_by_table(indices)
    low, last = np.zeros(2, np.int32), np.ones(2, np.int32)
    with pytest.raises(ValueError, match="int32"):
        native.sort_by_table(symbols)
    with pytest.raises(ValueError, match="contiguous"):
        native.sort_by_table(np.ones(6, np.uint8)[::2])
    with pytest.raises(ValueError, match="counts"):
        native.place_symbols(3, symbols, order, counts + 1, low, last, UNMOVED)
    with pytest.raises(ValueError, match="out of range"):
        native.place_symbols(2, symbols, order, counts, low, last, UNMOVED)
    with pytest.raises(ValueError, match="out of range"):
        native.gather_symbols(symbols, order, counts, low, last, UNMOVED + np.uint8(1))
    with pytest.raises(ValueError, match="index"):
        native.symbol_values(symbols, indices, loc, prior.centroids[:1])
    with pytest.raises(ValueError, match="target"):
        native.quantise(loc, indices, loc, prior.centroids[:2], np.zeros((2, 16), np.float32))
    with pytest.raises(ValueError, match="centroids"):
        native.quantise(loc.astype(np.float32), indices, loc, prior.centroids[:1], np.zeros((2, 16), np.float32))
    with pytest.raises(ValueError, match="index"):
        native.count_symbols(symbols, indices, 1)
