"""Test the wavelet kernels: every core equals NumPy, transforms are reversible and close to the float wavelet."""

import itertools

import numpy as np
import pytest

from support.images import synthetic_image
from vaecodec.native import library, wavelet
from vaecodec.native.reference import transforms as reference
from vaecodec.transforms import latents
from vaecodec.transforms.wavelet import NORM, float_forward_dwt

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (5, 7), (16, 16), (3, 250), (129, 4), (64, 97)]
EXTREMES = np.array([-(2**31), 2**31 - 1, -(2**16), 2**16, -1, 0, 1], np.int32)


def integers(rng: np.random.Generator, shape: tuple[int, ...], most: int = 2**31 - 1) -> np.ndarray:
    """i32 within +-most, a tenth of them extremes."""
    numbers = rng.integers(-most, most, shape, dtype=np.int32, endpoint=True)
    extreme = np.clip(rng.choice(EXTREMES, shape), -most, most)
    return np.where(rng.random(shape) < 0.1, extreme, numbers).astype(np.int32)


def cases(seed: int):
    """Random generators, channels and sizes."""
    rng = np.random.default_rng(seed)
    for channels, shape in itertools.product((1, 3, 4), SHAPES):
        yield rng, channels, shape


def subbands(rng: np.random.Generator, channels: int, shape: tuple[int, int], most: int = 2**31 - 1):
    """Random low-pass image and subbands of an image of this size."""
    half_shape = wavelet.half(shape)
    return integers(rng, (channels, *half_shape), most), integers(rng, (3 * channels, *half_shape), most)


def same(kinds, function, *arguments, **options):
    """Check that every core returns the result of NumPy, and return it."""
    with library.use("numpy"):
        expected = function(*arguments, **options)
    for kind in kinds:
        with library.use(kind):
            result = function(*arguments, **options)
        expected_parts, result_parts = (part if isinstance(part, tuple) else (part,) for part in (expected, result))
        for expected_array, array in zip(expected_parts, result_parts, strict=True):
            assert array.dtype == expected_array.dtype, kind
            np.testing.assert_array_equal(array, expected_array, kind)
    return expected


@pytest.mark.parametrize("scale_low", [False, True])
@pytest.mark.parametrize("limit", [0, 1 << 16])
def test_inverse_is_the_same_on_every_kind(kinds, scale_low, limit):
    for rng, channels, shape in cases(1):
        low, subband_planes = subbands(rng, channels, shape)
        samples = same(kinds, wavelet.inverse_dwt, low, subband_planes, shape, scale_low=scale_low, limit=limit)
        assert samples.shape == (channels, *shape)


def test_inverse_of_forward_is_the_identity_for_any_integers(kinds):
    for rng, channels, shape in cases(2):
        samples = integers(rng, (channels, *shape))
        low, subband_planes = same(kinds, wavelet.forward_dwt, samples)
        np.testing.assert_array_equal(same(kinds, wavelet.inverse_dwt, low, subband_planes, shape), samples)


def test_forward_of_inverse_is_the_identity_for_any_coefficients(kinds):
    for rng, channels, shape in cases(3):
        low, subband_planes = subbands(rng, channels, (2 * shape[0], 2 * shape[1]))
        samples = same(kinds, wavelet.inverse_dwt, low, subband_planes)
        decomposed = same(kinds, wavelet.forward_dwt, samples)
        np.testing.assert_array_equal(decomposed[0], low)
        np.testing.assert_array_equal(decomposed[1], subband_planes)


def test_empty_images(kinds):
    low, subband_planes = np.zeros((3, 0, 4), np.int32), np.zeros((9, 0, 4), np.int32)
    assert same(kinds, wavelet.inverse_dwt, low, subband_planes).shape == (3, 0, 8)
    assert same(kinds, wavelet.forward_dwt, np.zeros((3, 0, 8), np.int32))[0].shape == (3, 0, 4)


def test_rectangles_of_larger_arrays(kinds):
    """Inputs and outputs may be views of larger arrays; the rest of an array does not change."""
    rng = np.random.default_rng(4)
    low, subband_planes = integers(rng, (3, 20, 30)), integers(rng, (9, 21, 33))
    expected = reference.inverse_dwt(low[:, 2:8, 3:12], subband_planes[:, 1:7, 5:14], (11, 17), True, 0)
    for kind in ("numpy", *kinds):
        out = np.full((3, 30, 40), 7, np.int32)
        with library.use(kind):
            for c in range(3):
                arrays = low[c : c + 1, 2:8, 3:12], subband_planes[c::3, 1:7, 5:14]
                wavelet.inverse_dwt(*arrays, (11, 17), scale_low=True, out=out[c : c + 1, 4:15, 6:23])
        np.testing.assert_array_equal(out[:, 4:15, 6:23], expected)
        out[:, 4:15, 6:23] = 7
        assert (out == 7).all()


def test_close_to_the_real_valued_wavelet(kinds):
    """Integers in units of 2**-6 omit the normalisation of the low-pass image by NORM in each dimension."""
    samples = (np.array(synthetic_image(96, 121).transpose(2, 0, 1), np.int32, order="C") - 128) * 64
    padded = np.pad(samples, [(0, 0), (0, 0), (0, 1)], "edge")
    low, subband_planes = same(kinds, wavelet.forward_dwt, samples)
    float_low, float_subbands = float_forward_dwt(padded.astype(np.float64))
    gain = NORM**2
    assert np.abs(low - float_low / gain).max() < 4
    assert np.abs(subband_planes[:6] - float_subbands[:6]).max() < 4
    assert np.abs(subband_planes[6:] - float_subbands[6:] * gain).max() < 4
    scaled_low = np.rint(float_low).astype(np.int32)
    restored = same(kinds, wavelet.inverse_dwt, scaled_low, subband_planes, samples.shape[1:], scale_low=True)
    assert np.abs(restored - samples).max() < 8


def test_octave_planes(kinds):
    for rng, channels, shape in cases(5):
        cells = wavelet.half(shape)
        first, second = (integers(rng, (*cells, 6 * channels)) for _ in range(2))
        mantissa = integers(rng, (3 * channels,))
        shift = rng.integers(0, 32, 3 * channels, dtype=np.int32)
        for limit in (0, 1 << 16):
            same(kinds, wavelet.octave_planes, first, second, shape, mantissa, shift, limit=limit)
        unscaled = same(kinds, wavelet.octave_planes, first, second, shape, np.ones_like(mantissa), 0 * shift)
        np.testing.assert_array_equal(unscaled, latents.join_halves(first, second, shape))


def test_octave_planes_rounds_halves_up_without_wrapping(kinds):
    first = np.array([-3, -2, -1, 1, 2, 3], np.int32).reshape(1, 1, 6)
    ones, largest = np.ones(3, np.int32), np.full(3, 2**14, np.int32)
    shift = np.ones(3, np.int32)
    planes = same(kinds, wavelet.octave_planes, first, first, (2, 2), ones, shift)
    np.testing.assert_array_equal(np.unique(planes), [-1, 0, 1, 2])
    values = np.full((1, 1, 6), 2**16, np.int32)
    planes = same(kinds, wavelet.octave_planes, values, values, (2, 2), largest, 31 * shift)
    assert (planes == 1).all()


def test_octave_planes_writes_a_rectangle(kinds):
    rng = np.random.default_rng(6)
    first, second = integers(rng, (3, 4, 18)), integers(rng, (3, 4, 18))
    for kind in ("numpy", *kinds):
        out = np.full((9, 12, 14), 7, np.int32)
        with library.use(kind):
            ones, shift = np.ones(9, np.int32), np.zeros(9, np.int32)
            wavelet.octave_planes(first, second, (5, 7), ones, shift, out=out[:, 2:7, 3:10])
        np.testing.assert_array_equal(out[:, 2:7, 3:10], latents.join_halves(first, second, (5, 7)))
        out[:, 2:7, 3:10] = 7
        assert (out == 7).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_octave_halves(kinds, dtype):
    for rng, channels, shape in cases(7):
        planes = integers(rng, (3 * channels, *shape)).astype(dtype)
        halves = same(kinds, wavelet.octave_halves, planes)
        np.testing.assert_array_equal(latents.join_halves(*halves, shape), planes)
    large = integers(rng, (9, 20, 30)).astype(dtype)
    same(kinds, wavelet.octave_halves, large[:, 3:8, 5:18])


def test_context_low(kinds):
    for rng, channels, shape in cases(8):
        low = integers(rng, (channels, *shape), 1 << 17)
        first, second = (integers(rng, (*wavelet.half(shape), 6 * channels), 1 << 17) for _ in range(2))
        gain = rng.integers(1, 2**13, 3 * channels, dtype=np.int32, endpoint=True)
        size = (2 * shape[0] - 1, 2 * shape[1])
        image = same(kinds, wavelet.context_low, low, first, second, gain, size)
        assert image.shape == (channels, *size)
        assert np.abs(image).max() <= 1 << 17


def test_wrong_arrays_are_refused(kinds):
    low, subband_planes = np.zeros((1, 4, 4), np.int32), np.zeros((3, 4, 4), np.int32)
    gain, halves = np.ones(3, np.int32), np.zeros((2, 2, 6), np.int32)
    with pytest.raises(ValueError, match="subbands"):
        wavelet.inverse_dwt(low, subband_planes, (9, 8))
    with pytest.raises(ValueError, match="bands is"):
        wavelet.inverse_dwt(low, subband_planes[:2])
    with pytest.raises(ValueError, match="rows of low"):
        wavelet.inverse_dwt(np.zeros((1, 4, 8), np.int32)[..., ::2], subband_planes)
    with pytest.raises(ValueError, match="overlaps"):
        wavelet.inverse_dwt(low[:, :2, :2], subband_planes[:, :2, :2], out=low)
    with pytest.raises(ValueError, match="scratch"):
        wavelet.inverse_dwt(low, subband_planes, scratch=np.zeros(63, np.int32))
    with pytest.raises(ValueError, match="int64"):
        wavelet.forward_dwt(low.astype(np.int64))
    with pytest.raises(ValueError, match="shift"):
        wavelet.octave_planes(halves, halves, (4, 4), gain, gain + 31)
    with pytest.raises(ValueError, match="first is"):
        wavelet.octave_planes(halves, halves, (5, 4), gain, gain)
    with pytest.raises(ValueError, match="channels"):
        wavelet.octave_halves(np.zeros((2, 4, 4), np.int32))
