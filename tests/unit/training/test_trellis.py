"""Training on the trellis's symbols: its rate is that of the coder, and its gradients are those of the cost."""

from contextlib import nullcontext

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from support.images import synthetic_image
from support.training import eager
from vaecodec.config import INDICES_PER_ANCHOR, SQUARED_STEPS_PER_BIT
from vaecodec.entropy import coding
from vaecodec.model.file import load_model
from vaecodec.prior import choose_symbols
from vaecodec.rdo import quantizer, targets
from vaecodec.training.densities import load_trellis
from vaecodec.training.freezing import unfreeze
from vaecodec.training.train_step import Layout, Options, make_step
from vaecodec.training.vae import VAE
from vaecodec.transforms.wavelet import quantisation_targets


@pytest.fixture(scope="module")
def trellis():
    return load_trellis("small")


@pytest.fixture(scope="module")
def trained():
    return unfreeze(load_model("small"))


def bits_of_the_coder(image, quality_index):
    model = load_model("small")
    [coefficients] = model.transforms.analysis([image], quality_index)
    parts = targets(model.prior, quantisation_targets(coefficients, model.gains.scaled(quality_index)), quality_index)
    choose = quantizer(model.prior, model.models.tables)
    coded, _ = choose_symbols(
        model.prior, coefficients.cells, quality_index, lambda part, distributions: choose(parts[part], distributions)
    )
    tables = model.models.tables  # without scale offsets, which the loss does not have
    return sum(coding.outlier_bits(tables, *part) + tables.bits(*part) for part in coded)


@pytest.mark.parametrize("quality_index", [196, 452, 708])
def test_rate_is_that_of_the_coder(trellis, trained, quality_index):
    image = synthetic_image(128, 192)
    config, weights = trained
    # A level of the coder's conditions is their middle.
    quality = (quality_index // 8 * 8 + 3.5) / INDICES_PER_ANCHOR
    loss = VAE(config, weights).prior_loss(tf.constant(image[None]), tf.constant([quality], tf.float32), trellis)
    bits = bits_of_the_coder(image, quality_index)
    assert float(loss.bpp) * 128 * 192 == pytest.approx(bits, rel=0.02)


def test_gradients_are_those_of_the_cost(trellis):
    rng = np.random.default_rng(1)
    target = tf.constant(rng.laplace(0, 3, (1, 16, 16, 4)), tf.float32)
    loc = tf.constant(rng.integers(-64, 64, target.shape) / 64, tf.float32)
    index = tf.constant(rng.uniform(trellis.first + 1, 50, target.shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([loc, index])
        rate, error, _ = trellis.cost(target, loc, index, None)
        cost = tf.reduce_sum(rate + error)
    by_loc, by_index = tape.gradient(cost, [loc, index])
    symbols, _ = trellis.choose(target, loc, index, None)
    zero = symbols.numpy() == 0
    assert 0.1 < zero.mean() < 0.9
    np.testing.assert_allclose(by_loc[zero], -2 * (target - loc)[zero] / SQUARED_STEPS_PER_BIT, rtol=1e-5, atol=1e-5)
    higher, lower = (trellis.rate(symbols, tf.floor(index) + step) for step in (1.0, 0.0))
    np.testing.assert_allclose(by_index, higher - lower, rtol=1e-3, atol=1e-3)


def test_the_slope_is_the_mean_gradient_of_the_cost(trellis):
    """J(r), the least cost of a residual, rises as much as its slopes say, over residuals of a wide density."""
    count = 64 * 256
    residual = np.random.default_rng(2).uniform(6, 14, (1, 1, count, 1)).astype(np.float32)
    index = tf.fill(residual.shape, 38.0)
    costs, gradients = [], []
    for shift in (0.0, 1.0):
        loc = tf.fill(residual.shape, -shift)
        with tf.GradientTape() as tape:
            tape.watch(loc)
            rate, error, _ = trellis.cost(tf.constant(residual), loc, index, None)
            cost = tf.reduce_mean(rate + error)
        costs.append(float(cost))
        gradients.append(-float(tf.reduce_sum(tape.gradient(cost, loc))))
    assert costs[1] - costs[0] == pytest.approx(np.mean(gradients), rel=0.1)


def test_places_outside_the_mask_cost_nothing(trellis):
    mask = tf.constant(np.arange(64).reshape(1, 8, 8, 1) % 2 == 0)
    target, index = tf.fill([1, 8, 8, 3], 4.0), tf.fill([1, 8, 8, 3], 30.0)
    rate, error, values = trellis.cost(target, tf.zeros_like(target), index, mask)
    outside = ~np.broadcast_to(mask, target.shape)
    assert not any(np.any(x.numpy()[outside]) for x in (rate, error, values))
    assert np.all(rate.numpy()[~outside] > 0)


def test_uncoded_places_learn_from_what_they_miss(trellis):
    """Where table 0 is predicted, a large coefficient raises its index, and a small one lowers it a little."""
    index = tf.fill([1, 1, 2, 1], float(trellis.first) - 1)
    target = tf.reshape(tf.constant([0.0, 2.2]), [1, 1, 2, 1])
    with tf.GradientTape() as tape:
        tape.watch(index)
        rate, _, _ = trellis.cost(target, tf.zeros_like(target), index, None)
    small, large = tape.gradient(rate, index).numpy().ravel()
    assert large < -0.5 and 0 <= small < 0.01


def test_values_of_zeros_alone_move_with_their_means(trellis):
    rng = np.random.default_rng(3)
    target, index = tf.constant(rng.laplace(0, 3, (1, 16, 16, 4)), tf.float32), tf.fill([1, 16, 16, 4], 30.0)
    loc = tf.constant(rng.integers(-64, 64, target.shape) / 64, tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(loc)
        rate, values = trellis.code(target, loc, index, None)
    symbols, chosen = trellis.choose(target, loc, index, None)
    np.testing.assert_array_equal(values, chosen)
    np.testing.assert_allclose(rate, trellis.rate(symbols, index), rtol=1e-6)
    zero = symbols.numpy() == 0
    np.testing.assert_array_equal(tape.gradient(values, loc), zero)
    np.testing.assert_allclose(tape.gradient(rate, loc), -trellis.slope(symbols, index), rtol=1e-6)
    assert zero.any() and not zero.all()


def lower_loss(trained, hard):
    """Take steps from a prior whose scales are too large; return the names of the weights that changed.

    A trace of the last phase takes as long as six eager steps, one of the others as eleven.
    """
    config, weights = trained
    weights = {name: value.copy() for name, value in weights.items()}
    for octave in range(5):
        weights[f"context/{octave}/first/bias"][18:] += 0.2
    layout = Layout(weights)
    step = make_step(config, Options(batch=2, crop=64, trellis="small"), hard)
    step = tf.function(step, autograph=False) if hard else step
    state = [tf.constant(value) for value in layout.initial_state(weights)]
    images, losses = tf.constant(np.stack([synthetic_image(64, 64, n) for n in (1, 2)])), []
    with nullcontext() if hard else eager():
        for _ in range(6):
            state, metrics = step(state, images, tf.constant(2e-3), tf.constant([0, 1]))
            losses.append(float(metrics[0]))
    assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]
    after = layout.unpack(state[0].numpy())
    return {name for name in weights if not np.array_equal(after[name], weights[name])}


def test_training_lowers_the_cost_of_symbols(trained):
    changed = lower_loss(trained, hard=False)
    assert {name.partition("/")[0] for name in changed} >= {"analysis", "context", "synthesis"}


def test_the_last_phase_trains_the_prior_alone(trained):
    changed = lower_loss(trained, hard=True)
    assert changed and all(name.startswith(("context/", "lowest/", "start")) for name in changed)
