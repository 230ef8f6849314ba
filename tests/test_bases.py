"""The linear transform that training starts from."""

import numpy as np
import pytest
import tensorflow as tf

from vaecodec.bases import dct_basis, lapped_filter, shortcut_basis
from vaecodec.config import PRESETS, Config
from vaecodec.layers import Float

SIZE = 16


def coding_gain(transform: np.ndarray, correlation: float = 0.95) -> float:
    """dB over plain quantisation, of one block of a biorthogonal transform [4 * SIZE] * 2 (Katto and Yasuda 1991)."""
    n = np.arange(len(transform))
    covariance = correlation ** np.abs(n[:, None] - n[None])
    middle = slice(SIZE, 2 * SIZE)
    variance = np.einsum("ij,jk,ik->i", transform[middle], covariance, transform[middle])
    norm = (np.linalg.inv(transform)[:, middle] ** 2).sum(0)
    return -10 * np.log10(np.exp(np.mean(np.log(variance * norm))))


def test_the_lapped_filter_gains_what_it_is_for():
    blocks = np.kron(np.eye(4), dct_basis(SIZE))
    lapped = np.eye(4 * SIZE)
    for at in range(SIZE // 2, 3 * SIZE, SIZE):
        lapped[at : at + SIZE, at : at + SIZE] = lapped_filter(SIZE)
    assert coding_gain(blocks) == pytest.approx(9.46, abs=0.01)
    assert coding_gain(blocks @ lapped) == pytest.approx(9.95, abs=0.01)


def test_the_lapped_filter_leaves_mirrored_samples_alone():
    half = np.random.default_rng(0).normal(size=SIZE // 2)
    mirrored = np.concatenate([half[::-1], half])
    assert np.allclose(lapped_filter(SIZE) @ mirrored, mirrored)


@pytest.mark.parametrize("size", [(16, 16), (16, 48), (64, 32)])
def test_lapped_on_pictures_is_undone_by_its_inverse_and_filters_both_ways(size):
    forward, back = lapped_filter(SIZE).astype(np.float32), np.linalg.inv(lapped_filter(SIZE)).astype(np.float32)
    x = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    ops = Float({"there/kernel": tf.constant(forward), "back/kernel": tf.constant(back)}, {})
    y = ops.lapped("there", tf.constant(x)).numpy()
    assert np.allclose(ops.lapped("back", tf.constant(y)), x, atol=1e-5)
    expected = x.copy()
    for at in range(SIZE // 2, size[0] - SIZE, SIZE):
        expected[:, at : at + SIZE] = np.einsum("ij,bjwc->biwc", forward, expected[:, at : at + SIZE])
    for at in range(SIZE // 2, size[1] - SIZE, SIZE):
        expected[:, :, at : at + SIZE] = np.einsum("ij,bhjc->bhic", forward, expected[:, :, at : at + SIZE])
    assert np.allclose(y, expected, atol=1e-5)
    assert (size == (16, 16)) == np.allclose(y, x, atol=1e-5)


def test_the_shortcut_is_orthonormal_and_begins_with_the_mean():
    basis, frequency = shortcut_basis(64)
    assert np.allclose(basis.T @ basis, np.eye(64), atol=1e-6)
    assert frequency[0] == 0 and np.allclose(basis[:, 0], basis[0, 0])


def test_switches_that_came_later_leave_older_models_their_description():
    old = Config(lapped=0).to_dict()
    assert "lapped" not in old and Config.from_dict(old) == Config(lapped=0)
    assert Config.from_dict(PRESETS["small"].to_dict()) == PRESETS["small"] and PRESETS["small"].wavelet
    with pytest.raises(ValueError, match="lapped is 2, expected an integer in 0..1"):
        Config.from_dict({**old, "lapped": 2})
