"""Measure the similarity of two 8-bit RGB images: PSNR, MS-SSIM and SSIMULACRA2; and BD-rates over such measures.

All metrics take two arrays u8[H, W, 3] and are larger where the images are more alike.  METRICS describes them.

The BD-rate (Bjontegaard 2001, VCEG-M33) is the mean difference of the logarithm of the rate over a window of quality.
Here curves are linear between their points, in the logarithm of the rate; `bench.curves` has the cubic one, by the
package bjontegaard, for curves of few points.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003, from fine to coarse
SSIM_TAPS, SSIM_SIGMA = 11, 1.5
SSIM_LEAST = (SSIM_TAPS - 1) << (len(SSIM_WEIGHTS) - 1)  # sides must be longer: a window must fit at the coarsest scale
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

MIN_OVERLAP = 0.2  # of the window of a BD-rate: a smaller part says little about the rest
GRID = 65  # points of its integral
Curve = tuple[np.ndarray, np.ndarray]  # logarithms of the rate and values of the quality, f64[n] each


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, from the mean squared error of all channels; inf for equal images."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else math.inf


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """MS-SSIM in [0, 1], the mean over channels, as tf.image.ssim_multiscale; nan below 161 pixels a side."""
    if min(a.shape[:2]) <= SSIM_LEAST:
        return math.nan
    x, y = a.astype(np.float64), b.astype(np.float64)
    product = np.ones(3)
    for scale, weight in enumerate(SSIM_WEIGHTS):
        if scale:
            x, y = _halve(x), _halve(y)
        mean_x, mean_y = _blur(x), _blur(y)
        mean_xy, mean_squares = mean_x * mean_y, mean_x**2 + mean_y**2
        luminance = (2 * mean_xy + SSIM_C1) / (mean_squares + SSIM_C1)
        contrast = (2 * (_blur(x * y) - mean_xy) + SSIM_C2) / (_blur(x * x + y * y) - mean_squares + SSIM_C2)
        is_last = scale == len(SSIM_WEIGHTS) - 1
        product *= np.maximum((luminance * contrast if is_last else contrast).mean((0, 1)), 0) ** weight
    return float(product.mean())


def ssimulacra2(a: np.ndarray, b: np.ndarray) -> float:
    """SSIMULACRA2 score: 100 for equal images, about 90 invisible, 70 high, 50 medium, 30 low quality."""
    from PIL import Image
    from ssimulacra2 import compute_ssimulacra2

    files = io.BytesIO(), io.BytesIO()
    for pixels, file in zip((a, b), files, strict=True):
        Image.fromarray(pixels).save(file, "PNG", compress_level=0)
        file.seek(0)
    return float(compute_ssimulacra2(*files))


def decibels(similarity: float) -> float:
    """A similarity in [0, 1], such as MS-SSIM, in dB: -10 log10(1 - x)."""
    return -10 * math.log10(1 - similarity) if similarity < 1 else math.inf


class Metric(NamedTuple):
    """A metric, its name in results, and its axis in plots."""

    column: str
    json_name: str  # in CompressAI's results
    label: str
    unit: str
    measure: Callable[[np.ndarray, np.ndarray], float]
    shown: Callable[[float], float]  # the column's value -> the value on the axis, in `unit`
    window: tuple[float, float]  # on the axis: the range of Bjontegaard deltas


METRICS = {
    "psnr": Metric("psnr", "psnr-rgb", "PSNR, 8-bit RGB", "dB", psnr, float, (28.0, 38.0)),
    "ms-ssim": Metric("ms_ssim", "ms-ssim-rgb", "MS-SSIM, 8-bit RGB", "dB", ms_ssim, decibels, (10.0, 20.0)),
    "ssimulacra2": Metric("ssimulacra2", "ssimulacra2", "SSIMULACRA2", "points", ssimulacra2, float, (40.0, 80.0)),
}


def gaussian() -> np.ndarray:
    """f64[SSIM_TAPS]: the window of SSIM along an axis, sum 1."""
    taps = np.exp(-((np.arange(SSIM_TAPS) - SSIM_TAPS // 2) ** 2) / (2 * SSIM_SIGMA**2))
    window: np.ndarray = taps / taps.sum()
    return window


def _blur(x: np.ndarray) -> np.ndarray:
    """Gaussian means around all pixels with a whole window."""
    from scipy.ndimage import correlate1d

    taps, edge = gaussian(), SSIM_TAPS // 2
    rows = correlate1d(x, taps, axis=0)[edge:-edge]
    blurred: np.ndarray = correlate1d(rows, taps, axis=1)[:, edge:-edge]
    return blurred


def _halve(x: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels; an odd last row or column is repeated."""
    x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)), "symmetric")
    means: np.ndarray = (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4
    return means


def rising(log_rate: np.ndarray, quality: np.ndarray) -> Curve:
    """Points by rate, without those whose quality is not finite or not above all before."""
    order = np.argsort(log_rate, kind="stable")
    x, y = log_rate[order], quality[order]
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    best = np.concatenate([[-np.inf], np.maximum.accumulate(y)[:-1]]) if len(y) else y
    return x[y > best], y[y > best]


def linear_rate(anchor: Curve, curve: Curve, window: tuple[float, float] | None = None) -> float:
    """BD-rate in percent of a rising curve against a rising anchor.

    Args:
        anchor: what the rate is compared with.
        curve: what needs more bits (above 0) or fewer.
        window: of quality; None for all that both curves cover.

    Returns:
        The BD-rate; nan where the curves share too little of the window, or nothing.
    """
    (rate_a, a), (rate_b, b) = anchor, curve
    if min(len(a), len(b)) < 2:
        return math.nan
    low, high = max(a[0], b[0]), min(a[-1], b[-1])
    least = 0.0
    if window is not None:
        low, high, least = max(window[0], low), min(window[1], high), MIN_OVERLAP * (window[1] - window[0])
    if high - low < least or not high > low:
        return math.nan
    grid = np.linspace(low, high, GRID)
    difference = np.interp(grid, b, rate_b) - np.interp(grid, a, rate_a)
    weights = np.full(GRID, 1.0)
    weights[[0, -1]] = 0.5  # trapezoids
    return 100 * math.expm1(float(difference @ weights) / (GRID - 1))
