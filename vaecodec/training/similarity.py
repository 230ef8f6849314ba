"""MS-SSIM in TensorFlow: what a model is trained on whose pictures are to look alike, rather than to differ little.

    1 - MS-SSIM = 1 - product over scales of mean(contrast * structure)^weight      (at the coarsest, luminance too)

Wang, Simoncelli and Bovik 2003, section 3; `metrics.ms_ssim` has the same in NumPy for what is measured.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from vaecodec.images.metrics import SSIM_C1, SSIM_C2, SSIM_TAPS, SSIM_WEIGHTS, gaussian

FLOOR = 1e-4  # of a mean of contrasts, whose power has no gradient at 0


def ms_ssim(x: tf.Tensor, y: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """f32[B] in [0, 1], the mean over channels, of two f32[B, H, W, C] on a scale of 255, sides above SSIM_LEAST.

    At the finest scale, three quarters of the work for a twentieth of the weight, of every `stride`th window each way.
    """
    channels = x.shape[3]
    planes = tf.shape(x)[0] * channels
    x, y = (tf.reshape(tf.transpose(t, [1, 0, 3, 2]), [t.shape[1], planes, t.shape[2]]) for t in (x, y))
    product = tf.ones([planes])
    for scale, weight in enumerate(SSIM_WEIGHTS):
        if scale:
            x, y = _halve(x), _halve(y)
        luminance, contrast = _ssim(x, y, 1 if scale else stride)
        last = scale == len(SSIM_WEIGHTS) - 1
        mean = tf.reduce_mean(luminance * contrast if last else contrast, [0, 2])
        product *= tf.maximum(mean, FLOOR) ** weight
    return tf.reduce_mean(tf.reshape(product, [-1, channels]), 1)


def _ssim(x: tf.Tensor, y: tf.Tensor, stride: int) -> tuple[tf.Tensor, tf.Tensor]:
    """(luminance, contrast and structure) terms of SSIM, f32[H - 10, planes, W - 10], or of every `stride`th window."""
    mean_x, mean_y = _blur(x, stride), _blur(y, stride)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    luminance = (2 * product + SSIM_C1) / (squares + SSIM_C1)
    contrast = (2 * (_blur(x * y, stride) - product) + SSIM_C2) / (_blur(x * x + y * y, stride) - squares + SSIM_C2)
    return luminance, contrast


def _blur(x: tf.Tensor, stride: int) -> tf.Tensor:
    """Gaussian mean around each position of [H, planes, W] that has a whole window: two large products of matrices.

    (On a CPU they are several times as fast as a depthwise convolution and its gradient.)
    """
    down, along = (_windows(side, stride) for side in (x.shape[0], x.shape[2]))
    t = tf.reshape(tf.matmul(down, tf.reshape(x, [x.shape[0], -1])), [-1, x.shape[2]])
    return tf.reshape(tf.matmul(t, along, transpose_b=True), [len(down), -1, len(along)])


def _windows(side: int, stride: int) -> np.ndarray:
    """f32[side - 10, side], or every `stride`th row of it: a Gaussian window in each."""
    taps, out = gaussian(), np.zeros((side - SSIM_TAPS + 1, side), np.float32)
    for row in range(len(out)):
        out[row, row : row + SSIM_TAPS] = taps
    return out[::stride]


def _halve(x: tf.Tensor) -> tf.Tensor:
    """Means of 2 x 2 of [H, planes, W], sides even: products of matrices, as slices and their gradient take longer."""
    height, width = x.shape[0], x.shape[2]
    t = tf.reshape(tf.matmul(tf.reshape(x, [-1, width]), _pairs(width)), [height, -1])
    return tf.reshape(tf.matmul(_pairs(height), t, transpose_a=True), [height // 2, -1, width // 2])


def _pairs(side: int) -> np.ndarray:
    """f32[side, side / 2] that takes the mean of each two neighbours."""
    return np.repeat(np.eye(side // 2, dtype=np.float32), 2, axis=0) / 2
