"""Compute SSIMULACRA2 in TensorFlow, for a loss: as `images.metrics`, with gradients.

    image, at six scales --> XYB --> errors of structure, new edges, lost edges --> norms --> one score

The metric is that of Sneyers (github.com/cloudinary/ssimulacra2, version 2.1); its constants are those of the package
`ssimulacra2`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec.images.metrics import SSIM_TAPS, gaussian

Tensor = Any
SCALES = 6
LEAST_SIDE = 8  # of a scale that is compared
CHANNELS, NORMS, MAPS = 3, 2, 3  # X, Y, B - Y; means and 4-norms; structure, new edges, lost edges
LEAST_WEIGHT = 0.01  # of a 4-norm that is computed; those below it hardly change a score
TINY = 1e-18  # because a root has no gradient at 0
# The score of a weighted sum of errors.
FACTOR, CUBIC = 0.9562382616834844, (2.326765642916932, -0.020884521182843837, 6.248496625763138e-05)
RANGE, POWER = 10.0, 0.6276336467831387


def ssimulacra2(x: Tensor, y: Tensor) -> Tensor:
    """Score f32[B] of f32[B, H, W, 3] on a scale of 255 compared with x; H and W static, and at least LEAST_SIDE.

    Scales of odd sides end the pyramid, so that sides should be multiples of 32.
    """
    from ssimulacra2.ssimulacra2 import kC2, weights  # of the extra `train`

    table = weights.reshape(CHANNELS, SCALES, NORMS, MAPS)
    pair = [_linear(tf.transpose(image, [3, 0, 1, 2])) for image in (x, y)]
    total: Tensor = 0.0
    for scale in range(SCALES):
        height, width = pair[0].shape[2:]
        if min(height, width) < LEAST_SIDE:
            break
        maps = _errors(_xyb(pair[0]), _xyb(pair[1]), kC2)
        for errors, weight in zip(maps, np.moveaxis(table[:, scale], -1, 0), strict=True):
            means, fourths = weight.T.astype(np.float32)
            total += tf.tensordot(tf.constant(means), tf.reduce_mean(errors, [2, 3]), 1)
            for channel in np.flatnonzero(fourths > LEAST_WEIGHT):
                mean = tf.reduce_mean(tf.square(tf.square(errors[channel])), [1, 2])
                total += float(fourths[channel]) * tf.pow(mean + TINY, 0.25)
        if height % 2 or width % 2:
            break
        pair = [_halve(image) for image in pair]
    error = FACTOR * total
    error *= CUBIC[0] + error * (CUBIC[1] + error * CUBIC[2])
    return 100.0 - RANGE * tf.pow(tf.maximum(error, 1e-3), POWER)


def _linear(x: Tensor) -> Tensor:
    """Linear light of sRGB samples in [0, 255]; others are clipped."""
    x = tf.clip_by_value(x, 0.0, 255.0) / 255.0
    # The power is that of a positive number in either branch, for the sake of gradients.
    return tf.where(x <= 0.04045, x / 12.92, tf.pow((tf.maximum(x, 0.04) + 0.055) / 1.055, 2.4))


def _xyb(linear: Tensor) -> Tensor:
    """Linear RGB [3, B, H, W] -> X, Y and B - Y [3, B, H, W], shifted and scaled to be positive."""
    from ssimulacra2.ssimulacra2 import kB0, kOpsinAbsorbanceMatrix

    matrix = kOpsinAbsorbanceMatrix.reshape(CHANNELS, CHANNELS).astype(np.float32)
    mixed = tf.maximum(tf.tensordot(tf.constant(matrix), linear, 1) + float(kB0), 1e-4)
    long, middle, short = tf.unstack(tf.pow(mixed, 1 / 3) - float(np.cbrt(kB0)))
    y = 0.5 * (long + middle)
    return tf.stack([7.0 * (long - middle) + 0.42, y + 0.01, short - y + 0.55])


def _errors(x: Tensor, y: Tensor, c2: float) -> tuple[Tensor, Tensor, Tensor]:
    """Maps [3, B, H, W] of errors of structure (SSIM without its luminance's denominator), and of edges."""
    blur = _Blur(*x.shape[2:])
    mean_x, mean_y = blur(x), blur(y)
    covariance = blur(x * y) - mean_x * mean_y
    variances = blur(x * x + y * y) - mean_x**2 - mean_y**2
    similarity = (1.0 - (mean_x - mean_y) ** 2) * (2.0 * covariance + c2) / (variances + c2)
    edges = (1.0 + tf.abs(y - mean_y)) / (1.0 + tf.abs(x - mean_x)) - 1.0
    return tf.nn.relu(1.0 - similarity), tf.nn.relu(edges), tf.nn.relu(-edges)


class _Blur:
    """Gaussian means of [..., H, W] as products with matrices, which are faster on a CPU than convolutions.

    Rows are mirrored at their ends and columns are followed by zeros, as the package `ssimulacra2` has it.
    """

    def __init__(self, height: int, width: int) -> None:
        self._down, self._along = tf.constant(_band(height, True)), tf.constant(_band(width, False))

    def __call__(self, x: Tensor) -> Tensor:
        shape, planes = tf.shape(x), [-1, x.shape[-2], x.shape[-1]]
        rows = tf.reshape(tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), self._along, transpose_b=True), planes)
        return tf.reshape(tf.matmul(self._down, rows), shape)


def _band(side: int, mirror: bool) -> np.ndarray:
    """f32[side, side]: the weights of samples in each Gaussian mean."""
    band = np.zeros((side, side))
    for row in range(side):
        for place, tap in enumerate(gaussian(), row - SSIM_TAPS // 2):
            if mirror:
                inside = place % (2 * side)
                band[row, min(inside, 2 * side - 1 - inside)] += tap
            elif 0 <= place < side:
                band[row, place] += tap
    return band.astype(np.float32)


def _halve(x: Tensor) -> Tensor:
    """Means of 2 x 2 of [3, B, H, W], sides even."""
    height, width = x.shape[2:]
    return tf.reduce_mean(tf.reshape(x, [CHANNELS, -1, height // 2, 2, width // 2, 2]), [3, 5])
