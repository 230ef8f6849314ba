"""A picture at a fraction of its size, from the linear part of the synthesis alone.

Shortcut and box filter are both linear, so that one small matrix takes latents to the means of squares of pixels.
The lapped filter, where there is one, is applied to those means: a matrix of means takes the place of its own.
Every symbol is still decoded and checked: that takes most of the time, and a preview of a damaged file would lie.
"""

from __future__ import annotations

import numpy as np

from vaecodec import pyramid
from vaecodec.config import CELL, STRIDE
from vaecodec.context import UNIT
from vaecodec.lapped import filtered
from vaecodec.vetting import require
from vaecodec.weights import Model

FACTORS = (1, 2, 4, 8, 16)


def check(factor: int) -> None:
    """Raises ValueError on a reduction that there is not."""
    if factor not in FACTORS:
        raise ValueError(f"reduce is {factor!r}, expected one of {', '.join(map(str, FACTORS))}")


def finest(model: Model, factor: int) -> int:
    """The reduction to project to: a lapped filter needs two means a cell, at least."""
    return min(factor, STRIDE // 2) if model.config.lapped else factor


def projection(model: Model, step: int, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """(f32[M, K], f32[K]): latents in units of 2**-6 steps to the means of f x f pixels, f = finest(model, factor), in
    K = C * (16 / f)**2 values a cell."""
    factor = finest(model, factor)
    names = ("shortcut/kernel", "shortcut/bias", "fine/bias")
    kernel, bias, fine = (model.array(f"weights/synthesis/{name}").astype(np.float32) for name in names)
    size = CELL * model.config.channels
    fits = kernel.shape == (model.config.latents, size) and bias.shape == (size,) and fine.shape == (size // 4,)
    require(fits, "the model's shortcut has another shape")
    gain = model.vector("inverse_gain", step) * np.float32(1.0 / UNIT)
    return means(kernel * gain[:, None], factor), means((bias + np.tile(fine, 4))[None], factor)[0]


def means(values: np.ndarray, factor: int) -> np.ndarray:
    """[n, 256 C] in the order of two shuffles -> [n, K]: means over squares of a cell's 16x16 pixels, in rows."""
    side = STRIDE // factor
    # Channel (i, j, a, b, colour) is pixel (8i + a, 8j + b): network.synthesis shuffles by 2, then by 8.
    channels = values.shape[1] // CELL
    pixels = values.reshape(-1, 2, 2, 8, 8, channels).transpose(0, 1, 3, 2, 4, 5)
    pixels = pixels.reshape(-1, side, factor, side, factor, channels)
    return pixels.mean((2, 4)).reshape(len(values), -1)


def render(model: Model, values: np.ndarray, factor: int) -> np.ndarray:
    """What `projection` makes, [h, w, K] in [-1/2, 1/2] -> u8[16h / factor, 16w / factor, C], halves rounded up."""
    (height, width), fine = values.shape[:2], finest(model, factor)
    side, more = STRIDE // fine, factor // fine
    channels = model.config.channels
    pixels = values.reshape(height, width, side, side, channels).transpose(0, 2, 1, 3, 4)
    pixels = pixels.reshape(height * side, width * side, channels)
    if model.config.lapped:
        kernel = model.array("weights/synthesis/lapped/kernel").astype(np.float32)
        require(kernel.shape == (STRIDE, STRIDE), "the model's lapped filter has another shape")
        # What comes to the mean of `fine` samples from each of `fine` that are all alike.
        kernel = kernel.reshape(side, fine, side, fine).sum(3).mean(1)
        pixels = filtered(pixels, kernel)
    return _reduced(pixels, more)


def of_wavelets(model: Model, y: np.ndarray, factor: int, step: int) -> np.ndarray:
    """u8[16h / factor, 16w / factor, C] of y f32[h, w, 256 C], unit 2**-6: means of its samples, halves rounded up."""
    gain = model.vector("inverse_gain", step) * np.float32(1.0 / UNIT)
    return _reduced(pyramid.samples(y * gain), factor)


def _reduced(pixels: np.ndarray, factor: int) -> np.ndarray:
    """u8[H / factor, W / factor, C]: means of f32[H, W, C] in [-1/2, 1/2], halves rounded up."""
    if factor > 1:
        height, width, channels = pixels.shape
        pixels = pixels.reshape(height // factor, factor, width // factor, factor, channels).mean((1, 3))
    return np.clip(pixels * np.float32(255) + np.float32(128), 0, 255).astype(np.uint8)
