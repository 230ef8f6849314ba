"""Test that a grey model made from a colour model computes what that one computes for grey images."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from support.images import synthetic_image
from vaecodec.codec import Codec
from vaecodec.config import CELL
from vaecodec.model.file import load_model
from vaecodec.native.prior import LOWEST_DISTANCES
from vaecodec.native.reference.prior import octave_order
from vaecodec.training.freezing import grey_weights, unfreeze
from vaecodec.training.vae import ALL_OCTAVES, VAE, initial_weights
from vaecodec.training.validation import frozen

LOWEST_PARTS = 1 + len(LOWEST_DISTANCES)
PARTS = LOWEST_PARTS + 2 * ALL_OCTAVES


@pytest.fixture(scope="module")
def models():
    """The shipped model `small` and the grey one made from it, in TensorFlow."""
    config, weights = unfreeze(load_model("small"))
    return VAE(config, weights), VAE(*grey_weights(config, weights))


@pytest.fixture(scope="module")
def image():
    """u8[128, 192] of a photograph-like image."""
    return np.ascontiguousarray(synthetic_image(128, 192)[..., 1])


def test_all_weights_have_the_shapes_of_a_grey_model(models):
    expected = initial_weights(models[1].config)
    assert models[1].config.channels == 1
    assert {n: w.shape for n, w in models[1].weights.items()} == {n: w.shape for n, w in expected.items()}


def test_transforms_agree(models, image):
    """The brightness of the colour model's latents in quantisation steps, and the pixels that both make of it."""
    latents, pixels = [], []
    for model, channels in zip(models, (3, 1), strict=True):
        gains = model.gains(tf.constant([4.0]))
        x = tf.constant(np.repeat(image[None, ..., None], channels, -1).astype(np.float32))
        y = (model.analysis(x, gains) * gains.gain).numpy()[..., :CELL]
        latents.append(y)
        y = np.pad(np.round(y), [(0, 0)] * 3 + [(0, (channels - 1) * CELL)])
        pixels.append(model.synthesis(tf.constant(y), gains).numpy().mean(-1))
    assert np.abs(latents[0]).max() > 50
    np.testing.assert_allclose(latents[1], latents[0], atol=2e-3, rtol=1e-4)
    np.testing.assert_allclose(pixels[1], pixels[0], atol=0.02)


def test_priors_agree(models):
    """Means and scale indices of every part, for values whose chroma is 0."""
    generators, parts, rng = [], [], np.random.default_rng(0)
    for model in models:
        gains, lmbda = model.gains(tf.constant([4.0])), tf.constant([0.01])
        generators.append(model.parts(gains, lmbda, (1, 8, 8)))
        parts.append(next(generators[-1]))
    for count in range(PARTS):
        colour, grey = (part.density.loc.numpy() for part in parts)
        places = np.flatnonzero(octave_order(3)[(count - LOWEST_PARTS) % 2] % 3 == 0) if count >= LOWEST_PARTS else [0]
        np.testing.assert_allclose(grey, colour[..., places], atol=0.04)  # two roundings to the grid of activations
        indices = [part.index.numpy() for part in parts]
        np.testing.assert_allclose(indices[1], indices[0][..., places], atol=0.04)
        values = np.round(rng.normal(0, 3, grey.shape)).astype(np.float32)
        if parts[1].mask is not None:
            values *= parts[1].mask
        wide = np.zeros(colour.shape, np.float32)
        wide[..., places] = values
        parts = [g.send(tf.constant(v)) for g, v in zip(generators, (wide, values), strict=True)]
    assert all(part.index is None for part in parts)  # p(x | y), the last


def test_files_of_the_grey_model_cost_less_and_decode_alike(models, image):
    grey, small = Codec(frozen(models[1].config, models[1].weights)), Codec(load_model("small"))
    for quality in (30.0, 75.0):
        pairs = (grey, image[..., None]), (small, np.repeat(image[..., None], 3, -1))
        files = [codec.encode(pixels, quality, tune="psnr") for codec, pixels in pairs]
        decoded = grey.decode(files[0])[..., 0], small.decode(files[1]).mean(-1)
        error = [10 * np.log10(255**2 / np.square(image - x.astype(np.float64)).mean()) for x in decoded]
        assert error[0] == pytest.approx(error[1], abs=0.3)  # roundings of one and of three samples
        assert 0.85 * len(files[1]) < len(files[0]) < len(files[1])
