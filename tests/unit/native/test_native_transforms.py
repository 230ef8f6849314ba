"""Test the colour transform and the first and last layers of networks: every core equals NumPy, for any strips."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from vaecodec.native import library
from vaecodec.native import transforms as kernels
from vaecodec.native.networks import Dense
from vaecodec.transforms.networks import integer_color_transform
from vaecodec.transforms.wavelet import Coefficients, empty_coefficients

SIZES = ((1, 1), (1, 3), (2, 1), (3, 2), (2, 5))  # in cells of 16 x 16 pixels
CHANNELS = (1, 2, 3, 4, 7)
LIMIT = 32767
ENDS = np.array([-(2**31), 2**31 - 1, -(2**16), 2**16, 0, 1, -1], np.int32)

Work = Callable[[tuple[int, int]], list[np.ndarray]]  # strip of rows -> arrays of the full size


def narrow(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """i16 within +-32767 of varying magnitude, with both ends among them."""
    numbers = rng.integers(-LIMIT, LIMIT + 1, shape) >> rng.integers(0, 15, shape)
    numbers[rng.random(shape) < 0.05] = rng.choice([-LIMIT, LIMIT])
    return numbers.astype(np.int16)


def wide(rng: np.random.Generator, shape: tuple[int, ...], hostile: bool) -> np.ndarray:
    """i32 within the range of coefficients, or of any value if hostile."""
    most = 2**31 - 1 if hostile else 2**17
    numbers = rng.integers(-most, most + 1, shape) >> rng.integers(0, most.bit_length(), shape)
    numbers[rng.random(shape) < 0.05] = rng.choice(ENDS if hostile else ENDS[2:])
    return numbers.astype(np.int32)


def layer(rng: np.random.Generator, inputs: int, outputs: int) -> Dense:
    """A layer whose weights are as large as its sums allow, or about as large as trained ones."""
    most = min(LIMIT, (2**31 - 2**24) // (inputs * LIMIT)) if rng.random() < 0.5 else 40
    kernel = rng.integers(-most, most + 1, (inputs, outputs))
    bias = rng.integers(-(2**22), 2**22, outputs)
    return Dense(kernel, bias, rng.integers(4, 20, outputs), limit=LIMIT)


def coefficients(rng: np.random.Generator, channels: int, cells: tuple[int, int], hostile: bool) -> Coefficients:
    random_coefficients = empty_coefficients(channels, cells)
    for plane in random_coefficients.planes():
        plane[...] = wide(rng, plane.shape, hostile)
    return random_coefficients


def expect_equal(kinds: tuple[str, ...], height: int, work: Work) -> None:
    """Check that every core equals NumPy, at once and in strips; each row has the same number of lines in an array."""
    with library.use(library.REFERENCE):
        expected = work((0, height))
    edges = [0, *sorted({height // 3, height // 2} - {0}), height]
    for kind in (library.REFERENCE, *kinds):
        with library.use(kind):
            for expected_array, array in zip(expected, work((0, height)), strict=True):
                np.testing.assert_array_equal(array, expected_array, err_msg=kind)
            for strip in pairwise(edges):
                for expected_array, array in zip(expected, work(strip), strict=True):
                    lines = slice(*(len(expected_array) // height * edge for edge in strip))
                    np.testing.assert_array_equal(array[lines], expected_array[lines], err_msg=f"{kind} {strip}")


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("hostile", [False, True])
def test_colours_are_the_same_by_every_kind(kinds, channels, hostile):
    rng, rotation = np.random.default_rng(channels), integer_color_transform(channels)
    for height, width in ((1, 1), (3, 7), (5, 64), (2, 33), (16, 48)):
        planes = wide(rng, (channels, height, width), hostile)
        pixels = rng.integers(0, 256, (height, width, channels), np.uint8)

        def inverse(strip, planes=planes, shape=pixels.shape):
            return [kernels.inverse_colors(planes, rotation, np.zeros(shape, np.int16), strip)]

        def forward(strip, pixels=pixels, shape=planes.shape):
            out = kernels.forward_colors(pixels, rotation, np.zeros(shape, np.int32), strip)
            return [np.ascontiguousarray(out.transpose(1, 2, 0))]

        expect_equal(kinds, height, inverse)
        expect_equal(kinds, height, forward)


@pytest.mark.parametrize("channels", CHANNELS)
def test_colours_come_back(kinds, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 21, channels), np.uint8)
    for kind in (library.REFERENCE, *kinds):
        with library.use(kind):
            planes = np.empty((channels, 16, 21), np.int32)
            kernels.forward_colors(pixels, integer_color_transform(channels), planes, (0, 16))
            out = kernels.inverse_colors(
                planes, integer_color_transform(channels), np.empty(pixels.shape, np.int16), (0, 16)
            )
        # Samples are in units of 2**-14 on a scale of 1 for 255 levels, around the middle.
        np.testing.assert_allclose(out / 2**14 * 255 + 127.5, pixels, atol=0.05)


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_synthesis_is_the_same_by_every_kind(kinds, channels, hostile):
    rng = np.random.default_rng(10 * channels + hostile)
    for h, w in SIZES:
        coarse, fine = int(rng.integers(1, 40)), int(rng.integers(1, 40))
        random_inputs = coefficients(rng, channels, (h, w), hostile)
        latents, enter = layer(rng, 256 * channels, coarse), layer(rng, coarse, 4 * fine)
        skip, leave = layer(rng, 64 * channels, fine), layer(rng, fine, 64 * channels)
        samples, x = narrow(rng, (16 * h, 16 * w, channels)), narrow(rng, (h, w, coarse))
        x_fine, multiplier = narrow(rng, (2 * h, 2 * w, fine)), rng.integers(0, 32768, fine, np.int32)

        def first(strip, latents=latents, random_inputs=random_inputs, shape=x.shape):
            return [kernels.synthesis_coarse(latents, *random_inputs, np.zeros(shape, np.int16), strip)]

        def second(strip, layers=(enter, skip), arrays=(x, samples, multiplier), shape=x_fine.shape):
            return [kernels.synthesis_fine(*layers, *arrays, np.zeros(shape, np.int16), strip)]

        def third(strip, leave=leave, x=x_fine, samples=samples):
            levels, pixels = np.zeros(samples.shape, np.int16), np.zeros(samples.shape, np.uint8)
            alone = np.zeros_like(pixels)
            kernels.synthesis_pixels(leave, x, samples, strip, levels, pixels)
            kernels.synthesis_pixels(leave, x, samples, strip, None, alone)
            np.testing.assert_array_equal(alone, pixels)
            return [levels, pixels]

        expect_equal(kinds, h, first)
        expect_equal(kinds, h, second)
        expect_equal(kinds, 2 * h, third)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_analysis_is_the_same_by_every_kind(kinds, channels):
    rng = np.random.default_rng(channels)
    for h, w in SIZES:
        coarse, fine = int(rng.integers(1, 40)), int(rng.integers(1, 40))
        pixels = rng.integers(0, 256, (16 * h, 16 * w, channels), np.uint8)
        enter, coarser = layer(rng, 64 * channels, fine), layer(rng, 4 * fine, coarse)
        leave, random_inputs = layer(rng, coarse, 256 * channels), coefficients(rng, channels, (h, w), False)
        x, y = narrow(rng, (2 * h, 2 * w, fine)), narrow(rng, (h, w, coarse))
        multiplier = rng.integers(0, 32768, fine, np.int32)

        def first(strip, enter=enter, pixels=pixels, multiplier=multiplier, shape=x.shape):
            return [kernels.analysis_fine(enter, pixels, multiplier, np.zeros(shape, np.int16), strip)]

        def second(strip, coarser=coarser, x=x, shape=y.shape):
            return [kernels.analysis_coarse(coarser, x, np.zeros(shape, np.int16), strip)]

        def third(strip, leave=leave, y=y, random_inputs=random_inputs):
            planes = [plane.copy() for plane in random_inputs.planes()]
            kernels.analysis_latents(leave, y, planes[:-1], planes[-1], strip)
            return [np.ascontiguousarray(plane.transpose(1, 2, 0)) for plane in planes]

        expect_equal(kinds, 2 * h, first)
        expect_equal(kinds, h, second)
        expect_equal(kinds, h, third)


def test_other_rows_are_left_alone(kinds):
    rng = np.random.default_rng(0)
    leave, x, samples = layer(rng, 9, 192), narrow(rng, (6, 4, 9)), narrow(rng, (48, 32, 3))
    for kind in (library.REFERENCE, *kinds):
        levels, pixels = np.full(samples.shape, 99, np.int16), np.full(samples.shape, 99, np.uint8)
        with library.use(kind):
            kernels.synthesis_pixels(leave, x, samples, (2, 3), levels, pixels)
        for array in (levels, pixels):
            assert (array[:16] == 99).all() and (array[24:] == 99).all() and (array[16:24] != 99).any()


def test_arrays_that_do_not_fit_are_refused(kinds):
    rng = np.random.default_rng(0)
    samples, x = narrow(rng, (32, 16, 3)), narrow(rng, (4, 2, 9))
    leave, out = layer(rng, 9, 192), np.zeros((32, 16, 3), np.int16)
    inputs = coefficients(rng, 3, (2, 1), False)
    coarse = layer(rng, 768, 5)
    invalid_calls = (
        lambda: kernels.synthesis_pixels(leave, x, samples, (0, 5), out),
        lambda: kernels.synthesis_pixels(leave, x, samples, (3, 2), out),
        lambda: kernels.synthesis_pixels(leave, x, samples, (0, 4), out[:31]),
        lambda: kernels.synthesis_pixels(leave, x, samples, (0, 4), out.astype(np.int32)),
        lambda: kernels.synthesis_pixels(leave, x[:, ::2], samples, (0, 4), out),
        lambda: kernels.synthesis_pixels(coarse, x, samples, (0, 4), out),
        lambda: kernels.synthesis_coarse(
            coarse, inputs.subbands[:3], inputs.low, np.zeros((2, 1, 5), np.int16), (0, 2)
        ),
        lambda: kernels.synthesis_coarse(leave, inputs.subbands, inputs.low, np.zeros((2, 1, 5), np.int16), (0, 2)),
        lambda: kernels.inverse_colors(inputs.low, np.eye(2, dtype=np.int32), np.zeros((2, 1, 3), np.int16), (0, 2)),
    )
    for kind in (library.REFERENCE, *kinds):
        with library.use(kind):
            for call in invalid_calls:
                with pytest.raises(ValueError):
                    call()
