"""Test the VAE: its loss is the negative ELBO, its densities are distributions, and freezing keeps it."""

import math

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from support.images import synthetic_image
from support.models import random_weights
from vaecodec.config import LAMBDA_MAX, LAMBDA_MIN, Config
from vaecodec.model.network import ACTIVATION_BITS
from vaecodec.training.densities import bits, centroid, latent_density
from vaecodec.training.layers import EXCESS_LIMIT, TRANSFORM_LIMIT, Float, clip_with_penalty, on_grid
from vaecodec.training.vae import VAE, add_noise, initial_weights, lambda_of, specification

CONFIG = Config(fine=8, fine_blocks=1, coarse=8, coarse_blocks=1, prior=12, coarser=8, hyper_width=8)


@pytest.fixture(scope="module")
def vae():
    return VAE(CONFIG, initial_weights(CONFIG, 1))


@pytest.mark.parametrize("random", [False, True])
def test_loss_is_the_negative_elbo(vae, random):
    """rate + lambda * 255^2 * MSE = -log2 p(y) p(x | y) a pixel, apart from the Normal's constant; q(y | x) is 1."""
    model = VAE(CONFIG, random_weights(CONFIG)) if random else vae
    x, quality = synthetic_image(64, 128)[None], tf.constant([3.0])
    loss = model.loss(tf.constant(x), quality, tf.constant([1, 2]), hard=True)
    gains, lmbda = model.gains(quality), lambda_of(quality)
    scaled = model.analysis(tf.constant(x, tf.float32), gains) * gains.gain
    parts, bits_of_latents = model.parts(gains, lmbda, (1, 4, 8)), 0.0
    density, index, mask = next(parts)
    for target in model.targets(scaled, gains):
        symbols = model.choose_symbols(density, index, target)
        rate = bits(density, density.loc + symbols)
        value = on_grid(density.loc + centroid(model.weights["centroid"], symbols, index), ACTIVATION_BITS)
        if mask is not None:
            rate, value = tf.where(mask, rate, 0.0), tf.where(mask, value, 0.0)
        bits_of_latents += float(tf.reduce_sum(rate))
        density, index, mask = parts.send(value)
    bits_of_pixels = float(tf.reduce_sum(bits(density, tf.constant(x, tf.float32))))
    variance = 3.0 / (2.0 * math.log(2.0) * float(lmbda[0]))
    constant = x.size * 0.5 * math.log2(2 * math.pi * variance)
    mse = float(tf.reduce_mean((x - density.loc) ** 2))
    objective = float(loss.bpp) + float(lmbda[0]) * mse
    assert bits_of_latents / (64 * 128) == pytest.approx(float(loss.bpp), rel=1e-3)
    assert float(loss.loss) * math.sqrt(float(lmbda[0])) == pytest.approx(objective, rel=1e-4)
    assert (bits_of_latents + bits_of_pixels - constant) / (64 * 128) == pytest.approx(objective, rel=1e-3)


def test_anchors_span_the_rates():
    ends = lambda_of(tf.constant([0.0, 7.0])).numpy()
    assert ends == pytest.approx([LAMBDA_MIN, LAMBDA_MAX], rel=1e-5)


def test_gains_are_log_linear_between_anchors(vae):
    at = vae.gains(tf.constant([2.0, 2.5, 3.0])).gain.numpy()[:, 0, 0]
    assert at[1] == pytest.approx(np.sqrt(at[0] * at[2]), rel=1e-5)


def test_masses_of_densities_sum_to_one():
    ratios, weights = tf.constant([0.7, 1.8], tf.float64), tf.constant([0.6, 0.4], tf.float64)
    for scale_index in (0.0, 10.0, 40.0):
        density = latent_density(tf.constant(0.0, tf.float64), tf.constant(scale_index, tf.float64), ratios, weights)
        mass = density.prob(np.arange(-400.0, 401.0)).numpy()
        assert mass.sum() == pytest.approx(1, abs=1e-9) and np.allclose(mass, mass[::-1])


def test_likelihood_of_outliers_keeps_a_gradient():
    with tf.GradientTape() as tape:
        index = tf.constant([20.0])
        tape.watch(index)
        ratios, weights = tf.constant([1.0, 2.0]), tf.constant([0.5, 0.5])
        cost = bits(latent_density(tf.constant([0.0]), index, ratios, weights), tf.constant([6.0]))
    assert np.isfinite(cost.numpy()).all() and tape.gradient(cost, index).numpy()[0] < 0


def test_moments_include_those_of_the_mixture_and_the_noise():
    ratios, weights = tf.constant([0.5, 3.0]), tf.constant([0.8, 0.2])
    density = latent_density(tf.constant(2.0), tf.constant(25.0), ratios, weights)
    grid = np.linspace(-400, 400, 80001).astype(np.float32)
    mean, variance = np.trapezoid(density.prob(grid).numpy() * np.stack([grid, (grid - 2) ** 2]), grid)
    assert mean == pytest.approx(2, abs=1e-3)
    assert variance == pytest.approx(float(density.scale) ** 2 * (0.8 * 0.5**2 + 0.2 * 3**2) + 1 / 12, rel=1e-3)


def test_noise_is_uniform():
    noisy = add_noise(tf.zeros([10000]), tf.constant([3, 4])).numpy()
    assert np.abs(noisy).max() <= 0.5 and abs(noisy.mean()) < 0.02 and noisy.var() == pytest.approx(1 / 12, rel=0.05)


@pytest.mark.parametrize(("preset", "decode", "encode", "weights"), [("small", 8, 8, 2e6), ("base", 25, 25, 7e6)])
def test_complexity_stays_within_its_budget(preset, decode, encode, weights):
    """Budgets in thousands of multiply-accumulates a pixel, and in parameters."""
    from vaecodec.config import PRESETS

    parts = specification(PRESETS[preset], 512)
    kmacs = {name: sum(shapes.macs.values()) / 512**2 / 1000 for name, shapes in parts.items()}
    parameters = sum(int(np.prod(w.shape)) for shapes in parts.values() for w in shapes.weights.values())
    assert kmacs["synthesis"] + kmacs["prior"] <= decode
    assert kmacs["analysis"] <= encode
    assert parameters <= weights


def test_macs_equal_counts_by_hand():
    from vaecodec.config import PRESETS

    parts = specification(PRESETS["small"], 512)
    assert parts["analysis"].macs["analysis/latents"] == 32 * 32 * 128 * 768
    assert parts["analysis"].macs["analysis/fine0/gate"] == 64 * 64 * 80 * 160
    assert parts["prior"].macs["context/1/block/space"] == 64 * 64 * 9 * 96
    assert parts["prior"].macs["context/0/block/gate"] == 128 * 128 * 32 * 64
    assert parts["prior"].macs["context/2/known"] == 32 * 32 * 36 * 96
    assert parts["prior"].macs["lowest/3/in"] == 8 * 16 * 30 * 32
    assert parts["synthesis"].macs["synthesis/skip"] == 64 * 64 * 192 * 80


def test_freezing_keeps_the_transforms(tmp_path, vae):
    from vaecodec.model.file import load_model
    from vaecodec.training import save_compact
    from vaecodec.training.freezing import freeze
    from vaecodec.transforms.latents import values_of_latents
    from vaecodec.transforms.wavelet import quantisation_targets

    save_compact(str(tmp_path / "w.safetensors"), CONFIG, vae.weights, {})
    model_id = freeze(str(tmp_path / "w.safetensors"), str(tmp_path / "m.vcm"))
    model = load_model(str(tmp_path / "m.vcm"))
    assert model.id == model_id and model.config == CONFIG
    pixels = synthetic_image(64, 96)
    quality_index = 400
    gains = vae.gains(tf.constant([quality_index / 128]))
    [coefficients] = model.transforms.analysis([pixels], quality_index)
    targets = quantisation_targets(coefficients, model.gains.scaled(quality_index))
    latents = vae.analysis(tf.constant(pixels[None], tf.float32), gains) * gains.gain
    expected = values_of_latents(latents.numpy()[0])
    tolerance = 0.02 * np.abs(latents).max()
    for frozen, trained in zip((*targets.halves, (targets.low,)), (*expected.halves, (expected.low,)), strict=True):
        assert all(np.allclose(*pair, atol=tolerance) for pair in zip(frozen, trained, strict=True))
    assert model.inverse_gain(quality_index) == pytest.approx(gains.inverse_gain.numpy().ravel(), rel=2e-4)


def test_activations_beyond_their_range_are_clipped_and_drawn_back():
    x = tf.constant([-300.0, -TRANSFORM_LIMIT, -1.0, 0.0, EXCESS_LIMIT, EXCESS_LIMIT + 2.0, 90.0, 4.0])
    # A step goes against the gradient: of 1 it moves -300 further out, and 90 back.
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = clip_with_penalty(x)
        loss = tf.reduce_sum(y)
    assert np.array_equal(y, np.clip(x, -TRANSFORM_LIMIT, TRANSFORM_LIMIT))
    excess = np.sign(x) * np.maximum(np.abs(x) - EXCESS_LIMIT, 0)
    assert np.allclose(tape.gradient(loss, x), np.greater(x, -100) + excess / 8) and np.count_nonzero(excess) == 4


def test_every_layer_of_the_transforms_clips_its_result():
    ones = {f"large/{part}": tf.fill(shape, 50.0) for part, shape in (("kernel", (2, 4)), ("bias", (4,)))}
    taps = {"taps/kernel": tf.fill((3, 3, 2), 50.0), "taps/bias": tf.zeros(2)}
    ops, x = Float({**ones, **taps}, {"scale": tf.fill((1, 1, 1, 2), 50.0)}), tf.ones((1, 4, 4, 2))
    for y in (
        ops.dense("large", x, 4),
        ops.depthwise("taps", x),
        ops.condition("scale", x),
        ops.gate("large", x),
        ops.add(10 * x, 10 * x),
    ):
        assert np.array_equal(y, tf.fill(y.shape, TRANSFORM_LIMIT))
