"""Test the prior of octaves and of the lowest coefficients: every core equals NumPy, for any strips of rows."""

from __future__ import annotations

import numpy as np
import pytest

from support.native import SHAPES, octave_weights, random_before, random_int32, random_octave, run_octave
from vaecodec.native import library
from vaecodec.native.prior import (
    LOWEST_DISTANCES,
    LOWEST_PARTS,
    Before,
    FirstHalf,
    Lowest,
    cells_of,
    companding_table,
    empty_first,
    empty_second,
    first_half,
    load_lowest,
    load_octave,
    lowest_neighbours,
    lowest_places,
    second_half,
)


@pytest.mark.parametrize("octave", [0, 2, 4])
@pytest.mark.parametrize(("colours", "width"), [(3, 32), (1, 16), (4, 21)])
def test_octaves_are_the_same_by_every_kind(kinds, octave, colours, width):
    rng = np.random.default_rng(octave)
    for shape in SHAPES:
        networks = random_octave(rng, octave, colours, width)
        vector = random_int32(rng, (width,), 2**20)
        before = random_before(rng, networks, shape, octave == 4)
        first_values = random_int32(rng, (*cells_of(shape), 6 * colours))
        with library.use(library.REFERENCE):
            expected = run_octave(networks, vector, before, first_values)
        for kind in kinds:
            with library.use(kind):
                for output, expected_output in zip(
                    run_octave(networks, vector, before, first_values), expected, strict=True
                ):
                    np.testing.assert_array_equal(output, expected_output, err_msg=f"{kind} {shape}")


def test_hostile_values_are_the_same_by_every_kind(kinds):
    """For values beyond all bounds, sums wrap and no behaviour is undefined."""
    rng = np.random.default_rng(0)
    networks, shape = random_octave(rng, 1), (9, 6)
    before = random_before(rng, networks, shape, False)
    ends = np.array([-(2**31), 2**31 - 1], np.int32)
    before = Before(rng.choice(ends, before.low.shape), before.parents, before.passed)
    first_values, vector = rng.choice(ends, (*cells_of(shape), 18)), np.zeros(32, np.int32)
    with library.use(library.REFERENCE):
        expected = run_octave(networks, vector, before, first_values)
    for kind in kinds:
        with library.use(kind):
            for output, expected_output in zip(
                run_octave(networks, vector, before, first_values), expected, strict=True
            ):
                np.testing.assert_array_equal(output, expected_output, err_msg=kind)


def test_strips_make_the_whole(kinds):
    rng = np.random.default_rng(0)
    for kind in (library.REFERENCE, *kinds):
        networks, shape = random_octave(rng, 2), (17, 12)
        vector, before = random_int32(rng, (32,), 200), random_before(rng, networks, shape, False)
        first_values, cells = random_int32(rng, (9, 6, 18)), cells_of(shape)
        with library.use(kind):
            first, second = empty_first(networks, cells), empty_second(networks, cells)
            for strip in ((4, 9), (0, 1), (1, 4)):
                first_half(networks, vector, before, first, strip)
            for strip in ((0, 5), (8, 9), (5, 8)):
                second_half(networks, shape, first.features, first_values, second, strip)
            for output, expected_output in zip(
                (*first, *second), run_octave(networks, vector, before, first_values), strict=True
            ):
                np.testing.assert_array_equal(output, expected_output)


def test_a_strip_leaves_other_rows_alone(kinds):
    rng = np.random.default_rng(0)
    for kind in (library.REFERENCE, *kinds):
        networks, shape = random_octave(rng, 2, colours=1, width=21), (16, 10)
        vector, before = random_int32(rng, (21,), 200), random_before(rng, networks, shape, False)
        out = FirstHalf(*(np.full_like(array, 99) for array in empty_first(networks, cells_of(shape))))
        with library.use(kind):
            first_half(networks, vector, before, out, (3, 5))
        for array in out:
            assert (array[:3] == 99).all() and (array[5:] == 99).all()


def random_lowest(rng: np.random.Generator, colours: int, width: int) -> dict[str, np.ndarray]:
    """Weights of the networks of the lowest coefficients."""
    weights = {}
    for part in range(LOWEST_PARTS - 1):
        shapes = {"in": (10 * colours, width), "middle": (width, width), "out": (width, 2 * colours)}
        for name, shape in shapes.items():
            weights[f"lowest/{part}/{name}/kernel"] = rng.integers(-300, 301, shape).astype(np.int16)
            weights[f"lowest/{part}/{name}/bias"] = rng.integers(-(2**17), 2**17, shape[1]).astype(np.int32)
    return weights


@pytest.mark.parametrize("colours", [1, 3])
def test_the_lowest_are_the_same_by_every_kind(kinds, colours):
    rng = np.random.default_rng(colours)
    network = load_lowest(random_lowest(rng, colours, 12), companding_table(np.arange(1, 300, 3)), 90)
    start = random_int32(rng, (2 * colours,), 2**16)
    for size in ((1, 1), (1, 6), (5, 1), (2, 3), (9, 8), (12, 17)):
        vectors, values = (
            random_int32(rng, (4 * 12,), 2**20),
            [random_int32(rng, (len(places), colours)) for places in lowest_places(*size)],
        )

        def run(size=size, vectors=vectors, values=values):
            lowest, outputs = Lowest(network, size, vectors, start), []
            for part in range(LOWEST_PARTS):
                outputs += lowest.distribution(part)
                lowest.put(part, values[part])
            return [*outputs, lowest.planes()]

        with library.use(library.REFERENCE):
            expected = run()
        assert len(expected) == 2 * LOWEST_PARTS + 1 and expected[-1].shape == (colours, *size)
        for kind in kinds:
            with library.use(kind):
                for output, expected_output in zip(run(), expected, strict=True):
                    np.testing.assert_array_equal(output, expected_output, err_msg=f"{kind} {size}")


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (2, 9), (3, 3), (5, 4), (6, 1), (9, 10)])
def test_the_lowest_are_all_in_one_part_and_lie_between_those_before(shape):
    parts = lowest_places(*shape)
    assert len(parts) == LOWEST_PARTS == 1 + len(LOWEST_DISTANCES)
    assert sorted(np.concatenate(parts).tolist()) == list(range(shape[0] * shape[1]))
    coded = set(parts[0].tolist())
    for places, neighbours in zip(parts[1:], lowest_neighbours(*shape), strict=True):
        assert neighbours.shape == (4, len(places)) and set(neighbours.ravel().tolist()) <= coded
        coded |= set(places.tolist())


@pytest.mark.parametrize("shape", [(2, 2), (3, 9), (6, 6), (9, 2)])
def test_neighbours_of_the_lowest_are_those_of_training(shape):
    tf = pytest.importorskip("tensorflow")
    from vaecodec.training import operations

    levels = np.random.default_rng(0).normal(size=(*shape, 2))
    masks = operations.lowest_masks(*shape)
    for mask, places in zip(masks, lowest_places(*shape), strict=True):
        assert np.array_equal(np.flatnonzero(mask), places)
    parts = zip(lowest_places(*shape)[1:], lowest_neighbours(*shape), strict=True)
    for part, (places, neighbours) in enumerate(parts):
        expected = operations.four_neighbours(tf.constant(levels[None]), part)
        for expected_values, places_of_neighbours in zip(expected, neighbours, strict=True):
            assert np.array_equal(
                expected_values[0].numpy().reshape(-1, 2)[places], levels.reshape(-1, 2)[places_of_neighbours]
            )


def test_what_does_not_fit_is_refused():
    rng = np.random.default_rng(0)
    networks = random_octave(rng, 1)
    before, vector = random_before(rng, networks, (8, 8), False), np.zeros(32, np.int32)
    assert before.parents is not None
    invalid = (
        before._replace(low=before.low[:2]),
        before._replace(low=before.low.astype(np.int64)),
        before._replace(passed=None),
        before._replace(parents=(before.parents[0][:1], before.parents[1][:1])),
        before._replace(low=np.zeros((3, 80, 8), np.int32)),
        before._replace(low=np.zeros((3, 0, 8), np.int32)),
    )
    for arrays in invalid:
        with pytest.raises(ValueError):
            first_half(networks, vector, arrays)
    with pytest.raises(ValueError):
        first_half(networks, vector[:31], before)
    with pytest.raises(ValueError):
        first_half(networks, vector, before, strip=(0, 5))
    with pytest.raises(ValueError):
        second_half(networks, (8, 8), np.zeros((4, 4, 31), np.int16), np.zeros((4, 4, 18), np.int32))
    weights = octave_weights(rng, 1, 3, 32)
    weights["context/1/known/kernel"] = weights["context/1/known/kernel"][:35]
    with pytest.raises(ValueError):
        load_octave(weights, 1, networks.companding, 90)
