"""Gradients of the native core: near those in floats, the same by every kind, and strips make the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vaecodec.model import network
from vaecodec.model.weights import integer_layer
from vaecodec.native import gradients, library
from vaecodec.native.gradients import SymbolTables, block_back
from vaecodec.native.networks import Block, Dense, Depthwise, block, tape_lines
from vaecodec.native.reference.transforms import pixels_of
from vaecodec.native.transforms import FilterWeights, restore, restore_levels
from vaecodec.native.wavelet import octave_halves
from vaecodec.rdo.float_decoder import Node, Reverse, Slot
from vaecodec.rdo.integer_gradients import transposed_block
from vaecodec.rdo.prior_gradients import details_adjoint
from vaecodec.transforms.networks import integer_color_transform
from vaecodec.transforms.wavelet import NORM, float_inverse_dwt_adjoint

SIZES = ((1, 1), (1, 6), (2, 3), (5, 17), (9, 4))
BITS = 11  # activations have the unit 2**-11
PARTS = {"in": 1, "out": 1, "gate": 2, "mix": 1}


def block_weights(rng: np.random.Generator, channels: int) -> dict[str, np.ndarray]:
    """f32 weights of a block "b", whose activations keep their size."""
    weights = {}
    for part, times in PARTS.items():
        shape = channels, times * channels
        weights[f"b/{part}/kernel"] = rng.normal(0, 0.7 / np.sqrt(channels), shape).astype(np.float32)
        weights[f"b/{part}/bias"] = rng.normal(0, 0.2, shape[1]).astype(np.float32)
    weights["b/space/kernel"] = rng.normal(0, 0.3, (3, 3, channels)).astype(np.float32)
    weights["b/space/bias"] = rng.normal(0, 0.2, channels).astype(np.float32)
    return weights


def integer_block(weights: dict[str, np.ndarray]) -> Block:
    layers = {
        part: integer_layer(weights[f"b/{part}/kernel"], weights[f"b/{part}/bias"], BITS, BITS)
        for part in (*PARTS, "space")
    }
    forms = {"in": "relu", "out": "linear", "gate": "gate", "mix": "linear"}
    dense = {part: Dense(*layers[part], forms[part], 32767, BITS) for part in PARTS}
    return Block(dense["in"], Depthwise(*layers["space"], 32767), dense["out"], dense["gate"], dense["mix"])


def taped(layers: Block, x: np.ndarray, strips: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The block of x, and its tape."""
    tape, out = library.memory(tape_lines(x.shape)), np.empty_like(x)
    for strip in strips:
        block(layers, x, out, strip, tape=tape)
    return out, tape


@pytest.mark.parametrize("channels", [1, 3, 16, 33, 80])
def test_blocks_are_near_those_in_floats(kinds, channels):
    rng = np.random.default_rng(channels)
    weights = block_weights(rng, channels)
    layers, back = integer_block(weights), transposed_block(weights, "b", BITS)
    multiplier = rng.integers(0, 9000, channels).astype(np.int32)
    for size in SIZES:
        x, g = rng.normal(0, 1, (2, *size, channels))
        x16, g16 = np.rint(x * 2**BITS).astype(np.int16), np.rint(g * 1000).astype(np.int16)
        ops, slot = Reverse(weights, {}), Slot()
        network.block(ops, "b", Node((x16 / 2**BITS).astype(np.float32), slot))
        ops.back(g16.astype(np.float32))
        expected = slot.gradient * (multiplier / 4096)
        cuts = [0, *sorted(rng.integers(0, size[0] + 1, 2).tolist()), size[0]]
        strips, results = list(pairwise(cuts)), []
        for kind in kinds:
            with library.use(kind):
                for parts in ([(0, size[0])], strips):
                    out, tape = taped(layers, x16, parts)
                    np.testing.assert_array_equal(out, block(layers, x16), kind)
                    result = np.empty_like(g16)
                    for strip in parts:
                        block_back(back, g16, tape, result, multiplier, strip)
                    results.append(result)
        for result in results:
            np.testing.assert_array_equal(result, results[0])
        # Rounding may switch a ReLU.
        assert np.linalg.norm(results[0] - expected) < 0.08 * np.linalg.norm(expected) + 20


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 2), (3, 1), (5, 17), (16, 33)])
def test_the_wavelet_is_that_in_floats(kinds, shape):
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 1000, (2 * shape[0], 2 * shape[1])).astype(np.float32)
    low, subbands = float_inverse_dwt_adjoint(samples[None].astype(np.float64))
    for kind in kinds:
        with library.use(kind):
            planes = np.empty((4, *shape), np.float32)
            scales = (NORM**-2, 1, 1, NORM**2)
            gradients.inverse_dwt_back(samples, scales, planes[0], list(planes[1:]))
        np.testing.assert_allclose(planes[0], low[0], atol=1e-2, err_msg=kind)
        np.testing.assert_allclose(planes[1:], subbands, atol=1e-2, err_msg=kind)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 3), (5, 7), (6, 2), (4, 40)])
def test_planes_become_halves_and_details_planes(kinds, shape):
    rng = np.random.default_rng(1)
    planes, scales = rng.normal(size=(9, *shape)).astype(np.float32), rng.normal(size=9).astype(np.float32)
    with library.use(library.REFERENCE):
        expected = octave_halves(planes * scales[:, None, None])
    for kind in kinds:
        with library.use(kind):
            halves = [np.ones(half.shape, np.float32) for half in expected]
            gradients.add_to_halves(planes, scales, halves[0], halves[1])
            plane = np.ones(shape, np.float32)
            gradients.details_back(planes[0], plane)
        for half, other in zip(halves, expected, strict=True):
            np.testing.assert_allclose(half, 1 + other, atol=1e-5, err_msg=kind)
        np.testing.assert_allclose(plane, 1 + details_adjoint(planes[:1])[0], atol=1e-5, err_msg=kind)


def symbol_tables(rng: np.random.Generator) -> SymbolTables:
    start, low, last = np.zeros((3, 256), np.int32)
    last[:40], low[:40] = rng.integers(0, 9, 40), rng.integers(-4, 1, 40)
    start[1:40] = np.cumsum(last[:39] + 1)
    entries = rng.uniform(0, 20, int((start + last).max()) + 1).astype(np.float32)
    return SymbolTables(entries, entries[start + np.clip(-low, 0, last)], start, low, last)


@pytest.mark.parametrize("size", [0, 1, 255, 1000])
def test_bits_and_moves_are_those_of_numpy(kinds, size):
    rng = np.random.default_rng(size)
    tables, indices = symbol_tables(rng), rng.integers(0, 40, size).astype(np.uint8)
    symbols = (rng.integers(-9, 10, size) * rng.integers(0, 2, size)).astype(np.int32)
    counted = (symbols == 0) | (indices != 0)
    places = tables.start[indices] + np.clip(symbols - tables.low[indices], 0, tables.last[indices])
    bits, outliers = float(tables.entries[places][counted].sum(dtype=np.float64)), size - int(counted.sum())
    first, targets, slopes = rng.normal(0, 2, (3, size)).astype(np.float32)
    values = rng.integers(-300, 300, size).astype(np.int32)
    moved = np.clip(targets + 0.25 * (values / 64 - 0.5 * slopes - targets), first - 1, first + 1)
    for kind in kinds:
        with library.use(kind):
            result = gradients.symbol_bits(symbols, indices, tables)
            assert result == (pytest.approx(bits, rel=1e-5), outliers), kind
            out = targets.copy()
            gradients.descend(out, first, values, slopes, 0.5, 0.25, 1.0)
            np.testing.assert_allclose(out, moved, atol=1e-5, err_msg=kind)


def test_errors_are_those_within_the_image(kinds):
    rng = np.random.default_rng(3)
    levels = rng.integers(-9000, 9000, (9, 40, 3)).astype(np.int16)
    pixels = rng.integers(0, 256, levels.shape, np.uint8)
    expected = np.zeros(levels.shape)
    expected[:7, :33] = (levels / 64 + 127.5 - pixels)[:7, :33]
    shown = np.zeros(levels.shape, int)
    shown[:7, :33] = (pixels_of(levels).astype(int) - pixels)[:7, :33]
    for kind in kinds:
        with library.use(kind):
            error, squares = np.empty_like(levels), np.empty(9)
            for rows in ((0, 4), (4, 9)):
                gradients.level_errors(levels, pixels, (7, 33), 0.25, error, squares, rows)
        np.testing.assert_allclose(error / 16, expected, atol=0.04, err_msg=kind)
        np.testing.assert_array_equal(squares, np.square(shown).sum((1, 2)), err_msg=kind)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_filters_have_levels_and_an_adjoint(kinds, channels):
    rng = np.random.default_rng(channels)
    shape = (20, 40, channels)
    samples, other = (rng.integers(-2000, 2000, shape).astype(np.int16) for _ in range(2))
    for array in (samples, other):  # what is beyond the edges has no part in it
        array[:4], array[-4:], array[:, :4], array[:, -4:] = 0, 0, 0, 0
    others = rng.integers(-60, 61, 2 * channels * (channels > 1))
    arrays = rng.integers(-60, 61, (1, 9)), np.array([9]), np.zeros(0), others
    weights = FilterWeights(integer_color_transform(channels), *(np.asarray(part, np.int32) for part in arrays))
    with library.use(library.REFERENCE):
        expected = np.empty_like(samples)
        restore_levels(samples, weights, expected, (0, 20))
    for kind in kinds:
        with library.use(kind):
            levels, back = np.empty_like(samples), np.empty_like(other)
            for rows in ((0, 7), (7, 20)):
                restore_levels(samples, weights, levels, rows)
                restore_levels(other, weights, back, rows, adjoint=True)
            np.testing.assert_array_equal(levels, expected, kind)
            np.testing.assert_array_equal(np.clip((levels.astype(int) + 8192) >> 6, 0, 255), restore(samples, weights))
        assert np.abs(levels - samples).max() > 100, kind
        there, here = (float(np.vdot(a.astype(float), b)) for a, b in ((levels, other), (samples, back)))
        size = np.linalg.norm(levels.astype(float)) * np.linalg.norm(other.astype(float))
        assert abs(there - here) < 2e-3 * size, kind


def test_arrays_that_do_not_fit_are_refused(kinds):
    weights = block_weights(np.random.default_rng(0), 4)
    layers, back = integer_block(weights), transposed_block(weights, "b", BITS)
    x, tape = np.zeros((4, 5, 4), np.int16), np.zeros(64, np.uint8)
    planes, half = np.zeros((9, 4, 4), np.float32), np.zeros((2, 2, 18), np.float32)
    plane, tables = planes[0], symbol_tables(np.random.default_rng(0))
    with library.use(kinds[-1]):
        whole = library.memory(tape_lines(x.shape))
        wrong = (
            lambda: block(layers, x, tape=tape),
            lambda: block_back(back, x, tape, np.empty_like(x), None, (0, 4)),
            lambda: block_back(back, x, whole, x, None, (0, 4)),
            lambda: block_back(back, x, whole, np.empty_like(x), None, (0, 5)),
            lambda: block_back(back, x, whole, np.empty_like(x), np.ones(3, np.int32), (0, 4)),
            lambda: gradients.inverse_dwt_back(plane[:3], (1, 1, 1, 1), plane[:1], [plane[:1]] * 3),
            lambda: gradients.inverse_dwt_back(plane, (1, 1, 1, 1), plane[:2], [plane[:2, :2]] * 3),
            lambda: gradients.add_to_halves(planes, np.ones(8, np.float32), half, half),
            lambda: gradients.add_to_halves(planes[:, :, ::2], np.ones(9, np.float32), half, half),
            lambda: gradients.details_back(plane, np.zeros((4, 5), np.float32)),
            lambda: gradients.symbol_bits(np.zeros(3, np.int32), np.zeros(2, np.uint8), tables),
            lambda: tables._replace(start=tables.start + 200).check(np.float32),
            lambda: gradients.descend(plane[0].copy(), plane[0], np.zeros(3, np.int32), plane[0], 1, 1, 1),
        )
        for call in wrong:
            with pytest.raises(ValueError):
                call()
