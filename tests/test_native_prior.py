"""The prior of octaves and of the lowest coefficients: as the engine of today, and the same by every kind."""

from __future__ import annotations

import numpy as np
import pytest
from native_cases import SHAPES, both, random_before, random_octave, random_weights, values

from vaecodec import octaves, pyramid
from vaecodec.native import library
from vaecodec.native.lowest import PARTS, Lowest, load_network
from vaecodec.native.prior import (
    Before,
    FirstHalf,
    Octave,
    cells_of,
    companding_table,
    empty_first,
    empty_second,
    first_half,
    load_octave,
    second_half,
)


@pytest.mark.parametrize("octave", [0, 2, 4])
@pytest.mark.parametrize(("colours", "width"), [(3, 32), (1, 16), (4, 21)])
def test_octaves_are_the_same_by_every_kind(core_kinds, octave, colours, width):
    rng = np.random.default_rng(octave)
    for shape in SHAPES:
        networks = random_octave(rng, octave, colours, width)
        vector = values(rng, (width,), 2**20)
        before = random_before(rng, networks, shape, octave == 4)
        known = values(rng, (*cells_of(shape), 6 * colours))
        with library.use(library.REFERENCE):
            expected = both(networks, vector, before, known)
        for kind in core_kinds:
            with library.use(kind):
                for found, right in zip(both(networks, vector, before, known), expected, strict=True):
                    np.testing.assert_array_equal(found, right, err_msg=f"{kind} {shape}")


def test_hostile_values_are_the_same_by_every_kind(core_kinds):
    """Beyond all bounds of values: sums wrap, and nothing is undefined."""
    rng = np.random.default_rng(0)
    networks, shape = random_octave(rng, 1), (9, 6)
    before = random_before(rng, networks, shape, False)
    ends = np.array([-(2**31), 2**31 - 1], np.int32)
    before = Before(rng.choice(ends, before.low.shape), before.parents, before.passed)
    known, vector = rng.choice(ends, (*cells_of(shape), 18)), np.zeros(32, np.int32)
    with library.use(library.REFERENCE):
        expected = both(networks, vector, before, known)
    for kind in core_kinds:
        with library.use(kind):
            for found, right in zip(both(networks, vector, before, known), expected, strict=True):
                np.testing.assert_array_equal(found, right, err_msg=kind)


def test_strips_make_the_whole(core_kinds):
    rng = np.random.default_rng(0)
    for kind in (library.REFERENCE, *core_kinds):
        networks, shape = random_octave(rng, 2), (17, 12)
        vector, before = values(rng, (32,), 200), random_before(rng, networks, shape, False)
        known, cells = values(rng, (9, 6, 18)), cells_of(shape)
        with library.use(kind):
            one, two = empty_first(networks, cells), empty_second(networks, cells)
            for strip in ((4, 9), (0, 1), (1, 4)):
                first_half(networks, vector, before, one, strip)
            for strip in ((0, 5), (8, 9), (5, 8)):
                second_half(networks, shape, one.features, known, two, strip)
            for found, right in zip((*one, *two), both(networks, vector, before, known), strict=True):
                np.testing.assert_array_equal(found, right)


def test_a_strip_leaves_other_rows_alone(core_kinds):
    rng = np.random.default_rng(0)
    for kind in (library.REFERENCE, *core_kinds):
        networks, shape = random_octave(rng, 2, colours=1, width=21), (16, 10)
        vector, before = values(rng, (21,), 200), random_before(rng, networks, shape, False)
        out = FirstHalf(*(np.full_like(array, 99) for array in empty_first(networks, cells_of(shape))))
        with library.use(kind):
            first_half(networks, vector, before, out, (3, 5))
        for array in out:
            assert (array[:3] == 99).all() and (array[5:] == 99).all()


def test_octaves_are_those_of_today(core_kinds, small):
    """Every network of the shipped model, in the generator that codes with them today."""
    rng, prior = np.random.default_rng(0), small.model.prior
    levels = octaves.Levels(*(field[20] for field in prior.levels))
    weights = {name.removeprefix("integer/"): value for name, value in small.model.arrays.items()}
    table, compand = companding_table(prior.companding), octaves.Compander(prior.companding)
    for octave in range(pyramid.OCTAVES, -1, -1):
        networks = load_octave(weights, octave, table, prior.scales)
        shape = (13, 22) if octave else (26, 30)
        before = random_before(rng, networks, shape, octave == pyramid.OCTAVES)
        vector = levels.bias_of(octave, networks.features).astype(np.int32)
        steps = octaves.both_halves(
            prior, octaves.Networks(prior, levels), octave, compand, _today(networks, before, shape)
        )
        rows, loc = next(steps)
        one = first_half(networks, vector, before)
        np.testing.assert_array_equal(one.rows.reshape(rows.shape), rows)
        np.testing.assert_array_equal(one.loc.reshape(loc.shape), loc)
        symbols = (rng.laplace(0, 3, rows.shape).astype(np.int32) * (rows > 0)).astype(np.int32)
        known = octaves.values_of(prior, symbols, rows, loc).reshape(one.loc.shape).astype(np.int32)
        rows, loc = steps.send(symbols)
        two = second_half(networks, shape, one.features, known)
        np.testing.assert_array_equal(two.rows.reshape(rows.shape), rows)
        np.testing.assert_array_equal(two.loc.reshape(loc.shape), loc)
        with pytest.raises(StopIteration) as end:
            steps.send(symbols)
        if two.passed is not None:
            np.testing.assert_array_equal(octaves.shuffle(two.passed, 2), end.value.value[1])


def _today(networks: Octave, before: Before, shape: tuple[int, int]) -> octaves.Before:
    if before.parents is None or before.passed is None:
        cells = cells_of(shape)
        return octaves.Before(before.low, np.zeros((9, *cells), np.float32), np.empty((*cells, 0), np.float32))
    places = [2 * side for side in before.passed.shape[:2]]
    halves = (half.astype(np.float32) for half in before.parents)
    parents = pyramid.from_halves(*halves, (places[0], places[1]))
    return octaves.Before(before.low, parents, octaves.shuffle(before.passed.astype(np.float32), 2))


def test_the_lowest_are_those_of_today(core_kinds, small):
    rng, prior = np.random.default_rng(0), small.model.prior
    levels = octaves.Levels(*(field[20] for field in prior.levels))
    weights = {name.removeprefix("integer/"): value for name, value in small.model.arrays.items()}
    network = load_network(weights, companding_table(prior.companding), prior.scales)
    for size in ((1, 1), (1, 6), (5, 1), (2, 3), (9, 8), (12, 17)):
        today = octaves.lowest(prior, levels, octaves.Compander(prior.companding), size)
        lowest = Lowest(network, size, levels.lowest, levels.start)
        question = next(today)
        for part in range(PARTS):
            rows, loc = question
            found = lowest.distribution(part)
            np.testing.assert_array_equal(found[0], rows)
            np.testing.assert_array_equal(found[1], loc)
            symbols = rng.laplace(0, 20, rows.shape).astype(np.int32)
            lowest.put(part, octaves.values_of(prior, symbols, rows, loc).astype(np.int32))
            try:
                question = today.send(symbols)
            except StopIteration as end:
                np.testing.assert_array_equal(lowest.planes(), end.value)
                assert part == PARTS - 1


def test_what_does_not_fit_is_refused():
    rng = np.random.default_rng(0)
    networks = random_octave(rng, 1)
    before, vector = random_before(rng, networks, (8, 8), False), np.zeros(32, np.int32)
    assert before.parents is not None
    wrong = (
        before._replace(low=before.low[:2]),
        before._replace(low=before.low.astype(np.int64)),
        before._replace(passed=None),
        before._replace(parents=(before.parents[0][:1], before.parents[1][:1])),
        before._replace(low=np.zeros((3, 80, 8), np.int32)),
        before._replace(low=np.zeros((3, 0, 8), np.int32)),
    )
    for one in wrong:
        with pytest.raises(ValueError):
            first_half(networks, vector, one)
    with pytest.raises(ValueError):
        first_half(networks, vector[:31], before)
    with pytest.raises(ValueError):
        first_half(networks, vector, before, strip=(0, 5))
    with pytest.raises(ValueError):
        second_half(networks, (8, 8), np.zeros((4, 4, 31), np.int16), np.zeros((4, 4, 18), np.int32))
    weights = random_weights(rng, 1, 3, 32)
    weights["context/1/known/kernel"] = weights["context/1/known/kernel"][:35]
    with pytest.raises(ValueError):
        load_octave(weights, 1, networks.companding, 90)
