"""The synthesis in fixed point: integers that no machine can have otherwise, close to the network in floating point."""

import math

import numpy as np
import pytest
from conftest import picture

from vaecodec import fixed, tiles
from vaecodec.container import parse
from vaecodec.errors import ModelError
from vaecodec.fixed import BITS, Fixed, Synthesis


def test_pixels_are_those_of_the_network_but_for_rounding(small):
    pixels = picture(90, 120)
    for quality in (5, 60, 100):
        data = small.encode(pixels, quality)
        exact = small.decode_exact(data) * 255.0 / (1 << BITS)
        assert np.abs(np.clip(exact, 0, 255) - small.decode(data)).max() < 0.6


def test_tiles_make_no_difference(tiny):
    """What a tile sees of its neighbours suffices: pixels are those of the whole picture at once."""
    pixels = picture(150, 200)
    data = tiny.encode(pixels, 70, tile=64)
    parsed = parse(data)
    grid = np.zeros((10, 13, tiny.model.config.latents), np.float32)
    for number, tile in enumerate(parsed.tiles):
        top, left = 4 * (number // 4), 4 * (number % 4)
        cells = (min(4, 10 - top), min(4, 13 - left))
        payload = data[tile.offset : tile.offset + tile.length]
        y = tiles.decode(tiny.model.prior, cells, parsed.header.step, payload, tile.crc)
        grid[top : top + cells[0], left : left + cells[1]] = y
    whole = Synthesis(tiny.model)(grid, parsed.header.step)[:150, :200] + (1 << (BITS - 1))
    assert np.array_equal(tiny.decode_exact(data), whole)


def test_gains_are_those_of_the_model(small):
    for step in (0, 1, 127, 128, 500, 895, 896):
        for name in ("inverse_gain", "synthesis/fine"):
            units = fixed._vector(small.model, name, step)
            assert np.array_equal(units, np.rint(units))
            gains = units / 2.0**fixed.GAIN_BITS
            np.testing.assert_allclose(gains, small.model.vector(name, step), rtol=3e-6, atol=1e-6)


def test_layers_are_exact(small):
    """Against integers of Python, at the bound of activations."""
    model, rng = small.model, np.random.default_rng(0)
    layers = fixed._layers(model)
    ops = Fixed(layers, np.full(model.config.fine, 5.0))
    for name in ("synthesis/coarse0/in", "synthesis/skip"):
        kernel, bias = layers[name].kernel, layers[name].bias
        x = rng.choice([-fixed.MOST, fixed.MOST], (2, 3, len(kernel)))
        made = ops.dense(name, x, kernel.shape[1])
        for at in ((0, 0), (1, 2)):
            total = sum(int(a) * int(k) for a, k in zip(x[at], kernel[:, 7], strict=True)) + int(bias[7])
            assert made[(*at, 7)] == min(max((total + 2**15) >> 16, -(2**24 - 1)), 2**24 - 1)
    assert math.isfinite(max(np.abs(layer.kernel).max() for layer in layers.values()))


def test_weights_that_do_not_fit_are_model_errors(tiny):
    model, name = tiny.model, "weights/synthesis/latents/kernel"
    for wrong in (model.arrays[name][:, :-1], model.arrays[name][:-1], model.arrays[name][0]):
        with pytest.raises(ModelError):
            Synthesis(model._replace(arrays={**model.arrays, name: wrong}))
    with pytest.raises(ModelError):
        Synthesis(model._replace(arrays={k: v for k, v in model.arrays.items() if k != name}))
    gains = np.full_like(model.arrays["anchors/inverse_gain"], 30)
    with pytest.raises(ModelError):
        Synthesis(model._replace(arrays={**model.arrays, "anchors/inverse_gain": gains}))
