"""What tests of refinement measure."""

from __future__ import annotations

import numpy as np
import pytest

from vaecodec.config import LAMBDA_MAX, LAMBDA_MIN
from vaecodec.container.picture import STEPS, step_of
from vaecodec.rdo.synthesis_gradients import Synthesis


def cost(pixels, codec, data, quality):
    """Rate and lambda * 255^2 * MSE, in bits a pixel."""
    trade = LAMBDA_MIN * (LAMBDA_MAX / LAMBDA_MIN) ** (step_of(quality) / (STEPS - 1))
    error = np.mean((codec.decode(data).astype(float) - pixels) ** 2)
    return 8 * len(data) / (pixels.shape[0] * pixels.shape[1]) + trade * error


def check_gradients(model):
    """Along a direction, of a sum of squares, whose second difference quotient is as exact as floats allow."""
    rng = np.random.default_rng(1)
    distortion, shape = Synthesis(model, 500), (3, 4, model.config.latents)
    y, along = (rng.normal(0, 1, shape).astype(np.float32) for _ in range(2))
    target = distortion.forward(rng.normal(0, 1, shape).astype(np.float32))[0]

    def squares(y):
        return float(np.square(distortion.forward(y)[0] - target, dtype=np.float64).sum())

    picture, back = distortion.forward(y)
    slope = float((back(2 * (picture - target)) * along).sum())
    h = np.float32(1e-3)
    assert slope == pytest.approx((squares(y + h * along) - squares(y - h * along)) / (2 * h), rel=5e-3)
