"""The restoration filter and the sums that fit it: every kind equals NumPy, and strips of rows make the whole."""

from __future__ import annotations

import numpy as np
import pytest

from vaecodec.native import library
from vaecodec.native.transforms import SMALLEST, FilterWeights, fit_sums, restore
from vaecodec.transforms.networks import integer_color_transform

SIZES = ((5, 5), (5, 64), (7, 33), (20, 17), (33, 70))
CHANNELS = (1, 2, 3, 4)


def samples_of(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """i16, unit 2**-6: smooth, noise, or nothing but the ends."""
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
    whole = (np.asarray(each, np.int32) for each in (first, shifts, ramps, others[: 2 * channels * (channels > 1)]))
    return FilterWeights(integer_color_transform(channels), *whole)


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("classes", [1, 2, 4])
def test_pixels_are_the_same_by_every_kind(kinds, classes, channels, extreme):
    rng = np.random.default_rng([classes, channels, extreme])
    for size in SIZES:
        for kind_of in ("smooth", "noise", "ends"):
            samples = samples_of(rng, (*size, channels), kind_of)
            weights = filter_of(rng, classes, channels, extreme)
            with library.use(library.REFERENCE):
                expected = restore(samples, weights)
            for kind in kinds:
                with library.use(kind):
                    np.testing.assert_array_equal(restore(samples, weights), expected, f"{kind} {size} {kind_of}")


def test_strips_make_the_whole_and_leave_other_rows_alone(kinds):
    rng = np.random.default_rng(0)
    for kind in (library.REFERENCE, *kinds):
        for classes in (1, 4):
            samples, weights = samples_of(rng, (26, 31, 3), "noise"), filter_of(rng, classes, 3, False)
            with library.use(kind):
                whole, parts = restore(samples, weights), np.full(samples.shape, 77, np.uint8)
                for rows in (slice(9, 26), slice(0, 1), slice(1, 3), slice(3, 9)):
                    before = parts.copy()
                    restore(samples, weights, rows, parts)
                    before[rows] = whole[rows]
                    np.testing.assert_array_equal(parts, before, kind)


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
        for kind_of in ("smooth", "noise", "ends"):
            samples = samples_of(rng, (height, width, channels), kind_of)
            wanted = rng.integers(0, 256, samples.shape, np.uint8)
            top, left = int(rng.integers(height)), int(rng.integers(width))
            boxes = ((0, 0, height, width), (top, left, int(rng.integers(top, height)) + 1, width), (top, 0, top, 3))
            for box in boxes:
                for every in (1, 3, 50):
                    with library.use(library.REFERENCE):
                        expected = fit_sums(samples, wanted, box, every, rotation)
                    for kind in kinds:
                        with library.use(kind):
                            found = fit_sums(samples, wanted, box, every, rotation)
                        for one, other in zip(found, expected, strict=True):
                            np.testing.assert_array_equal(one, other, f"{kind} {box} {every}")


def test_sums_of_strips_add_up(kinds):
    rng, rotation = np.random.default_rng(0), integer_color_transform(3)
    samples, wanted = samples_of(rng, (24, 30, 3), "noise"), rng.integers(0, 256, (24, 30, 3), np.uint8)
    for kind in (library.REFERENCE, *kinds):
        with library.use(kind):
            whole = fit_sums(samples, wanted, (0, 4, 24, 30), 1, rotation)
            parts = [fit_sums(samples, wanted, (top, 4, top + 8, 30), 1, rotation) for top in (0, 8, 16)]
        for one, several in zip(whole, zip(*parts, strict=True), strict=True):
            np.testing.assert_array_equal(one, np.sum(several, axis=0))
        for squares in (whole.first, whole.others):
            np.testing.assert_array_equal(squares, squares.swapaxes(-1, -2))


def test_arrays_that_do_not_fit_are_refused(kinds):
    rng = np.random.default_rng(0)
    samples, weights = samples_of(rng, (9, 9, 3), "noise"), filter_of(rng, 2, 3, False)
    wanted, rotation = np.zeros((9, 9, 3), np.uint8), integer_color_transform(3)
    wrong = (
        lambda: restore(samples[: SMALLEST - 1], weights),
        lambda: restore(samples.astype(np.int32), weights),
        lambda: restore(samples[:, ::2], weights),
        lambda: restore(samples, weights._replace(first=weights.first[:, :8])),
        lambda: restore(samples, weights._replace(ramps=weights.ramps[:0])),
        lambda: restore(samples, weights._replace(others=weights.others[:4])),
        lambda: restore(samples, weights, slice(0, 9, 2)),
        lambda: restore(samples, weights, slice(0, 9), np.zeros((9, 9, 3), np.int16)),
        lambda: fit_sums(samples, wanted[:8], (0, 0, 8, 8), 1, rotation),
        lambda: fit_sums(samples, wanted, (0, 0, 10, 9), 1, rotation),
        lambda: fit_sums(samples, wanted, (5, 0, 4, 9), 1, rotation),
        lambda: fit_sums(samples, wanted, (0, 0, 9, 9), 0, rotation),
    )
    for kind in (library.REFERENCE, *kinds):
        with library.use(kind):
            for work in wrong:
                with pytest.raises(ValueError):
                    work()
