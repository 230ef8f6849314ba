"""What single images say: BD-rates of each image, and confidence intervals of the BD-rates of all of them.

Here curves are linear between their points, in the logarithm of the rate, because they are many; `curves.delta` takes
cubic ones.  Intervals are those of resampled sets of images (Efron 1979, the bootstrap), moved to the cubic estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from vaecodec.bench.curves import KIND
from vaecodec.images.metrics import Metric, linear_rate, rising

RESAMPLES = 500
LEAST_IMAGES = 5  # fewer have no interval
COVERED = (2.5, 97.5)  # percentiles


class Samples(NamedTuple):
    """The measurements of a codec: f64[images, settings] of the rate and of each metric's column."""

    bpp: np.ndarray
    values: dict[str, np.ndarray]

    def curve(self, image: int, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
        """(log bpp, metric as shown) of one image, rising."""
        shown = np.array([metric.shown(float(value)) for value in self.values[metric.column][image]])
        return rising(np.log(self.bpp[image]), shown)


def samples_of(
    rows: Iterable[dict[str, Any]], images: list[tuple[str, str]], kinds: dict[str, tuple[str, ...]], columns: list[str]
) -> dict[str, Samples]:
    """The samples of each codec, at the settings that were measured on all images.

    Args:
        rows: rows of results.
        images: (image, crc32) of each, which are the rows of the arrays.
        kinds: curves.KIND of each codec.
        columns: columns of metrics.
    """
    place = {image: n for n, image in enumerate(images)}
    cells: dict[str, dict[float, dict[int, dict[str, Any]]]] = {name: {} for name in kinds}
    for row in rows:
        n = place.get((row["image"], row["crc32"]))
        if n is not None and kinds.get(row["codec"]) == tuple(str(row[key]) for key in KIND):
            cells[row["codec"]].setdefault(float(row["setting"]), {})[n] = row
    samples = {}
    for name, settings in cells.items():
        complete = [row_of for _, row_of in sorted(settings.items()) if len(row_of) == len(images)]
        if complete:
            arrays = {
                column: np.array([[_number(row_of[n].get(column)) for row_of in complete] for n in range(len(images))])
                for column in ("bpp", *columns)
            }
            samples[name] = Samples(arrays.pop("bpp"), arrays)
    return samples


def _number(text: Any) -> float:
    return float(text) if text not in ("", None) else math.nan


def image_rates(anchor: Samples, curve: Samples, metric: Metric) -> list[tuple[float, float]]:
    """(BD-rate in percent, bpp of the anchor at the middle of the window) of each image; nan where not reached."""
    rates = []
    for n in range(len(anchor.bpp)):
        a, b = anchor.curve(n, metric), curve.curve(n, metric)
        middle = sum(metric.window) / 2
        reached = len(a[1]) > 1 and a[1][0] <= middle <= a[1][-1]
        bpp = math.exp(float(np.interp(middle, a[1], a[0]))) if reached else math.nan
        rates.append((linear_rate(a, b, metric.window), bpp))
    return rates


def interval(
    anchor: Samples, curve: Samples, metric: Metric, estimate: float, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """The 95 % confidence interval of a BD-rate over images; None for few images, or where resamples share too little.

    `estimate` is the BD-rate of all images.
    """
    count = len(anchor.bpp)
    if count < LEAST_IMAGES or math.isnan(estimate):
        return None
    rng = np.random.default_rng(0)
    weights = np.stack(
        [
            np.full(count, 1.0),
            *(np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(resamples)),
        ]
    )
    weights /= count
    curves = []
    for samples in (anchor, curve):
        bpp, values = np.log(weights @ samples.bpp), weights @ samples.values[metric.column]
        shown = np.array([[metric.shown(float(value)) for value in row] for row in values])
        curves.append([rising(*pair) for pair in zip(bpp, shown, strict=True)])
    rates = np.array([linear_rate(a, b, metric.window) for a, b in zip(*curves, strict=True)])
    if np.isnan(rates).any():
        return None
    low, high = np.percentile(rates[1:], COVERED) + estimate - rates[0]
    return float(low), float(high)
