"""Test the restoration filter and the sums for its fit: every core equals NumPy, and strips add up."""

from __future__ import annotations

import numpy as np
import pytest

from vaecodec.native import library
from vaecodec.native.transforms import SMALLEST, FilterWeights, fit_sums, restore
from vaecodec.transforms.networks import integer_color_transform

SIZES = ((5, 5), (5, 64), (7, 33), (20, 17), (33, 70))
CHANNELS = (1, 2, 3, 4)


def samples_of(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """i16 in units of 2**-6: smooth, noise, or only values at the ends of the range."""
    if kind == "ends":
        return rng.choice(np.array([-32767, 32767, 0, -32768], np.int16), shape)
    waves = 6000 * np.sin(np.arange(shape[1])[:, None] / 9.0 + np.arange(shape[2]))
    noise = rng.normal(0, 30 if kind == "smooth" else 5000, shape)
    return np.clip(waves + noise, -32767, 32767).astype(np.int16)


def filter_of(rng: np.random.Generator, classes: int, channels: int, extreme: bool) -> FilterWeights:
    first = rng.choice([-128, 127], (classes, 9)) if extreme else rng.integers(-60, 61, (classes, 9))
    others = rng.choice([-128, 127], 2 * channels) if extreme else rng.integers(-60, 61, 2 * channels)
    shifts = rng.choice([0, 15], classes) if extreme else rng.integers(6, 13, classes)
    ramps = rng.choice([0, 65535], classes - 1) if extreme else rng.integers(500, 20000, classes - 1)
    arrays = (
        np.asarray(values, np.int32) for values in (first, shifts, ramps, others[: 2 * channels * (channels > 1)])
    )
    return FilterWeights(integer_color_transform(channels), *arrays)


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("classes", [1, 2, 4])
def test_pixels_are_the_same_by_every_kind(kinds, classes, channels, extreme):
    rng = np.random.default_rng([classes, channels, extreme])
    for size in SIZES:
        for content in ("smooth", "noise", "ends"):
            samples = samples_of(rng, (*size, channels), content)
            weights = filter_of(rng, classes, channels, extreme)
            with library.use(library.REFERENCE):
                expected = restore(samples, weights)
            for kind in kinds:
                with library.use(kind):
                    np.testing.assert_array_equal(restore(samples, weights), expected, f"{kind} {size} {content}")


def test_strips_make_the_whole_and_leave_other_rows_alone(kinds):
    rng = np.random.default_rng(0)
    for kind in (library.REFERENCE, *kinds):
        for classes in (1, 4):
            samples, weights = samples_of(rng, (26, 31, 3), "noise"), filter_of(rng, classes, 3, False)
            with library.use(kind):
                expected, out = restore(samples, weights), np.full(samples.shape, 77, np.uint8)
                for strip in (slice(9, 26), slice(0, 1), slice(1, 3), slice(3, 9)):
                    before = out.copy()
                    restore(samples, weights, strip, out)
                    before[strip] = expected[strip]
                    np.testing.assert_array_equal(out, before, kind)


def test_a_filter_of_zeros_rounds_and_clips():
    samples = samples_of(np.random.default_rng(0), (9, 12, 3), "noise")
    weights = (np.zeros(shape, np.int32) for shape in ((1, 9), (1,), (0,), (6,)))
    zeros = FilterWeights(integer_color_transform(3), *weights)
    expected = np.clip(np.floor((samples / 64) + 127.5 + 0.5), 0, 255)
    np.testing.assert_array_equal(restore(samples, zeros), expected)


@pytest.mark.parametrize("channels", CHANNELS)
def test_sums_are_the_same_by_every_kind(kinds, channels):
    rng, rotation = np.random.default_rng(channels), integer_color_transform(channels)
    for height, width in SIZES:
        for content in ("smooth", "noise", "ends"):
            samples = samples_of(rng, (height, width, channels), content)
            target = rng.integers(0, 256, samples.shape, np.uint8)
            top, left = int(rng.integers(height)), int(rng.integers(width))
            boxes = ((0, 0, height, width), (top, left, int(rng.integers(top, height)) + 1, width), (top, 0, top, 3))
            for box in boxes:
                for subsampling in (1, 3, 50):
                    with library.use(library.REFERENCE):
                        expected = fit_sums(samples, target, box, subsampling, rotation)
                    for kind in kinds:
                        with library.use(kind):
                            sums = fit_sums(samples, target, box, subsampling, rotation)
                        for array, expected_array in zip(sums, expected, strict=True):
                            np.testing.assert_array_equal(array, expected_array, f"{kind} {box} {subsampling}")


def test_sums_of_strips_add_up(kinds):
    rng, rotation = np.random.default_rng(0), integer_color_transform(3)
    samples, target = samples_of(rng, (24, 30, 3), "noise"), rng.integers(0, 256, (24, 30, 3), np.uint8)
    for kind in (library.REFERENCE, *kinds):
        with library.use(kind):
            total = fit_sums(samples, target, (0, 4, 24, 30), 1, rotation)
            sums_of_strips = [fit_sums(samples, target, (top, 4, top + 8, 30), 1, rotation) for top in (0, 8, 16)]
        for array, arrays_of_strips in zip(total, zip(*sums_of_strips, strict=True), strict=True):
            np.testing.assert_array_equal(array, np.sum(arrays_of_strips, axis=0))
        for squares in (total.first, total.others):
            np.testing.assert_array_equal(squares, squares.swapaxes(-1, -2))


def test_arrays_that_do_not_fit_are_refused(kinds):
    rng = np.random.default_rng(0)
    samples, weights = samples_of(rng, (9, 9, 3), "noise"), filter_of(rng, 2, 3, False)
    target, rotation = np.zeros((9, 9, 3), np.uint8), integer_color_transform(3)
    invalid_calls = (
        lambda: restore(samples[: SMALLEST - 1], weights),
        lambda: restore(samples.astype(np.int32), weights),
        lambda: restore(samples[:, ::2], weights),
        lambda: restore(samples, weights._replace(first=weights.first[:, :8])),
        lambda: restore(samples, weights._replace(ramps=weights.ramps[:0])),
        lambda: restore(samples, weights._replace(others=weights.others[:4])),
        lambda: restore(samples, weights, slice(0, 9, 2)),
        lambda: restore(samples, weights, slice(0, 9), np.zeros((9, 9, 3), np.int16)),
        lambda: fit_sums(samples, target[:8], (0, 0, 8, 8), 1, rotation),
        lambda: fit_sums(samples, target, (0, 0, 10, 9), 1, rotation),
        lambda: fit_sums(samples, target, (5, 0, 4, 9), 1, rotation),
        lambda: fit_sums(samples, target, (0, 0, 9, 9), 0, rotation),
    )
    for kind in (library.REFERENCE, *kinds):
        with library.use(kind):
            for call in invalid_calls:
                with pytest.raises(ValueError):
                    call()
