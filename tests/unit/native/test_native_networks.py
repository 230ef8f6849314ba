"""Test layers of integer networks: NumPy equals the floats of `network.Exact`, and every core equals NumPy."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from support.native import SIZES, WIDTHS, random_block, random_dense, random_depthwise, random_int16
from vaecodec.model import network
from vaecodec.native import library
from vaecodec.native.networks import Block, Dense, Depthwise, block, dense, depthwise


def expect_equal(kinds: tuple[str, ...], compute) -> None:  # type: ignore[no-untyped-def]
    """Check that compute() returns the same on every core as with NumPy."""
    with library.use(library.REFERENCE):
        expected = compute()
    for kind in kinds:
        with library.use(kind):
            result = compute()
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected, err_msg=kind)


@pytest.mark.parametrize("form", ["linear", "relu", "gate", "sums"])
@pytest.mark.parametrize("limit", [1023, 32767])
def test_dense_is_the_same_by_every_kind(kinds, form, limit):
    rng = np.random.default_rng(limit)
    for inputs in (1, 2, 7, 50, 97):
        for channels in WIDTHS:
            layer = random_dense(rng, inputs, channels * (1 + (form == "gate")), limit, form=form, gate=limit % 9)
            x = random_int16(rng, (int(rng.integers(1, 40)), inputs), 32767)
            expect_equal(kinds, lambda layer=layer, x=x: dense(layer, x))


@pytest.mark.parametrize("limit", [1023, 32767])
def test_what_is_added_to_dense_is_the_same_by_every_kind(kinds, limit):
    rng = np.random.default_rng(limit + 1)
    for channels in WIDTHS:
        layer, x = random_dense(rng, 9, channels, limit), random_int16(rng, (4, 7, 9), 32767)
        vector = rng.integers(-(2**20), 2**20, channels) >> rng.integers(0, 20, channels)
        residual, multiplier = random_int16(rng, (4, 7, channels), limit), rng.integers(0, 32768, channels)
        expect_equal(kinds, lambda a=(layer, x), v=vector: dense(*a, vector=v))
        expect_equal(kinds, lambda a=(layer, x), r=residual: dense(*a, residual=r))
        expect_equal(kinds, lambda a=(layer, x), r=residual, m=multiplier: dense(*a, residual=r, multiplier=m))


def test_more_cells_than_are_computed_at_once(kinds):
    rng = np.random.default_rng(0)
    for channels in (5, 32):
        layer, x = random_dense(rng, 6, channels), random_int16(rng, (700, 6), 1023)
        expect_equal(kinds, lambda layer=layer, x=x: dense(layer, x))


def test_no_cells(kinds):
    layer = random_dense(np.random.default_rng(0), 6, 5)
    expect_equal(kinds, lambda: dense(layer, np.empty((0, 6), np.int16)))


@pytest.mark.parametrize("limit", [1023, 32767])
def test_depthwise_is_the_same_by_every_kind(kinds, limit):
    rng = np.random.default_rng(limit)
    for size in SIZES:
        for channels in WIDTHS:
            layer, x = random_depthwise(rng, channels, limit), random_int16(rng, (*size, channels), 32767)
            expect_equal(kinds, lambda layer=layer, x=x: depthwise(layer, x))


@pytest.mark.parametrize("limit", [1023, 32767])
def test_blocks_are_the_same_by_every_kind(kinds, limit):
    rng = np.random.default_rng(limit)
    for size in SIZES:
        for channels in WIDTHS[:: 1 if limit == 1023 else 2]:
            layers, x = random_block(rng, channels, limit), random_int16(rng, (*size, channels), limit)
            multiplier = rng.integers(0, 32768, channels)
            expect_equal(kinds, lambda b=layers, x=x: block(b, x))
            expect_equal(kinds, lambda b=layers, x=x, m=multiplier: block(b, x, multiplier=m))


def test_strips_make_the_whole(kinds):
    rng = np.random.default_rng(0)
    for kind in (library.REFERENCE, *kinds):
        for channels in (5, 32):
            layers, x = random_block(rng, channels, 1023), random_int16(rng, (9, 6, channels), 1023)
            with library.use(kind):
                expected, out = block(layers, x), np.zeros_like(x)
                for strip in ((4, 9), (0, 1), (1, 3), (3, 4)):
                    before = out.copy()
                    block(layers, x, out, strip)
                    before[slice(*strip)] = expected[slice(*strip)]
                    np.testing.assert_array_equal(out, before)


def test_a_block_is_that_of_exact_floats():
    """exact.Exact has a shift of 9 for all layers."""
    rng, channels = np.random.default_rng(0), 32
    dense_layers, weights = random_block(rng, channels, 1023), {}
    layers = Block(*(replace(layer, shifts=np.array(9), **_six(layer)) for layer in dense_layers))
    for name, layer in zip(("in", "space", "out", "gate", "mix"), layers, strict=True):
        weights[f"block/{name}/kernel"], weights[f"block/{name}/bias"] = layer.kernel, layer.bias
    x = random_int16(rng, (6, 7, channels), 1023)
    ops = network.Exact(network.prepare(weights))
    np.testing.assert_array_equal(block(layers, x), network.block(ops, "block", x.astype(np.float32)))


def _six(layer: Dense | Depthwise) -> dict[str, int]:
    return {"gate": 6} if isinstance(layer, Dense) else {}


def test_threads_that_pack_a_layer_at_once_share_one(kinds, monkeypatch):
    """The memory of a returned pointer is never replaced."""
    layer = random_dense(np.random.default_rng(0), 8, 8)
    meeting, call = threading.Barrier(3), library.call

    def call_together(name: str, *arguments: object) -> int:
        if name == "pack_dense":
            meeting.wait(30)  # nothing is packed when each thread begins
        return call(name, *arguments)

    monkeypatch.setattr(library, "call", call_together)
    with library.use(kinds[-1]), ThreadPoolExecutor(3) as pool:
        pointers = list(pool.map(lambda _: layer.packed, range(3)))
        assert len({*pointers, layer.packed}) == 1


def test_sums_beyond_int32_are_refused():
    with pytest.raises(ValueError, match="can reach"):
        Dense(np.full((100, 1), 32767, np.int16), 0, 9)
    with pytest.raises(ValueError, match="can reach"):
        Dense(np.ones((1, 1), np.int16), 2**31 - 1024, 30)
    with pytest.raises(ValueError, match="can reach"):
        Depthwise(np.full((3, 3, 1), 32767, np.int16), 0, 9, limit=32767)


def test_parameters_out_of_range_are_refused():
    kernel = np.ones((4, 3), np.int16)
    for options in ({"shifts": 31}, {"shifts": -1}, {"limit": 0}, {"limit": 32768}, {"form": "gate"}, {"form": "x"}):
        with pytest.raises(ValueError):
            Dense(kernel, 0, **{"shifts": 9, **options})
    layer, x = Dense(kernel, 0, 9), np.zeros((2, 4), np.int16)
    with pytest.raises(ValueError):
        dense(layer, x.astype(np.int32))
    with pytest.raises(ValueError):
        dense(layer, x[:, :3])
    with pytest.raises(ValueError):
        dense(layer, x, residual=np.zeros((2, 4), np.int16))
    with pytest.raises(ValueError):
        dense(layer, x, residual=np.zeros((2, 3), np.int16), multiplier=np.array([0, 1, 32768]))
    with pytest.raises(ValueError):
        block(random_block(np.random.default_rng(0), 3, 1023), np.zeros((4, 4, 3), np.int16), strip=(2, 5))
