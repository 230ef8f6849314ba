"""Test the exact networks: results are independent of the order of summation, and every sum is exact."""

import numpy as np
import pytest

from vaecodec.config import LEVELS
from vaecodec.errors import ModelError
from vaecodec.model.network import Exact, Layer, prepare


@pytest.mark.parametrize("seed", range(3))
def test_results_do_not_depend_on_the_order_of_summation(seed):
    rng = np.random.default_rng(seed)
    kernel = rng.integers(-2000, 2000, (300, 40))
    layers = prepare({"a/kernel": kernel, "a/bias": rng.integers(-(2**20), 2**20, 40)})
    x = rng.integers(-1023, 1024, (4, 5, 300)).astype(np.float32)
    straight = Exact(layers).dense("a", x, 40)
    order = rng.permutation(300)
    shuffled = {"a": Layer(layers["a"].kernel[order], layers["a"].bias)}
    assert np.array_equal(Exact(shuffled).dense("a", x[..., order], 40), straight)
    sums = x.reshape(-1, 300).astype(np.int64) @ kernel + layers["a"].bias.astype(np.int64)
    assert np.array_equal(straight.reshape(-1, 40), np.clip((sums + 256) >> 9, -1023, 1023))


@pytest.mark.parametrize("size", [20, 60])
def test_outputs_beyond_float32_are_exact(size):
    rng = np.random.default_rng(size)
    kernel = rng.integers(-300, 300, (size, 7)) * np.array([1, 100, 1, 1, 100, 1, 1])
    layer = prepare({"a/kernel": kernel, "a/bias": rng.integers(-(2**20), 2**20, 7)})["a"]
    assert layer.wide is not None and layer.wide.tolist() == [1, 4]
    x = rng.choice([-1023.0, 1023.0], (50, size)).astype(np.float32)
    expected = x.astype(np.int64) @ kernel + layer.bias.astype(np.int64)
    assert np.array_equal(layer.product(x), expected)
    assert np.array_equal(layer.product(x, slice(2, 5)), expected[:, 2:5])
    assert layer.product(x, slice(2, 4)).dtype == np.float32


def rounded(sums, low=-1023):
    """Sums in units of 2**-15 as activations in units of 2**-6."""
    return np.clip((sums + 256) >> 9, low, 1023)


def test_operations_equal_their_definitions_in_64_bits():
    rng = np.random.default_rng(5)
    batch, h, w, c = 2, 3, 4, 6
    shapes = {"gate": (c, 2 * c), "mix": (h * w, h * w), "space": (3, 3, c)}
    weights = {f"{name}/kernel": rng.integers(-300, 300, shape) for name, shape in shapes.items()}
    weights |= {f"{name}/bias": rng.integers(-(2**18), 2**18, shape[-1]) for name, shape in shapes.items()}
    x, y = rng.integers(-1023, 1024, (2, batch, h, w, c))
    exact, as_floats = Exact(prepare(weights)), x.astype(np.float32)

    gated, mixed = exact.gate("gate", as_floats.copy()), exact.mix("mix", as_floats.copy())
    sums = x @ weights["gate/kernel"] + weights["gate/bias"]
    assert np.array_equal(gated, np.clip((rounded(sums[..., :c], 0) * rounded(sums[..., c:]) + 32) >> 6, -1023, 1023))
    along = np.moveaxis(x.reshape(batch, h * w, c), 1, 2) @ weights["mix/kernel"] + weights["mix/bias"]
    assert np.array_equal(mixed, np.moveaxis(rounded(along), 2, 1).reshape(x.shape))

    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    near = [padded[:, top : top + h, left : left + w] for top in range(3) for left in range(3)]
    taps = weights["space/kernel"].reshape(9, c)
    spread = sum(part * tap for part, tap in zip(near, taps, strict=True)) + weights["space/bias"]
    assert np.array_equal(exact.depthwise("space", as_floats), rounded(spread))
    assert np.array_equal(exact.neighbours(as_floats), np.concatenate(near, 3))

    assert np.array_equal(exact.concat(as_floats, y.astype(np.float32)), np.concatenate([x, y], 3))
    assert np.array_equal(exact.add(as_floats, y.astype(np.float32)), np.clip(x + y, -1023, 1023))
    assert np.array_equal(exact.unflatten(exact.flatten(x[:, :3, :3]), 3), x[:, :3, :3])
    squares = exact.shuffle(x[..., :4], 2)
    assert squares.shape == (batch, 2 * h, 2 * w, 1) and np.array_equal(squares[0, :2, :2, 0].ravel(), x[0, 0, 0, :4])
    assert np.array_equal(exact.unshuffle(squares, 2), x[..., :4])


def test_the_float_type_follows_from_the_bound():
    small, large = np.full((10, 1), 100), np.full((10, 1), 30000)
    layers = prepare({"s/kernel": small, "s/bias": np.zeros(1), "l/kernel": large, "l/bias": np.zeros(1)})
    assert layers["s"].kernel.dtype == np.float32 and layers["l"].kernel.dtype == np.float64
    with pytest.raises(ModelError):
        prepare({"x/kernel": np.full((10, 1), 2**62), "x/bias": np.zeros(1)})


@pytest.mark.parametrize(
    ("bias", "dtype"), [(2**24 - 1023 * 8 - 512 - 1, np.float32), (2**24 - 1023 * 8 - 512, np.float64)]
)
def test_sums_of_24_bits_and_more_are_computed_in_double_precision(bias, dtype):
    layer = prepare({"a/kernel": np.ones((8, 1)), "a/bias": np.array([bias])})["a"]
    assert layer.kernel.dtype == dtype


def test_levels_cover_every_quality_index_up_to_the_last_anchor():
    from vaecodec.config import INDICES_PER_LEVEL, LAST_ANCHOR, QUALITY_INDICES
    from vaecodec.prior import level_of

    assert LAST_ANCHOR // INDICES_PER_LEVEL == LEVELS - 1
    levels = [level_of(index) for index in range(QUALITY_INDICES)]
    assert levels == sorted(levels) and set(levels) == set(range(LEVELS))
    assert set(levels[LAST_ANCHOR:]) == {LEVELS - 1}
