"""The wavelet: perfect reconstruction, known properties of CDF 9/7, and integers that do not depend on anything."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vaecodec.transforms import banded, lifting, pyramid
from vaecodec.transforms.lifting import REAL


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 2, 6), (3, 64, 48), (2, 30, 4)])
def test_what_is_taken_apart_is_joined(shape):
    x = np.random.default_rng(0).normal(size=shape)
    assert np.allclose(lifting.inverse(*lifting.forward(x, REAL), REAL), x, atol=1e-12)


def test_polynomials_have_no_details():
    """Four vanishing moments on the side of the analysis (Cohen, Daubechies and Feauveau 1992)."""
    place = np.arange(64.0)
    for power in range(4):
        x = np.tile((place / 64) ** power, (1, 4, 1))
        _, high = lifting.part(x, 2, REAL)
        assert np.abs(high[..., 4:-4]).max() < 1e-9
    _, high = lifting.part(np.tile((place / 64) ** 4, (1, 4, 1)), 2, REAL)
    assert np.abs(high[..., 4:-4]).max() > 1e-7


def test_the_lowpass_of_a_flat_picture_is_a_multiple_of_it():
    low, bands = lifting.forward(np.ones((1, 8, 8)), REAL)
    assert np.allclose(low, low[0, 0, 0]) and low[0, 0, 0] == pytest.approx(2.0, rel=0.01)
    assert np.abs(bands).max() < 1e-12


def test_noise_of_coefficients_is_nearly_that_of_the_samples():
    rng = np.random.default_rng(1)
    x = lifting.inverse(rng.normal(size=(1, 128, 128)), rng.normal(size=(3, 128, 128)), REAL)
    assert x.std() == pytest.approx(1, abs=0.03)


def coded(rng, height, width):
    """Coefficients by turns, and what lifting makes of them."""
    places = rng.integers(-9000, 9000, (3, height, width)).astype(float)
    bands = np.concatenate([places[:, n // 2 :: 2, n % 2 :: 2] for n in (1, 2, 3)])
    return places, lifting.inverse(places[:, ::2, ::2], bands, REAL)


# Lengths that are one matrix, and those of two, three and more blocks, with any rest.
@pytest.mark.parametrize("length", [2, 4, 6, 34, 36, 38, *range(50, 70, 2), 200])
def test_products_are_what_lifting_is(length):
    places, samples = coded(np.random.default_rng(length), length, 6)
    for x, y in ((places, samples), (places.swapaxes(1, 2), None)):
        y = lifting_of(x) if y is None else y
        scale = np.abs(y).max()
        assert np.abs(banded.both(x.astype(np.float32), banded.samples) - y).max() < 1e-6 * scale
        assert np.abs(banded.both(y.astype(np.float32), banded.coefficients) - x).max() < 1e-6 * scale
        assert np.abs(banded.inverse_exactly(x.copy()) - y).max() < 1.5


def lifting_of(places):
    bands = np.concatenate([places[:, n // 2 :: 2, n % 2 :: 2] for n in (1, 2, 3)])
    return lifting.inverse(places[:, ::2, ::2], bands, REAL)


@pytest.mark.parametrize("shape", [(2, 2), (6, 6), (40, 70)])
def test_whole_numbers_are_exact(shape):
    """The largest that may come in, of the signs that add up: the same sums in Python's integers."""
    rng = np.random.default_rng(3)
    down, along = (banded.whole_samples(n).astype(int).astype(object) for n in shape)
    for places in (
        rng.choice([-(2**16), 2**16], (4, *shape)),
        2**16 * np.sign(np.multiply.outer(down[:, 0], along[:, 1]))[None],
    ):
        found = banded.inverse_exactly(places.astype(float))
        for one, other in zip(places.astype(object), found, strict=True):
            exact = down.T @ one @ along
            assert np.array_equal((exact + 2**31) // 2**32, other.astype(int))


def test_whole_filters_keep_what_is_flat():
    assert sum(banded.LOW_TAPS[k] * (2 if k else 1) for k in (0, 2)) == 2 * sum(banded.LOW_TAPS[k] for k in (1, 3))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_coefficients_and_samples_are_inverses(channels):
    x = np.random.default_rng(4).uniform(-0.5, 0.5, (48, 80, channels)).astype(np.float32)
    y = pyramid.coefficients(x)
    assert y.shape == (3, 5, 256 * channels) and y.dtype == np.float32
    assert np.abs(pyramid.samples(y) - x).max() < 1e-5
    # Nearly orthonormal, so that errors of latents are errors of samples.
    assert np.square(y).sum() == pytest.approx(np.square(x).sum(), rel=0.1)


def test_bytes_are_centred_and_colours_may_be_shared_out():
    x = np.random.default_rng(5).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    y = pyramid.coefficients(x)
    assert np.abs(y - pyramid.coefficients(x / np.float32(255) - np.float32(0.5))).max() < 1e-5
    with ThreadPoolExecutor(3) as pool:
        assert np.array_equal(pyramid.coefficients(x, pool.map), y)
        assert np.array_equal(pyramid.samples(y, pool.map), pyramid.samples(y))


def test_packing_and_halving_keep_every_coefficient():
    y = np.arange(4 * 6 * 768, dtype=np.float32).reshape(4, 6, 768)
    planes = pyramid.unpack(y)
    assert [band.shape for band in planes.bands] == [(9, 32, 48), (9, 16, 24), (9, 8, 12), (9, 4, 6)]
    assert np.array_equal(pyramid.pack(planes), y)
    for band in (planes.bands[1], planes.bands[3][:, :3, :5]):
        first, second = pyramid.to_halves(band)
        assert np.array_equal(pyramid.from_halves(first, second, band.shape[1:]), band)
