"""Test integer layers and gains of the transforms: no sum overflows, and conversion is reversible."""

import numpy as np
import pytest

from vaecodec.config import ANCHORS, FINER, INDICES_PER_ANCHOR, LAST_ANCHOR, QUALITY_INDICES, Config, lambda_at
from vaecodec.errors import ModelError
from vaecodec.model.weights import (
    ACTIVATION_BITS,
    ACTIVATION_MAX,
    SHIFT_MAX,
    SUM_MAX,
    WEIGHT_MAX,
    integer_layer,
    inverse_gain,
    multiplier,
    subband_scales,
    transform_arrays,
    transform_weights,
)
from vaecodec.native.networks import Dense, Depthwise, dense
from vaecodec.transforms import networks
from vaecodec.transforms.latents import subband_of


def random_weights(rng, shape):
    """Weights of every magnitude: some outputs are large, some tiny, and one is 0."""
    weights = rng.normal(0, 1, shape) * 2.0 ** rng.uniform(-20, 1, shape[-1])
    weights[..., 0] = 0
    return weights


@pytest.mark.parametrize("shape", [(1, 5), (24, 40), (768, 32), (3, 3, 16)])
@pytest.mark.parametrize("bits", [(11, 11), (14, 11), (11, 14), (15, 11)])
def test_sums_cannot_overflow(shape, bits):
    rng = np.random.default_rng(len(shape))
    kernel, bias = random_weights(rng, shape), rng.normal(0, 3, shape[-1])
    layer = integer_layer(kernel, bias, *bits)
    assert [array.dtype for array in layer] == [np.int16, np.int32, np.uint8]
    flat = np.abs(layer.kernel.reshape(-1, shape[-1]).astype(np.int64))
    rounding = (1 << layer.shift.astype(np.int64)) >> 1
    sums = flat.sum(0) * ACTIVATION_MAX + np.abs(layer.bias.astype(np.int64)) + rounding
    assert sums.max() <= SUM_MAX and flat.max() <= WEIGHT_MAX and layer.shift.max() <= SHIFT_MAX
    if len(shape) == 2:
        Dense(*layer, limit=ACTIVATION_MAX)
    else:
        Depthwise(*layer, limit=ACTIVATION_MAX)


def test_layers_use_the_finest_possible_units():
    """A unit half as large would overflow or add no precision."""
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(0, 1, (100, 30)) * 2.0 ** rng.uniform(-4, 2, 30), rng.normal(0, 1, 30)
    layer = integer_layer(kernel, bias, 11, 11)
    finer = np.abs(np.rint(kernel * 2.0 ** (layer.shift + 1.0)))
    sums = finer.sum(0) * ACTIVATION_MAX + np.abs(bias) * 2.0 ** (layer.shift + 12.0)
    assert ((sums > 0.999 * SUM_MAX) | (finer.max(0) > WEIGHT_MAX) | (layer.shift == 20)).all()
    error = layer.kernel * 2.0 ** -layer.shift.astype(float) - kernel
    assert (np.abs(error) <= 0.5 * 2.0 ** -layer.shift.astype(float)).all()


def test_half_a_unit_of_rounding_counts_in_the_largest_sum():
    """In units of 2**-20 this bias is 1.5 * 2**18 below 2**31, and half a unit of the output 2**19."""
    layer = integer_layer(np.zeros((1, 1)), np.array([32 - 1.5 * 2.0**-8]), 6, 6)
    assert layer.shift == 19


def test_extreme_inputs_are_computed_exactly(kinds):
    """All products have the same sign; the sums are compared with Python integers."""
    rng = np.random.default_rng(2)
    layer = integer_layer(rng.normal(0, 1, (50, 9)), rng.normal(0, 1, 9), 11, 11)
    dense_layer = Dense(*layer, limit=ACTIVATION_MAX)
    for output in range(9):
        x = (ACTIVATION_MAX * np.sign(layer.kernel[:, output])).astype(np.int16)
        for sign in (1, -1):
            total = sum(int(a) * int(b) for a, b in zip(sign * x.astype(int), layer.kernel[:, output], strict=True))
            shift = int(layer.shift[output])
            total = (total + int(layer.bias[output]) + (1 << shift >> 1)) >> shift
            result = dense(dense_layer, (sign * x)[None])[0, output]
            assert result == min(max(total, -ACTIVATION_MAX), ACTIVATION_MAX)


@pytest.mark.parametrize("value", [1e7, -1e9, np.inf])
def test_weights_out_of_range_are_refused(value):
    with np.errstate(invalid="ignore"), pytest.raises(ModelError, match="too large"):
        integer_layer(np.array([[value]]), np.zeros(1), 11, 11)
    with np.errstate(invalid="ignore"), pytest.raises(ModelError, match="too large"):
        integer_layer(np.zeros((3, 2)), np.array([0, value]), 11, 11)


def test_interpolation_passes_through_the_anchors_and_is_monotonic():
    rng = np.random.default_rng(3)
    anchors = np.sort(rng.integers(-(20 << 12), 5 << 12, (ANCHORS, 40)), 0).astype(np.int32)
    for number in range(ANCHORS):
        np.testing.assert_array_equal(networks.interpolate(anchors, number * INDICES_PER_ANCHOR), anchors[number])
    interpolated = np.stack([networks.interpolate(anchors, index) for index in range(LAST_ANCHOR + 1)])
    assert (np.diff(interpolated, axis=0) >= 0).all()
    positions = np.arange(LAST_ANCHOR + 1) / INDICES_PER_ANCHOR
    exact = np.stack([np.interp(positions, np.arange(ANCHORS), column) for column in anchors.T], -1)
    assert np.abs(interpolated - exact).max() <= 0.5


def test_only_steps_become_smaller_beyond_the_last_anchor():
    rng = np.random.default_rng(4)
    anchors = rng.integers(-(20 << 12), 5 << 12, (ANCHORS, 40)).astype(np.int32)
    np.testing.assert_array_equal(networks.interpolate(anchors, QUALITY_INDICES - 1), anchors[-1])
    for index in (0, 500, LAST_ANCHOR):
        np.testing.assert_array_equal(networks.step_logarithms(anchors, index), networks.interpolate(anchors, index))
    np.testing.assert_array_equal(networks.step_logarithms(anchors, LAST_ANCHOR + 10), anchors[-1] - 10 * FINER)
    assert lambda_at(LAST_ANCHOR + 10) * 2.0 ** (-2 * 10 * FINER / 4096) == pytest.approx(
        lambda_at(LAST_ANCHOR), rel=0.01
    )  # lambda follows the squared step


def test_mantissas_do_not_depend_on_the_exponential():
    """No value is close to a half, so rounding errors of the exponential do not change the table."""
    exact = 2.0 ** (networks.MANTISSA_BITS + np.arange(1 << networks.LOG_BITS) / (1 << networks.LOG_BITS))
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-6
    table = networks.mantissas()
    assert table[0] == 1 << networks.MANTISSA_BITS and table.max() <= 1 << (networks.MANTISSA_BITS + 1)
    assert (np.diff(table) > 0).all()


@pytest.mark.parametrize("bits", [0, 8])
def test_scaled_gains_are_powers_of_two(bits):
    logarithms = np.arange(-(26 << 12), 6 << 12, 997)
    mantissa, shift = networks.scaled_gains(logarithms, bits)
    assert mantissa.min() >= 1 << 13 and mantissa.max() <= 1 << 14
    np.testing.assert_allclose(mantissa / 2.0**shift, 2.0 ** (logarithms / 4096 + bits), rtol=2.0**-13)
    if bits == 8:
        assert shift.min() >= 0 and shift.max() <= 31


def test_products_of_gains_stay_within_32_bits():
    """Values are within +-2**16 and mantissas at most 2**14, so products with rounding are below 2**31."""
    mantissa, shift = networks.scaled_gains(np.arange(-(26 << 12), 6 << 12), 8)
    most = (mantissa.astype(np.int64) << 16) + ((np.int64(1) << shift) >> 1)
    assert most.max() < 2**31 + 2**30  # wraps alike on every machine, and only far beyond pixels
    assert most[shift <= 30].max() < 2**31


def test_multipliers_are_rounded_and_bounded():
    logarithms = np.array([0, -4096, 4096, 2 << 12, 3 << 12, 20 << 12, -(20 << 12), -(2**31), 2**31 - 1, 100])
    multipliers = networks.multipliers(logarithms.astype(np.int64))
    assert multipliers.tolist() == [4096, 2048, 8192, 16384, 32767, 32767, 0, 0, 32767, round(4096 * 2 ** (100 / 4096))]


CONFIG = Config(8, 1, 12, 1, prior=8, coarser=12, hyper_width=10)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_subband_has_a_scale(channels):
    assert len(subband_scales(channels)) == 13 * channels and (subband_scales(channels) > 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_float_weights_are_restored_from_integers(channels):
    """The weights differ only by the rounding of each layer's units."""
    config = Config(8, 1, 12, 1, prior=8, coarser=12, hyper_width=10, channels=channels)
    rng = np.random.default_rng(channels)
    fine, coarse, latents = config.fine, config.coarse, config.latents
    shapes = {"latents": (latents, coarse), "coarse": (coarse, 4 * fine), "skip": (64 * channels, fine)}
    shapes |= {"fine": (fine, 64 * channels)}
    all_shapes = {f"synthesis/{name}": shape for name, shape in shapes.items()}
    all_shapes |= {"analysis/fine": (64 * channels, fine), "analysis/coarse": (4 * fine, coarse)}
    all_shapes |= {"analysis/latents": (coarse, latents)}
    for side in ("synthesis", "analysis"):
        for block, width in (("fine0", fine), ("coarse0", coarse)):
            square = {part: (width, width) for part in ("in", "out", "mix")}
            square |= {"gate": (width, 2 * width), "space": (3, 3, width)}
            all_shapes |= {f"{side}/{block}/{part}": shape for part, shape in square.items()}
    weights = {}
    for name, shape in all_shapes.items():
        weights[f"{name}/kernel"] = rng.normal(0, 0.1, shape).astype(np.float32)
        weights[f"{name}/bias"] = rng.normal(0, 0.1, shape[-1]).astype(np.float32)
    weights["synthesis/latents/bias"][:] = 0
    # All coefficients of a subband have the gain of the subband.
    steps = np.log(rng.uniform(0.01, 0.5, (ANCHORS, 13 * channels)))
    anchors = {"inverse_gain": steps[:, subband_of(channels)]}
    for side, last in (("synthesis", fine), ("analysis", coarse)):
        anchors[f"{side}/fine"] = rng.normal(0, 0.5, (ANCHORS, fine))
        anchors[f"{side}/out"] = rng.normal(0, 0.5, (ANCHORS, last))
    arrays = transform_arrays(config, weights, anchors)
    # The analysis sees level 255 as 64 * 255 in units of 2**-15, and was trained to see it as 0.5.
    bits = arrays["analysis/fine/shift"].astype(int) + ACTIVATION_BITS - 15
    white = np.ldexp(arrays["analysis/fine/kernel"].astype(float), -bits) * 64 * 255 / 2**15
    np.testing.assert_allclose(white, weights["analysis/fine/kernel"] / 2, atol=0.005)
    restored = transform_weights(config, arrays)
    assert set(restored) == set(weights)
    for name, array in weights.items():
        most = np.abs(array).max()
        np.testing.assert_allclose(restored[name], array, atol=0.01 * most, err_msg=name)
    for number in (0, 3, ANCHORS - 1):
        index = number * INDICES_PER_ANCHOR
        np.testing.assert_allclose(
            inverse_gain(config, arrays, index), np.exp(anchors["inverse_gain"][number]), rtol=2e-4
        )
        for block in ("synthesis/fine", "analysis/out"):
            np.testing.assert_allclose(multiplier(arrays, block, index), np.exp(anchors[block][number]), rtol=2e-4)
