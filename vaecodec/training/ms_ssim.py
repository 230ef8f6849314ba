"""Compute MS-SSIM in TensorFlow, for a loss: as `images.metrics`, with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec.images.metrics import SSIM_C1, SSIM_C2, SSIM_TAPS, SSIM_WEIGHTS, gaussian

Tensor = Any
MS_SSIM_FLOOR = 1e-4  # of a mean of contrasts, because a power has no gradient at 0


def ms_ssim(x: Tensor, y: Tensor, stride: int = 1) -> Tensor:
    """MS-SSIM f32[B] of two f32[B, H, W, C] on a scale of 255, sides above SSIM_LEAST; the mean over channels.

    The product over scales of mean(contrast * structure)^weight, with luminance at the coarsest (Wang, Simoncelli and
    Bovik 2003, section 3).  At the finest scale, which is three quarters of the work and a twentieth of the weight,
    only every `stride`th window each way is evaluated.  Blurs and means are matrix products, which on a CPU are
    several times as fast as convolutions and slices and their gradients.
    """
    channels, planes = x.shape[3], tf.shape(x)[0] * x.shape[3]
    x, y = (tf.reshape(tf.transpose(t, [1, 0, 3, 2]), [t.shape[1], planes, t.shape[2]]) for t in (x, y))
    product = tf.ones([planes])
    for scale, weight in enumerate(SSIM_WEIGHTS):
        if scale:
            x, y = _halve(x), _halve(y)
        step = 1 if scale else stride
        mean_x, mean_y = _blur(x, step), _blur(y, step)
        mean_product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
        luminance = (2 * mean_product + SSIM_C1) / (squares + SSIM_C1)
        covariance, variances = _blur(x * y, step) - mean_product, _blur(x * x + y * y, step) - squares
        contrast = (2 * covariance + SSIM_C2) / (variances + SSIM_C2)
        last = scale == len(SSIM_WEIGHTS) - 1
        mean = tf.reduce_mean(luminance * contrast if last else contrast, [0, 2])
        product *= tf.maximum(mean, MS_SSIM_FLOOR) ** weight
    return tf.reduce_mean(tf.reshape(product, [-1, channels]), 1)


def _blur(x: Tensor, stride: int) -> Tensor:
    """Gaussian means over the complete windows of f32[H, planes, W], or over every `stride`th window."""
    taps, kernels = gaussian(), []
    for side in (x.shape[0], x.shape[2]):
        kernel = np.zeros((side - SSIM_TAPS + 1, side), np.float32)
        for row in range(len(kernel)):
            kernel[row, row : row + SSIM_TAPS] = taps
        kernels.append(kernel[::stride])
    down, along = kernels
    t = tf.reshape(tf.matmul(down, tf.reshape(x, [x.shape[0], -1])), [-1, x.shape[2]])
    return tf.reshape(tf.matmul(t, along, transpose_b=True), [len(down), -1, len(along)])


def _halve(x: Tensor) -> Tensor:
    """Means of 2 x 2 of f32[H, planes, W], sides even."""
    height, width = x.shape[0], x.shape[2]
    down, along = (np.repeat(np.eye(side // 2, dtype=np.float32), 2, axis=0) / 2 for side in (height, width))
    t = tf.reshape(tf.matmul(tf.reshape(x, [-1, width]), along), [height, -1])
    return tf.reshape(tf.matmul(down, t, transpose_a=True), [height // 2, -1, width // 2])
