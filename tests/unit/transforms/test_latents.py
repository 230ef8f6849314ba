"""Test latents: the order of coefficients and their transform to pixels."""

import numpy as np
import pytest

from support.wavelets import latents_of_pixels
from vaecodec.native.wavelet import octave_halves
from vaecodec.transforms import latents
from vaecodec.transforms.wavelet import Values


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_inverse_dwt_reconstructs_pixels(channels):
    x = np.random.default_rng(4).uniform(-0.5, 0.5, (48, 80, channels)).astype(np.float32)
    y = latents_of_pixels(x).astype(np.float32)
    assert y.shape == (3, 5, 256 * channels)
    assert np.abs(latents.inverse_dwt(y) - x).max() < 1e-5
    # The transform is nearly orthonormal, so errors of latents are about errors of samples.
    assert np.square(y).sum() == pytest.approx(np.square(x).sum(), rel=0.1)


def test_packing_and_halving_keep_every_coefficient():
    y = np.arange(4 * 6 * 768, dtype=np.float32).reshape(4, 6, 768)
    coefficients = latents.unpack_latents(y)
    shapes = [planes.shape for planes in coefficients.subbands]
    assert shapes == [(9, 32, 48), (9, 16, 24), (9, 8, 12), (9, 4, 6)]
    assert np.array_equal(latents.pack_latents(coefficients), y)
    for planes in (coefficients.subbands[1], coefficients.subbands[3][:, :3, :5]):
        first, second = octave_halves(planes)
        assert np.array_equal(latents.join_halves(first, second, planes.shape[1:]), planes)


@pytest.mark.parametrize("channels", [1, 3])
def test_values_and_latents_convert_without_loss(channels):
    y = np.random.default_rng(5).integers(-(2**16), 2**16, (3, 5, 256 * channels)).astype(np.float32)
    halves, low = latents.values_of_latents(y)
    values = Values([(a.astype(np.int32), b.astype(np.int32)) for a, b in halves], low.astype(np.int32))
    assert np.array_equal(latents.latents_of_values(values), y)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_latent_has_a_position_and_a_subband(channels):
    order, subbands = latents.file_order(channels), latents.subbands_in_file_order(channels)
    assert sorted(order.tolist()) == list(range(256 * channels)) and len(subbands) == 256 * channels
    assert subbands.tolist() == sorted(subbands.tolist()) and subbands[-1] == 13 * channels - 1
    assert np.array_equal(latents.subband_of(channels), subbands[order])
