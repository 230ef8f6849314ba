"""Compute the rate-distortion cost that effort minimises, and check gradients."""

from __future__ import annotations

import numpy as np
import pytest

from vaecodec.config import LAMBDA_MAX, LAMBDA_MIN, QUALITY_INDICES
from vaecodec.container.image_file import quality_index_of
from vaecodec.rdo.float_decoder import Synthesis


def rd_cost(pixels, codec, data, quality):
    """Cost D + lambda R of a coded image, in bits per pixel."""
    lambda_ = LAMBDA_MIN * (LAMBDA_MAX / LAMBDA_MIN) ** (quality_index_of(quality) / (QUALITY_INDICES - 1))
    error = np.mean((codec.decode(data).astype(float) - pixels) ** 2)
    return 8 * len(data) / (pixels.shape[0] * pixels.shape[1]) + lambda_ * error


def check_gradients(model):
    """Compare the gradient of the synthesis along a direction with a central difference of a sum of squares."""
    rng = np.random.default_rng(1)
    distortion, shape = Synthesis(model, 500), (3, 4, model.config.latents)
    y, direction = (rng.normal(0, 1, shape).astype(np.float32) for _ in range(2))
    target = distortion.forward(rng.normal(0, 1, shape).astype(np.float32))[0]

    def squares(y):
        return float(np.square(distortion.forward(y)[0] - target, dtype=np.float64).sum())

    pixels, backward = distortion.forward(y)
    slope = float((backward(2 * (pixels - target)) * direction).sum())
    step_size = np.float32(1e-3)
    assert slope == pytest.approx(
        (squares(y + step_size * direction) - squares(y - step_size * direction)) / (2 * step_size), rel=5e-3
    )
