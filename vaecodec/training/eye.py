"""Train the analysis for the eye: at equal SSIMULACRA2 as few bits as can be, with all that a decoder needs as it is.

Steps are tilted and bits have the prices of `rdo.eye`, as encoders have it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import tensorflow as tf

from vaecodec.config import ANCHORS, INDICES_PER_ANCHOR, QUALITY_INDICES
from vaecodec.native.prior import LOWEST_DISTANCES
from vaecodec.rdo import eye
from vaecodec.training import wavelets
from vaecodec.training.layers import pointwise
from vaecodec.training.ms_ssim import ms_ssim
from vaecodec.training.ssimulacra2 import ssimulacra2
from vaecodec.training.vae import VAE, Loss, Tensor, mean_loss
from vaecodec.transforms.networks import PIXEL_BITS, color_transform
from vaecodec.transforms.wavelet import NORM, OCTAVES

# How fast the logarithm of the rate of `base` rises with SSIMULACRA2, MS-SSIM in dB, and PSNR, by quality index.
INDICES = (228.0, 408.0, 580.0, 743.0, 956.0, 1182.0)
PER_POINT = (0.0257, 0.0285, 0.0367, 0.0509, 0.0795, 0.1246)
PER_MS_SSIM_DECIBEL = (0.3, 0.255, 0.215, 0.183, 0.16, 0.15)
PER_DECIBEL = (0.272, 0.242, 0.213, 0.1915, 0.1655, 0.1458)
MS_SSIM_SHARE = PSNR_SHARE = 0.15  # of the loss, so that what the metric does not see stays as it is
LEAST_DISSIMILARITY = 5e-4  # added to 1 - MS-SSIM before its logarithm
LEAST_RATE = 0.02  # bits a pixel, added to a rate before its logarithm
LEAST_ERROR = 0.05  # squared, of the PSNR


def eye_loss(vae: VAE, x: Tensor, quality: Tensor, seed: Tensor) -> Loss:
    """The logarithm of the rate, less what it costs to reach the quality otherwise.

    Args:
        vae: of images of three channels.
        x: u8[B, H, W, 3], sides multiples of 64, and above 160 for MS-SSIM.
        quality: f32[B] in [0, A - 1], which is spread over all quality indices.
        seed: i32[2], of the noise.
    """
    x, index = tf.cast(x, tf.float32), quality * ((QUALITY_INDICES - 1) / (ANCHORS - 1))
    weights = {
        name: value if name.startswith("analysis/") else tf.stop_gradient(value) for name, value in vae.weights.items()
    }
    vae, quality = replace(vae, weights=weights, tilt=eye.TILT), index / INDICES_PER_ANCHOR
    coded = vae.code(x, quality, seed, prices=prices_of_parts(x))
    y = coded.likelihood.loc
    mse = tf.reduce_mean(tf.square(x - y), [1, 2, 3])
    psnr = _decibels(tf.maximum(mse, LEAST_ERROR) / 255.0**2)
    similarity = _decibels(1.0 + LEAST_DISSIMILARITY - ms_ssim(x, y, stride=2))
    gained = (1.0 - MS_SSIM_SHARE - PSNR_SHARE) * _between(index, PER_POINT) * ssimulacra2(x, y)
    gained += MS_SSIM_SHARE * _between(index, PER_MS_SSIM_DECIBEL) * similarity
    gained += PSNR_SHARE * _between(index, PER_DECIBEL) * psnr
    rate = coded.bpp + coded.noisy_bpp - tf.stop_gradient(coded.noisy_bpp)
    return mean_loss(tf.math.log(rate + LEAST_RATE) - gained, coded.bpp, mse, coded.rates, x.shape[1] * x.shape[2])


def prices_of_parts(x: Tensor) -> list[Tensor]:
    """Prices of a bit in the squares of each part, as rdo.eye.prices_of_squares has them, but not in levels.

    x is f32[B, H, W, 3] on a scale of 255; prices are f32[B, h, w, 1], and 1 for the lowest coefficients.
    """
    brightness = pointwise(x / 255.0 - 0.5, tf.constant(color_transform(3)[:1].T, tf.float32))
    sums: Tensor = 0.0  # of magnitudes in 8 x 8 pixels
    for octave in range(3):
        brightness, subbands = wavelets.forward_octave(brightness)
        scales = NORM ** (-2 * octave) * np.array([1.0, 1.0, NORM**2], np.float32)
        magnitudes = tf.reduce_sum(tf.abs(subbands) * scales, -1, keepdims=True)
        side = 4 >> octave
        sums += 4**octave * side**2 * tf.nn.avg_pool2d(magnitudes, side, side, "VALID")
    around = tf.pad(sums, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    activity = 9 * eye.UNIT * 2**PIXEL_BITS * tf.nn.avg_pool2d(around, 3, 1, "VALID")
    price = eye.EXPONENT * tf.math.log((eye.FLOOR + activity) / eye.TYPICAL)
    squares = [tf.repeat(tf.repeat(price, 2, 1), 2, 2), price]
    for _ in range(2, OCTAVES + 1):
        price = tf.nn.avg_pool2d(price, 2, 2, "SAME")
        squares.append(price)
    lowest = [tf.ones([])] * (1 + len(LOWEST_DISTANCES))
    return lowest + [tf.exp(price) for price in reversed(squares) for _ in range(2)]


def _decibels(error: Tensor) -> Tensor:
    """-10 log10(error)."""
    return -10.0 / math.log(10.0) * tf.math.log(error)


def _between(index: Tensor, values: tuple[float, ...]) -> Tensor:
    """Values f32[B] at quality indices f32[B], rounded down, linear between INDICES and constant beyond."""
    table = np.interp(np.arange(QUALITY_INDICES), INDICES, values).astype(np.float32)
    return tf.gather(tf.constant(table), tf.cast(index, tf.int32))
