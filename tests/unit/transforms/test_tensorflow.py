"""Test that TensorFlow transforms equal the native core, for every way to compute the products of layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from vaecodec.config import PRESETS, Config
from vaecodec.errors import CodecError, ModelError
from vaecodec.model.weights import block_layers, transform_arrays
from vaecodec.native import networks
from vaecodec.native.transforms import FilterWeights
from vaecodec.transforms import NativeTransforms, Transforms, load_transforms
from vaecodec.transforms import tensorflow as tensors
from vaecodec.transforms.networks import integer_color_transform
from vaecodec.transforms.wavelet import Coefficients, empty_coefficients

PRODUCTS = {"float64": tensors.float64_product, "bytes": tensors.bytes_product}
QUALITY_INDICES = (0, 451, 896)
BATCHES = ((1, 1, 3), (2, 7, 1), (9, 1, 1), (3, 4, 3))  # cells in height and width, images


def small_model(channels: int = 3, seed: int = 0) -> tuple[Config, dict[str, np.ndarray]]:
    """Random weights, large enough that activations reach their limits."""
    config = replace(PRESETS["small"], channels=channels, fine=12, fine_blocks=1, coarse=20, coarse_blocks=2)
    rng, fine, coarse = np.random.default_rng(seed), config.fine, config.coarse
    shapes: dict[str, tuple[int, ...]] = {
        "synthesis/latents": (256 * channels, coarse),
        "synthesis/coarse": (coarse, 4 * fine),
        "synthesis/skip": (64 * channels, fine),
        "synthesis/fine": (fine, 64 * channels),
        "analysis/fine": (64 * channels, fine),
        "analysis/coarse": (4 * fine, coarse),
        "analysis/latents": (coarse, 256 * channels),
    }
    for name in (layer for side in ("synthesis", "analysis") for layer in block_layers(config, side)):
        width = fine if "/fine" in name else coarse
        shapes[name] = (3, 3, width) if name.endswith("space") else (width, width * (1 + name.endswith("gate")))
    weights = {}
    for name, shape in shapes.items():
        deviation = 2 / np.sqrt(np.prod(shape[:-1]))
        weights[f"{name}/kernel"] = rng.normal(0, deviation, shape)
        weights[f"{name}/bias"] = rng.normal(0, 0.1, shape[-1])
    widths = {"synthesis/fine": fine, "synthesis/out": fine, "analysis/fine": fine, "analysis/out": coarse}
    anchors = {name: rng.normal(0, 0.5, (8, width)) for name, width in widths.items()}
    anchors["inverse_gain"] = np.zeros((8, 256 * channels))
    return config, transform_arrays(config, weights, anchors)


def images_of(rng: np.random.Generator, h: int, w: int, count: int, channels: int) -> list[np.ndarray]:
    """The first `count` of three images: noise, white and black."""
    shape = (16 * h, 16 * w, channels)
    images = [rng.integers(0, 256, shape, np.uint8), np.full(shape, 255, np.uint8), np.zeros(shape, np.uint8)]
    return images[:count]


def random_coefficients(
    rng: np.random.Generator, h: int, w: int, count: int, reach: int, channels: int
) -> list[Coefficients]:
    """Coefficients from -reach to reach - 1."""
    batch = [empty_coefficients(channels, (h, w)) for _ in range(count)]
    for plane in (plane for coefficients in batch for plane in coefficients.planes()):
        plane[...] = rng.integers(-reach, reach, plane.shape)
    return batch


def random_filter(rng: np.random.Generator, channels: int) -> FilterWeights:
    arrays = (rng.integers(-60, 61, (2, 9)), [9, 8], [2696], rng.integers(-60, 61, 2 * channels))
    return FilterWeights(integer_color_transform(channels), *(np.asarray(values, np.int32) for values in arrays))


TransformPair = tuple[NativeTransforms, tensors.TensorFlowTransforms]


@pytest.fixture(scope="module", params=[("float64", 3), ("bytes", 5)], ids=str)
def transform_pair(request: pytest.FixtureRequest) -> TransformPair:
    """Native and TensorFlow transforms of a model of 3 channels, or of 5, whose colour sums wrap on white pixels."""
    product, channels = request.param
    config, arrays = small_model(channels)
    tensorflow = tensors.TensorFlowTransforms(config, arrays, product=PRODUCTS[product])
    return NativeTransforms(config, arrays), tensorflow


def channels_of(transforms: NativeTransforms) -> int:
    return transforms.synthesis.channels


def assert_same(arrays: list[np.ndarray], expected_arrays: list[np.ndarray]) -> None:
    for array, expected in zip(arrays, expected_arrays, strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def assert_same_synthesis(
    native: Transforms,
    tensorflow: Transforms,
    batch: list[Coefficients],
    quality_index: int,
    weights: FilterWeights,
) -> None:
    assert_same(native.levels(batch, quality_index), tensorflow.levels(batch, quality_index))
    assert_same(native.pixels(batch, quality_index), tensorflow.pixels(batch, quality_index))
    assert_same(native.pixels(batch, quality_index, weights), tensorflow.pixels(batch, quality_index, weights))


@pytest.mark.parametrize("quality_index", QUALITY_INDICES)
def test_transforms_equal_the_native_core(transform_pair: TransformPair, quality_index: int) -> None:
    native, tensorflow = transform_pair
    rng = np.random.default_rng(quality_index)
    for h, w, count in BATCHES:
        images, weights = (
            images_of(rng, h, w, count, channels_of(native)),
            random_filter(rng, channels_of(transform_pair[0])),
        )
        batch = native.analysis(images, quality_index)
        for expected, coefficients in zip(batch, tensorflow.analysis(images, quality_index), strict=True):
            assert_same(expected.planes(), coefficients.planes())
        assert_same_synthesis(native, tensorflow, batch, quality_index, weights)


@pytest.mark.parametrize("reach", [2**12, 2**20, 2**31])
def test_coefficients_of_any_size_give_equal_pixels(transform_pair: TransformPair, reach: int) -> None:
    rng = np.random.default_rng(reach)
    batch = random_coefficients(rng, 2, 3, 2, reach, channels_of(transform_pair[0]))
    batch[0].low[...] = batch[0].subbands[0][...] = -reach
    batch[1].low[...] = batch[1].subbands[1][...] = reach - 1
    assert_same_synthesis(*transform_pair, batch, 300, random_filter(rng, channels_of(transform_pair[0])))


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("form", ["linear", "relu", "gate"])
@pytest.mark.parametrize("weight", [127, -128, 1000, 32767])
def test_sums_close_to_2_31_are_exact(product: str, form: str, weight: int) -> None:
    inputs = 65535 // abs(weight)
    rng = np.random.default_rng(0)
    kernel = np.full((inputs, 6), weight, np.int16) * rng.choice([1, -1], (inputs, 6)).astype(np.int16)
    kernel[:, 0] = weight
    layer = networks.Dense(kernel, rng.integers(-999, 999, 6), np.arange(11, 17), form, 32767, 11)
    x = rng.choice(np.array([-32767, 32767], np.int16), (1, 2, 5, inputs))
    x[0, 0, 0], x[0, 0, 1] = 32767, -32767
    outputs = tensors.Layers(PRODUCTS[product]).dense(layer, tf.constant(x, tf.float64))
    np.testing.assert_array_equal(outputs.numpy(), networks.dense(layer, x))


def test_byte_products_are_exact_with_bfloat16_factors() -> None:
    kernel = np.random.default_rng(0).integers(-32768, 32768, (1, 500)).astype(np.int16)
    x = np.arange(-32767, 32768, 97)[:, None]
    factors = []

    def rounding_product(a: Any, b: Any, axes: int) -> np.ndarray:
        factors.extend([a, b])
        a, b = (tf.cast(tf.cast(factor, tf.bfloat16), tf.float32).numpy() for factor in (a, b))
        return np.tensordot(a, b, axes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf, "tensordot", rounding_product)
        products = tensors.bytes_product(tf.constant(x, tf.float64), kernel)
    assert {factor.dtype for factor in factors} == {tf.float32}
    np.testing.assert_array_equal(products, x * kernel.astype(np.int64))


def test_functions_are_traced_once_and_contain_their_weights(transform_pair: TransformPair) -> None:
    native, tensorflow = transform_pair
    rng = np.random.default_rng(0)
    for h, w, count in BATCHES[:2]:
        tensorflow.levels(native.analysis(images_of(rng, h, w, count, channels_of(native)), 9), 9)
    assert tensorflow.level_function.experimental_get_tracing_count() == 1
    assert not tensorflow.level_function.get_concrete_function().captured_inputs


def test_devices_select_the_transforms() -> None:
    config, arrays = small_model()
    assert isinstance(load_transforms(config, arrays), NativeTransforms)
    assert isinstance(load_transforms(config, arrays, device="tensorflow"), tensors.TensorFlowTransforms)
    with pytest.raises(ValueError, match="'tpu'"):
        load_transforms(config, arrays, device="tpu")
    if not tf.config.list_physical_devices("GPU"):
        with pytest.raises(CodecError, match="no GPU"):
            load_transforms(config, arrays, device="gpu")


def test_float64_is_chosen_on_gpus_with_fast_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tensors.fast_product([]) is tensors.float64_product
    for capability, product in (((9, 0), tensors.float64_product), ((8, 9), tensors.bytes_product)):
        details = {"compute_capability": capability}
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu, details=details: details)
        assert tensors.fast_product(["GPU:0"]) is product


def test_models_without_analysis_only_decode() -> None:
    config, arrays = small_model()
    arrays = {name: array for name, array in arrays.items() if not name.startswith("analysis/")}
    transforms = load_transforms(config, arrays, "half", "tensorflow")
    with pytest.raises(ModelError, match="half has no analysis"):
        transforms.analysis([np.zeros((16, 16, 3), np.uint8)], 0)
