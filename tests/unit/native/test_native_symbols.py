"""Test the kernels of symbols: every core equals NumPy and plain formulas."""

import numpy as np
import pytest

from support.symbols import random_tables
from vaecodec.entropy import coding
from vaecodec.model.file import load_model
from vaecodec.native import library
from vaecodec.native import symbols as native
from vaecodec.prior.context_model import Distributions
from vaecodec.rdo import quantization

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


def test_symbol_values(kinds, prior):
    rng = np.random.default_rng(3)
    for size in SIZES:
        indices, symbols = sparse_indices(rng, size, prior.scales), integers(rng, size, 1)
        loc = integers(rng, size, 300)
        values = same(kinds, native.symbol_values, symbols, indices, loc, prior.centroids)
        in_range = np.abs(symbols.astype(np.int64)) <= coding.SYMBOL_MAX
        in_range &= np.abs(loc.astype(np.int64)) <= 1 << 30  # beyond, sums wrap
        exact, means = symbols[in_range].astype(object), loc[in_range].astype(object)
        nudges = prior.centroids[indices[in_range], (np.abs(symbols[in_range]) > 1).astype(int)].astype(object)
        expected = np.clip(64 * exact + np.sign(symbols[in_range]) * nudges + means, -(2**16), 2**16)
        np.testing.assert_array_equal(values[in_range], expected.astype(np.int32))


def test_symbol_values_of_extreme_centroids(kinds):
    rng = np.random.default_rng(4)
    centroids = rng.choice(np.array([-128, 127, 0], np.int8), (256, 2))
    symbols, indices = integers(rng, 3001, 1), rng.integers(0, 256, 3001, dtype=np.uint8)
    same(kinds, native.symbol_values, symbols, indices, integers(rng, 3001, 10**5), centroids)


def by_costs(target, indices, loc, thresholds):
    """Quantise in float64: towards 0 if the residual is below the threshold of the nearest integer."""
    residual = target.astype(np.float32) - loc.astype(np.float32) * np.float32(1 / 64)
    nearest = np.rint(np.abs(residual))
    inside = nearest <= quantization.THRESHOLDS
    level = np.where(inside, nearest, 0).astype(int)
    lower = (nearest > 0) & (np.abs(residual) < thresholds[indices, level])
    return np.sign(residual) * (nearest - lower), inside & (indices > 0)


def test_quantise(kinds, prior, shipped_tables):
    rng, rule = np.random.default_rng(5), quantization.quantizer(prior, shipped_tables)
    special = [np.nan, np.inf, -np.inf, 0.5, -0.5, 2.5, -2.5, 1e-40, -0.0, 65535.5, 2**23 + 1, 3e38]
    for size in SIZES:
        target = (rng.standard_normal(size) * 10 ** rng.uniform(-2, 2, size)).astype(np.float32)
        halves = rng.random(size) < 0.2
        target[halves] = np.rint(2 * target[halves]) / 2
        chosen = rng.random(size) < 0.1
        target[chosen] = rng.choice(special, int(chosen.sum()))
        indices = sparse_indices(rng, size, prior.scales)
        loc = np.where(rng.random(size) < 0.5, 0, integers(rng, size, 64)).astype(np.int32)
        quantised = same(kinds, native.quantise, target, indices, loc, rule.thresholds)
        np.testing.assert_array_equal(rule(target, Distributions(indices, loc)), quantised)
        with np.errstate(invalid="ignore"):
            expected, decided = by_costs(target, indices, loc, rule.thresholds)
        np.testing.assert_array_equal(quantised[decided], expected[decided])


def test_quantise_at_the_thresholds(kinds, prior, shipped_tables):
    """All cores decide alike for the floats next to a threshold."""
    rule = quantization.quantizer(prior, shipped_tables)
    edges = (rule.thresholds[1:, 1:]).ravel()
    indices = np.repeat(np.arange(1, prior.scales, dtype=np.uint8), quantization.THRESHOLDS)
    target = np.concatenate([edges, np.nextafter(edges, np.float32(99)), np.nextafter(edges, np.float32(-99))])
    indices, loc = np.tile(indices, 3), np.zeros(len(target), np.int32)
    quantised = same(kinds, native.quantise, target, indices, loc, rule.thresholds)
    expected, decided = by_costs(target, indices, loc, rule.thresholds)
    np.testing.assert_array_equal(quantised[decided], expected[decided])
    at, above, below = quantised.reshape(3, -1)
    assert ((at == above) & (at >= below)).all() and (at > below).mean() > 0.2


def test_count_symbols_leads_to_the_costs_of_scale_offsets(kinds, prior, shipped_tables):
    rng, tables, scales = np.random.default_rng(6), shipped_tables, prior.scales
    small, numbers = np.meshgrid(np.arange(-coding.SMALL, coding.SMALL + 1), np.arange(scales))
    costs_of = tables.bits_of_each(small, numbers)
    for size in SIZES:
        indices = sparse_indices(rng, size, scales)
        symbols = np.clip(integers(rng, size), -coding.SYMBOL_MAX, coding.SYMBOL_MAX)
        histogram, large = same(kinds, native.count_symbols, symbols, indices, scales)
        shifted = np.clip(
            np.arange(scales) + np.arange(coding.MIN_OFFSET, coding.MAX_OFFSET + 1)[:, None], 1, scales - 1
        )
        costs = (costs_of @ histogram.T.astype(np.float64))[shifted, np.arange(scales)].sum(1)
        if len(large):
            costs += tables.bits_of_each(symbols[large], shifted[:, indices[large]]).sum(1)
        offsets = range(coding.MIN_OFFSET, coding.MAX_OFFSET + 1)
        expected = [tables.bits(symbols, coding.shift_tables(indices, offset, scales)) for offset in offsets]
        np.testing.assert_allclose(costs, expected, rtol=1e-9)


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
        native.quantise(loc, indices, loc, np.zeros((2, 16), np.float32))
    with pytest.raises(ValueError, match="index"):
        native.count_symbols(symbols, indices, 1)
