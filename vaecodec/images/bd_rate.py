"""Compute BD-rates of curves that are linear between their points, in the logarithm of the rate.

The BD-rate (Bjontegaard 2001, VCEG-M33) is the mean difference of the logarithm of the rate over a window of quality.
`bench.curves` has the cubic one, by the package bjontegaard, for curves of few points.
"""

from __future__ import annotations

import math

import numpy as np

MIN_OVERLAP = 0.2  # of a window: a smaller part says little about the rest
GRID = 65  # points of the integral

Curve = tuple[np.ndarray, np.ndarray]  # logarithms of the rate and values of the quality, f64[n] each


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
