"""Test that wavelets and details in TensorFlow equal those of NumPy and the native core."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from support.wavelets import latents_of_pixels
from vaecodec.native.reference.prior import details
from vaecodec.training import layers, operations


def test_details_equal_those_of_the_codec():
    low = np.random.default_rng(0).integers(-4000, 4000, (3, 12, 10)).astype(np.int32)
    training_details = operations.details(tf.constant(low.transpose(1, 2, 0)[None] / 64, tf.float64))[0].numpy()
    expected = details(low, slice(0, 12))
    assert np.abs(expected.transpose(1, 2, 0) - training_details * 64).max() <= 0.5
    for strip in (slice(0, 4), slice(4, 8), slice(8, 12), slice(11, 12)):
        assert np.array_equal(details(low, strip), expected[:, strip])


def test_wavelet_equals_that_of_the_codec():
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (64, 96, 3)).astype(np.float32)
    y = layers.Float({}, {}).forward_dwt(tf.constant(x[None]))
    assert np.abs(y[0].numpy() - latents_of_pixels(x)).max() < 1e-5
    assert np.abs(layers.Float({}, {}).inverse_dwt(y)[0].numpy() - x).max() < 1e-5
