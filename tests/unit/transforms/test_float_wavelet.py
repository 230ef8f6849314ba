"""Test the float wavelet: perfect reconstruction and the known properties of CDF 9/7."""

import numpy as np
import pytest

from support.wavelets import inverse_dwt
from vaecodec.transforms import wavelet
from vaecodec.transforms.wavelet import float_forward_dwt, interleave, split_axis


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 2, 6), (3, 64, 48), (2, 30, 4)])
def test_inverse_of_forward_is_the_identity(shape):
    x = np.random.default_rng(0).normal(size=shape)
    assert np.allclose(inverse_dwt(*float_forward_dwt(x)), x, atol=1e-12)


def test_polynomials_have_no_details():
    """Four vanishing moments on the side of the analysis (Cohen, Daubechies and Feauveau 1992)."""
    position = np.arange(64.0)
    for power in range(4):
        x = np.tile((position / 64) ** power, (1, 4, 1))
        _, high = split_axis(x, 2)
        assert np.abs(high[..., 4:-4]).max() < 1e-9
    _, high = split_axis(np.tile((position / 64) ** 4, (1, 4, 1)), 2)
    assert np.abs(high[..., 4:-4]).max() > 1e-7


def test_the_low_pass_of_a_flat_image_is_flat():
    low, subbands = float_forward_dwt(np.ones((1, 8, 8)))
    assert np.allclose(low, low[0, 0, 0]) and low[0, 0, 0] == pytest.approx(2.0, rel=0.01)
    assert np.abs(subbands).max() < 1e-12


def test_the_transform_is_nearly_orthonormal():
    rng = np.random.default_rng(1)
    x = inverse_dwt(rng.normal(size=(1, 128, 128)), rng.normal(size=(3, 128, 128)))
    assert x.std() == pytest.approx(1, abs=0.03)


# Lengths of a single matrix, and of two, three and more blocks, with all remainders.
@pytest.mark.parametrize("length", [2, 4, 6, 34, 36, 38, *range(50, 70, 2), 200])
@pytest.mark.parametrize("along_rows", [False, True])
def test_products_with_matrices_equal_lifting(length, along_rows):
    rng = np.random.default_rng(length)
    h, w = (3, length // 2) if along_rows else (length // 2, 3)
    low, subbands = (rng.integers(-9000, 9000, (count, h, w)).astype(float) for count in (3, 9))
    expected = inverse_dwt(low, subbands)
    samples = wavelet.float_inverse_dwt(interleave(low, subbands).astype(np.float32))
    assert np.abs(samples - expected).max() < 1e-6 * np.abs(expected).max()
