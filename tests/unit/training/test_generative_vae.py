"""Test the generative VAE: its densities, and that the codec computes the same networks and frequencies."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from vaecodec import generative as generation
from vaecodec.entropy import TOTAL
from vaecodec.generative import image_sets
from vaecodec.model import generative, network
from vaecodec.model.generative import PHASES, VALUES, Generative
from vaecodec.training.densities import Hurdle, distributions
from vaecodec.training.freezing import discrete_tables, generative_arrays
from vaecodec.training.generative_vae import GenerativeVAE, initial_weights, phases_of
from vaecodec.training.layers import Quantised

CONFIG = Generative(side=8, latents=5, width=6, blocks=2, squeezed=3, expanded=4, fine=6, natural=3)


def random_weights(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Weights larger than the initial ones, so that every clip is reached."""
    rng = np.random.default_rng(seed)
    start = initial_weights(CONFIG, seed)
    return {name: (v + scale * rng.normal(0, 0.3, v.shape)).astype(np.float32) for name, v in start.items()}


def frozen_generator(weights: dict[str, np.ndarray]) -> generative.Generator:
    return generative.build_generator("random", "0" * 16, CONFIG, generative_arrays(weights), {})


def random_images(count: int, seed: int = 0) -> np.ndarray:
    """u8[count, 8, 8]: half of the pixels are 0, the others random."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 256, (count, 8, 8)) * rng.integers(0, 2, (count, 8, 8))).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_trained_graph_equals_integer_network(seed):
    weights, rng = random_weights(seed), np.random.default_rng(seed)
    model = frozen_generator(weights)
    quantised = Quantised({name: tf.constant(value, tf.float64) for name, value in weights.items()})
    x = random_images(3, seed)[..., None].astype(np.float64)
    actual = generative.encoder(model.ops, CONFIG, x.astype(np.float32))
    expected = generative.encoder(quantised, CONFIG, tf.constant(x / 64))
    assert np.array_equal(actual, expected.numpy() * 64)
    z = rng.integers(-1000, 1000, (3, 1, 1, CONFIG.latents)).astype(np.float64)
    features = generative.decoder(model.ops, CONFIG, z.astype(np.float32))
    expected = generative.decoder(quantised, CONFIG, tf.constant(z / 64))
    assert np.array_equal(features, expected.numpy() * 64) and np.abs(features).max() > 500
    corners = [part.numpy() for part in phases_of(tf.constant(x))]
    for number in range(PHASES):
        before = np.concatenate(corners[:number], -1) if number else None
        actual = generative.phase(model.ops, CONFIG, number, features, before)
        before = tf.constant(before / 64) if number else None
        assert np.array_equal(actual, generative.phase(quantised, CONFIG, number, expected, before).numpy() * 64)


def test_the_fused_activation_equals_the_unfused_one():
    x = tf.constant(np.random.default_rng(0).normal(0, 8, 10000), tf.float32)
    ops = Quantised({})
    for relu in (False, True):
        fused, expected = ops.activation(x, relu), ops.activation(tf.cast(x, tf.float64), relu)
        assert np.abs(fused.numpy() - expected.numpy()).max() <= 1 / 64  # halves may be rounded either way
        assert np.mean(fused.numpy() != expected.numpy()) < 1e-3


def test_hurdle_is_a_distribution():
    rng = np.random.default_rng(0)
    odds, natural, kernel, bias = (tf.constant(rng.normal(size=s)) for s in ((2,), (2, 3), (3, VALUES), (VALUES,)))
    density = Hurdle(odds, natural, kernel, bias)
    grid = np.arange(VALUES + 1.0)
    mass = np.exp([density.log_prob(np.full(2, v)).numpy() for v in grid])
    assert np.allclose(mass.sum(0), 1) and np.allclose(mass[0], 1 / (1 + 2.0 ** odds.numpy()))


def test_posterior_bins_have_the_masses_of_a_normal():
    """The divergence from the true masses costs less than 0.01 bits, from the widest to a narrow scale."""
    tables = discrete_tables()
    means, log_scales = np.array([0, 200, -300, 0, 40]), np.array([64, 0, 64, -64, -128])
    freq = generative.posterior(tables, means.astype(np.float32), log_scales.astype(np.float32))
    assert (freq >= 1).all() and (freq.sum(1) == TOTAL).all()
    edges = (
        distributions.Normal(0.0, np.float64(1)).quantile(np.arange(generative.COUNT + 1) / generative.COUNT).numpy()
    )
    true = distributions.Normal(means[:, None] / 256.0, 2.0 ** (log_scales[:, None] / 64 - 1))
    mass = np.diff(true.cdf(edges).numpy(), axis=1)
    divergence = np.where(mass > 0, mass * np.log2(np.maximum(mass, 1e-300) * TOTAL / freq), 0).sum(1)
    assert (divergence < 0.01).all()


def test_pixel_frequencies_follow_the_density():
    weights = random_weights(1)
    model, rng = frozen_generator(weights), np.random.default_rng(1)
    t = rng.integers(-200, 200, (6, 1 + CONFIG.natural)).astype(np.float32)
    ink = generative.ink(model.tables, t[:, 0])
    values = generative.values(model.tables, model.layers["values"], t[:, 1:])
    assert (ink >= 1).all() and (values >= 1).all() and (ink.sum(1) == TOTAL).all() and (values.sum(1) == TOTAL).all()
    density = GenerativeVAE(CONFIG, {k: v.astype(np.float64) for k, v in weights.items()})
    hurdle = density.likelihood(0, tf.zeros([1, 4, 4, CONFIG.fine], tf.float64), [])
    hurdle = Hurdle(
        tf.constant(t[:, 0] / 64.0, tf.float64), tf.constant(t[:, 1:] / 64.0, tf.float64), hurdle.kernel, hurdle.bias
    )
    expected = hurdle.values(hurdle.natural).probs_parameter().numpy()
    assert np.abs(values / TOTAL - expected).max() < 0.01
    assert np.allclose(ink[:, 1] / TOTAL, 1 / (1 + 2.0 ** (-t[:, 0] / 64)), atol=1e-6)


def test_coded_size_is_the_negative_elbo():
    weights = random_weights(2, 0.3)
    model, x = frozen_generator(weights), random_images(40, 2)
    vae = GenerativeVAE(CONFIG, {name: value.astype(np.float64) for name, value in weights.items()})
    expected = [
        vae.loss(x[..., None], tf.constant(1.0, tf.float64), tf.constant([n, 0])).bpd.numpy() for n in range(20)
    ]
    assert generation.negative_elbo(model, x, draws=20).mean() / 64 == pytest.approx(np.mean(expected), rel=0.005)
    data, consumed = image_sets.encode_words(model, x)
    assert 8 * len(data) / x.size == pytest.approx(np.mean(expected), rel=0.02)  # 40 images and the initial bits
    assert np.array_equal(image_sets.decode_words(model, data, consumed, len(x)), x)


def test_training_lowers_the_loss_and_resumes(tmp_path, capfd):
    from vaecodec.cli import main
    from vaecodec.model.file import read_config
    from vaecodec.training import load_checkpoint

    np.save(tmp_path / "set.npy", np.tile(np.pad(random_images(1), ((0, 0), (10, 10), (10, 10))), (20, 1, 1)))
    command = ["train", str(tmp_path / "set.npy"), "--out", str(tmp_path / "run"), "--preset", "digits", "--batch", "4"]
    for steps in (2, 101):
        assert main([*command, "--steps", str(steps), "--override"]) == 0
        config, options, state, progress = load_checkpoint(str(tmp_path / "run"))
        assert progress["steps"] == steps == state[-1] and options.rate == 1e-3 and config.to_dict()["natural"] == 6
    assert read_config(config.to_dict()) == config and progress["bpd"] < 4
    assert main(["freeze", str(tmp_path / "run"), "-o", str(tmp_path / "m.vcm")]) == 0
    images = np.load(tmp_path / "set.npy")[:3]
    import vaecodec

    data = vaecodec.encode_set(images, str(tmp_path / "m.vcm"))
    assert np.array_equal(vaecodec.decode_set(data, str(tmp_path / "m.vcm")), images)
    np.save(tmp_path / "other.npy", random_images(4))
    command[1] = str(tmp_path / "other.npy")
    assert main(command) == 1 and "expected 28" in capfd.readouterr().err


def test_neighbours_and_shuffles_equal_those_of_training():
    x = np.random.default_rng(0).integers(-9, 9, (2, 4, 4, 8)).astype(np.float32)
    ops, tensors = network.Exact({}), Quantised({})
    assert np.array_equal(ops.neighbours(x), tensors.neighbours(tf.constant(x)))
    assert np.array_equal(ops.shuffle(x, 2), tensors.shuffle(tf.constant(x), 2))
    assert np.array_equal(ops.unshuffle(x, 2), tensors.unshuffle(tf.constant(x), 2))
    corners = [part.numpy() for part in phases_of(tf.constant(x[..., :1]))]
    assert np.array_equal(corners[1][:, 0, 0], x[:, 1, 1, :1])
