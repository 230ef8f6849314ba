"""The exact networks: independent of summation order, and equal to what was trained, value for value."""

from types import SimpleNamespace

import numpy as np
import pytest

from vaecodec import cells as cells_of
from vaecodec import context, network
from vaecodec.config import LEVELS, Config
from vaecodec.errors import ModelError
from vaecodec.integer import CONTEXT_MAX, Conditions, Exact, Layer, parity, prepare, put_half, take_half

CONFIG = Config(latents=24, hyper=6, fine=8, fine_blocks=1, coarse=8, coarse_blocks=1, prior=20, hyper_width=12)


def random_prior(seed: int, scale: float = 1.0):
    """(float weights, integer weights) of CONFIG's prior, large enough to reach every clip."""
    from vaecodec.freezing import integer_weights
    from vaecodec.vae import initial_weights, specification

    rng = np.random.default_rng(seed)
    weights = initial_weights(CONFIG, seed)
    for name in specification(CONFIG)["prior"].weights:
        weights[name] = (weights[name] + scale * rng.normal(0, 0.2, weights[name].shape)).astype(np.float32)
    prefix = len("integer/")
    return weights, {name[prefix:]: value for name, value in integer_weights(CONFIG, weights).items()}


def conditions(rng: np.random.Generator) -> Conditions:
    gain = rng.integers(200, 5000, CONFIG.latents)
    bias = rng.integers(-100, 100, CONFIG.prior)
    return Conditions(
        bias, gain, (1 << 20) // gain, rng.integers(-200, 200, CONFIG.latents), rng.integers(500, 2000, CONFIG.hyper)
    )


@pytest.mark.parametrize("seed", range(4))
def test_trained_graph_equals_integer_network(seed):
    tf = pytest.importorskip("tensorflow")
    from vaecodec import layers

    rng = np.random.default_rng(seed)
    weights, integers = random_prior(seed)
    fixed = conditions(rng)
    exact = Exact(prepare(integers), fixed)
    double = {name: tf.constant(value, tf.float64) for name, value in weights.items()}
    quantised = layers.Quantised(double, {"hyper": tf.constant(fixed.bias / 64.0)[None, None, None]})

    z = rng.integers(-600, 600, (2, 3, CONFIG.hyper)).astype(np.float64)
    half = np.rint(rng.standard_cauchy((8 * 12, CONFIG.latents // 2)) * 300).clip(-CONTEXT_MAX, CONTEXT_MAX)
    y, known = np.zeros((8, 12, CONFIG.latents), np.float32), np.empty((8, 12, CONFIG.latents // 2), np.float32)
    put_half(half, y, 0)
    known.reshape(half.shape)[np.concatenate(parity(8, 12))] = half

    def run(ops, z, y):
        features = network.hyper_synthesis(ops, CONFIG, z)
        features, first = network.first_parameters(ops, CONFIG, features)
        return features, first, network.second_parameters(ops, CONFIG, features, y)

    features, first, second = run(exact, z, known)
    wanted = run(quantised, tf.constant(z / 64.0)[None], tf.constant(y.astype(np.float64) / 64.0)[None])
    assert np.array_equal(features, wanted[0].numpy()[0] * 64)
    assert np.abs(features).max() > 500  # the test reaches well into the range
    middle = CONFIG.latents // 2
    for got, (loc, index) in ((first, wanted[1]), (second, wanted[2])):
        for cells, (mean, rung) in zip(parity(8, 12), got, strict=True):
            assert np.array_equal(mean, loc.numpy()[0].reshape(-1, middle)[cells] * 2.0**15)
            assert np.array_equal(rung, np.floor(index.numpy()[0].reshape(-1, middle)[cells] * 16 + 0.5))


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_summation_gives_the_same(seed):
    rng = np.random.default_rng(seed)
    kernel = rng.integers(-2000, 2000, (300, 40))
    layers = prepare({"a/kernel": kernel, "a/bias": rng.integers(-(2**20), 2**20, 40)})
    x = rng.integers(-1023, 1024, (4, 5, 300)).astype(np.float32)
    empty = Conditions(*[np.zeros(1)] * 5)
    straight = Exact(layers, empty).dense("a", x, 40)
    order = rng.permutation(300)
    shuffled = {"a": Layer(layers["a"].kernel[order], layers["a"].bias)}
    assert np.array_equal(Exact(shuffled, empty).dense("a", x[..., order], 40), straight)
    sums = x.reshape(-1, 300).astype(np.int64) @ kernel + layers["a"].bias.astype(np.int64)
    assert np.array_equal(straight.reshape(-1, 40), np.clip((sums + 256) >> 9, -1023, 1023))


@pytest.mark.parametrize("size", [20, 60])
def test_outputs_beyond_float32_are_exact_too(size):
    rng = np.random.default_rng(size)
    kernel = rng.integers(-300, 300, (size, 7)) * np.array([1, 100, 1, 1, 100, 1, 1])
    layer = prepare({"a/kernel": kernel, "a/bias": rng.integers(-(2**20), 2**20, 7)})["a"]
    assert layer.beyond is not None and layer.beyond.tolist() == [1, 4]
    x = rng.choice([-1023.0, 1023.0], (50, size)).astype(np.float32)
    wanted = x.astype(np.int64) @ kernel + layer.bias.astype(np.int64)
    assert np.array_equal(layer.product(x), wanted)
    assert np.array_equal(layer.product(x, slice(2, 5)), wanted[:, 2:5])
    assert layer.product(x, slice(2, 4)).dtype == np.float32
    part = x[:, :8].astype(np.int64) @ kernel[:8] + layer.bias.astype(np.int64)
    assert np.array_equal(layer.product(x[:, :8], inputs=slice(0, 8)), part)


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (7, 5), (9, 4), (40, 3)])
def test_bands_give_what_the_whole_gives(shape, monkeypatch):
    rng = np.random.default_rng(0)
    _, integers = random_prior(1)
    levels = Conditions(*(np.stack([field] * LEVELS) for field in conditions(rng)))
    rows = np.zeros(64 + context.HYPER_GROUPS * CONFIG.hyper + 1)
    models = SimpleNamespace(tables=SimpleNamespace(low=rows))
    prior = context.Prior(CONFIG, prepare(integers), levels, models)
    seen = []
    for cells in (1, 16, 10**6):
        monkeypatch.setattr(cells_of, "BAND", cells)
        monkeypatch.setattr(cells_of, "LEAST", 2)
        steps, found, rng = context.walk(prior, shape, 0), [], np.random.default_rng(3)
        question = next(steps)
        with pytest.raises(StopIteration) as end:
            while True:
                found += question
                question = steps.send(rng.integers(-40, 40, question[0].shape).astype(np.int32))
        seen.append([*found, end.value.value])
    for other in seen[1:]:
        assert all(np.array_equal(one, two) for one, two in zip(seen[0], other, strict=True))


def test_float_type_follows_from_the_bound():
    small, large = np.full((10, 1), 100), np.full((10, 1), 30000)
    layers = prepare({"s/kernel": small, "s/bias": np.zeros(1), "l/kernel": large, "l/bias": np.zeros(1)})
    assert layers["s"].kernel.dtype == np.float32 and layers["l"].kernel.dtype == np.float64
    with pytest.raises(ModelError):
        prepare({"x/kernel": np.full((10, 1), 2**62), "x/bias": np.zeros(1)})


@pytest.mark.parametrize("shape", [(1, 1, 4), (1, 5, 6), (4, 3, 8)])
def test_halves_cover_everything_once(shape):
    x = np.arange(1, np.prod(shape) + 1, dtype=np.float64).reshape(shape)
    first, second = np.zeros(shape), np.zeros(shape)
    put_half(take_half(x, 0), first, 0)
    put_half(take_half(x, 1), second, 1)
    assert np.array_equal(first + second, x)
    assert np.count_nonzero(first) == np.count_nonzero(second) == x.size // 2
    assert not np.any((first != 0) & (second != 0))


def test_halves_agree_with_the_training_graph():
    pytest.importorskip("tensorflow")
    from vaecodec import layers

    x = np.random.default_rng(0).normal(size=(6, 5, 8)).astype(np.float32)
    for half in (0, 1):
        taken = layers.take_half(x[None], half)
        put = np.zeros_like(x)
        put_half(take_half(x, half), put, half)
        assert np.array_equal(layers.put_half(taken, half).numpy()[0], put)


def test_levels_cover_every_step():
    from vaecodec.config import LEVEL_STEPS, STEPS

    assert (STEPS - 1) // LEVEL_STEPS == LEVELS - 1
