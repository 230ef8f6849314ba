"""Test metrics against their definitions and against other implementations."""

import math

import numpy as np
import pytest

from support.images import synthetic_image
from vaecodec.images.metrics import METRICS, decibels, ms_ssim, psnr, ssimulacra2


def noisy(pixels: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(7).normal(0, deviation, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def test_psnr_follows_its_formula():
    a = np.zeros((4, 5, 3), np.uint8)
    assert psnr(a, a) == math.inf
    assert psnr(a, a + 5) == pytest.approx(20 * math.log10(255 / 5))
    changed = a.copy()
    changed[0, 0, 0] = 255  # one of 60 samples has the largest error
    assert psnr(a, changed) == pytest.approx(10 * math.log10(60))


@pytest.mark.parametrize("shape", [(161, 200), (163, 321)])  # the smallest side, and odd sides at each scale
def test_ms_ssim_equals_tensorflow(shape):
    tf = pytest.importorskip("tensorflow")
    a = synthetic_image(*shape)
    for deviation in (3, 12, 40):
        b = noisy(a, deviation)
        assert ms_ssim(a, b) == pytest.approx(float(tf.image.ssim_multiscale(a, b, 255)), abs=3e-5)


def test_the_loss_of_training_equals_the_metric():
    tf = pytest.importorskip("tensorflow")
    from vaecodec.training.operations import ms_ssim as differentiable

    a = np.stack([synthetic_image(192, 256, n) for n in range(2)])
    b = np.clip(a + np.random.default_rng(0).normal(0, 12, a.shape), 0, 255).astype(np.uint8)
    x, y, expected = *(tf.constant(x, tf.float32) for x in (a, b)), [ms_ssim(*pair) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(differentiable(x, y), expected, atol=1e-4)
    strided = differentiable(x, y, stride=2)  # every second window of the finest scale
    assert np.any(strided != differentiable(x, y))
    np.testing.assert_allclose(strided, expected, rtol=0.002)


def test_ms_ssim_of_small_images_is_nan():
    pytest.importorskip("scipy")
    assert math.isnan(ms_ssim(synthetic_image(160, 300), synthetic_image(160, 300)))
    assert ms_ssim(synthetic_image(161, 161), synthetic_image(161, 161)) == pytest.approx(1)
    assert decibels(0.99) == pytest.approx(20) and decibels(1) == math.inf


def test_every_metric_falls_with_noise():
    pytest.importorskip("ssimulacra2")
    a = synthetic_image(176, 176)
    for metric in METRICS.values():
        values = [metric.shown(metric.measure(a, noisy(a, deviation))) for deviation in (2, 8, 32)]
        assert values == sorted(values, reverse=True), metric.label


def test_ssimulacra2_of_equal_images_is_100():
    pytest.importorskip("ssimulacra2")
    assert ssimulacra2(synthetic_image(64, 64), synthetic_image(64, 64)) == pytest.approx(100)
