"""The wavelet: perfect reconstruction, known properties of CDF 9/7, and integers that do not depend on anything."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vaecodec import lifting, pyramid
from vaecodec.lifting import REACH, REAL, WHOLE


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


def test_integers_follow_floats():
    rng = np.random.default_rng(2)
    low, bands = rng.integers(-9000, 9000, (3, 16, 24)), rng.integers(-9000, 9000, (9, 16, 24))
    exact = lifting.inverse(low.astype(float), bands.astype(float), REAL)
    found = lifting.inverse(low.astype(np.int32), bands.astype(np.int32), WHOLE)
    assert found.dtype == np.int32
    assert np.abs(found - exact).max() < 12 + 1e-3 * np.abs(exact).max()


def test_integers_never_leave_their_type():
    """The largest that may come in, of the signs that add up: the same steps in Python's integers."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        low, bands = (rng.choice([-REACH, REACH, 2**30], (n, 6, 6)).astype(np.int32) for n in (1, 3))
        wide = lifting.inverse(low.astype(np.int64), bands.astype(np.int64), WHOLE)
        assert np.array_equal(lifting.inverse(low, bands, WHOLE), wide)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_coefficients_and_samples_are_inverses(channels):
    x = np.random.default_rng(4).uniform(-0.5, 0.5, (48, 80, channels)).astype(np.float32)
    y = pyramid.coefficients(x)
    assert y.shape == (3, 5, 256 * channels) and y.dtype == np.float32
    assert np.abs(pyramid.samples(y) - x).max() < 1e-5
    # Nearly orthonormal, so that errors of latents are errors of samples.
    assert np.square(y).sum() == pytest.approx(np.square(x).sum(), rel=0.1)


def test_packing_and_halving_keep_every_coefficient():
    y = np.arange(4 * 6 * 768, dtype=np.float32).reshape(4, 6, 768)
    planes = pyramid.unpack(y)
    assert [band.shape for band in planes.bands] == [(9, 32, 48), (9, 16, 24), (9, 8, 12), (9, 4, 6)]
    assert np.array_equal(pyramid.pack(planes), y)
    for band in (planes.bands[1], planes.bands[3][:, :3, :5]):
        first, second = pyramid.to_halves(band)
        assert np.array_equal(pyramid.from_halves(first, second, band.shape[1:]), band)


@pytest.mark.parametrize("arithmetic", [REAL, WHOLE])
def test_threads_change_nothing(arithmetic):
    rng = np.random.default_rng(6)
    low, bands = (rng.integers(-999, 999, (n, 10, 6)).astype(np.int32) for n in (3, 9))
    if arithmetic is REAL:
        low, bands = low.astype(np.float32), bands.astype(np.float32)
    x = lifting.inverse(low, bands, arithmetic)
    with ThreadPoolExecutor(2) as pool:
        assert np.array_equal(lifting.inverse(low, bands, arithmetic, pool.map), x)
        for one, two in zip(lifting.forward(x, REAL, pool.map), lifting.forward(x, REAL), strict=True):
            assert np.array_equal(one, two)
