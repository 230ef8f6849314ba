"""Test the exact networks: results are independent of the order of summation, and every sum is exact."""

import numpy as np
import pytest

from vaecodec.config import LEVELS
from vaecodec.errors import ModelError
from vaecodec.model.exact import Exact, Layer, prepare


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
    from vaecodec.prior.context_model import level_of

    assert LAST_ANCHOR // INDICES_PER_LEVEL == LEVELS - 1
    levels = [level_of(index) for index in range(QUALITY_INDICES)]
    assert levels == sorted(levels) and set(levels) == set(range(LEVELS))
    assert set(levels[LAST_ANCHOR:]) == {LEVELS - 1}
