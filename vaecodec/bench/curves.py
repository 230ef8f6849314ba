"""Compute rate-distortion curves from rows of results: Bjontegaard deltas, speeds, and changes since an earlier run.

Curves of all images are cubic between their points.  Those of single images are linear, in the logarithm of the rate,
because they are many.  Confidence intervals are those of resampled sets of images (Efron 1979, the bootstrap), moved to
the cubic estimate.
"""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vaecodec.bench.measure import Row, known, read_rows
from vaecodec.errors import CodecError
from vaecodec.images.metrics import MIN_OVERLAP, Metric, linear_rate, rising

RATES = (0.1, 1.6)  # bpp: the window of BD-PSNR
METHODS = ("pchip", "akima")
KIND = ("codec", "version", "settings", "threads", "device")  # columns that tell one codec from another


class Point(NamedTuple):
    """One setting of a codec, over all images; speeds in MP/s, nan where not measured."""

    setting: float
    bpp: float
    values: dict[str, float]  # column of a metric -> mean
    encode_speed: float = math.nan
    decode_speed: float = math.nan


class Curve(NamedTuple):
    """The points of one codec, bpp rising; `published` names the source of published points."""

    name: str
    about: str
    points: list[Point]
    published: str = ""

    @property
    def is_lossless(self) -> bool:
        """Whether every image was decoded exactly."""
        return all(math.isinf(point.values["psnr"]) for point in self.points)

    def axes(self, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
        """(bpp f64[n], metric f64[n] as shown), both rising: points that cost more and are worse are left out."""
        bpp: list[float] = []
        values: list[float] = []
        for point in self.points:
            value = metric.shown(point.values.get(metric.column, math.nan))
            if math.isfinite(value) and (not values or (value > values[-1] and point.bpp > bpp[-1])):
                bpp.append(point.bpp)
                values.append(value)
        return np.array(bpp), np.array(values)


def curves_of(
    rows: Iterable[dict[str, Any]], images: set[tuple[str, str]], kinds: Iterable[tuple[str, ...]] = ()
) -> tuple[list[Curve], list[str]]:
    """(a curve for each codec, notes on what is left out), over the rows of exactly these images.

    Args:
        images: (image, crc32) of each.
        kinds: KIND of the codecs that come first. Of a codec that was measured with several versions, thread counts or
            devices, the kind given here counts, else the one measured last.
    """
    given = {kind[0]: kind for kind in kinds}
    latest: dict[str, tuple[str, ...]] = dict(given)
    table: dict[tuple[str, ...], dict[float, dict[tuple[str, str], dict[str, Any]]]] = defaultdict(dict)
    for row in rows:
        if (row["image"], row["crc32"]) in images:
            kind = tuple(str(row[key]) for key in KIND)
            if row["codec"] not in given:
                latest[row["codec"]] = kind
            table[kind].setdefault(float(row["setting"]), {})[row["image"], row["crc32"]] = row
    curves, notes = [], []
    for name, kind in latest.items():
        settings = table.get(kind, {})
        points = [
            _point(setting, list(row_of.values())) for setting, row_of in settings.items() if len(row_of) == len(images)
        ]
        incomplete = [f"{setting:g}" for setting, row_of in settings.items() if len(row_of) < len(images)]
        if incomplete:
            notes.append(
                f"{name} is left out at {', '.join(incomplete)}: not measured on all of the {len(images)} images"
            )
        if points:
            about = ", ".join(part for part in (kind[1], kind[2]) if part)
            curves.append(Curve(name, about, sorted(points, key=lambda point: point.bpp)))
    return curves, notes


def _point(setting: float, rows: list[dict[str, Any]]) -> Point:
    def mean(column: str) -> float:
        values = [float(row[column]) if row.get(column, "") != "" else math.nan for row in rows]
        return sum(values) / len(values)

    pixels = sum(int(row["width"]) * int(row["height"]) for row in rows) / 1e6
    speeds = (pixels / sum(float(row[column]) for row in rows) for column in ("encode_s", "decode_s"))
    return Point(setting, mean("bpp"), {m.column: mean(m.column) for m in known().values()}, *speeds)


def read_published(path: str, names: Iterable[str] | None = None) -> list[Curve]:
    """The curves of a table of published points that have a name to show, or those of the codecs `names`.

    The table has the columns codec, shown, source, bpp, psnr and ms_ssim. Raises CodecError where it has not.
    """
    codecs = None if names is None else set(names)
    points: dict[str, list[Point]] = defaultdict(list)
    sources: dict[str, str] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                name = row["shown"] if codecs is None else row["codec"] if row["codec"] in codecs else ""
                if name:
                    values = {key: float(row[key]) if row[key] else math.nan for key in ("psnr", "ms_ssim")}
                    points[name].append(Point(math.nan, float(row["bpp"]), values))
                    sources[name] = row["source"]
    except (KeyError, ValueError, TypeError, csv.Error) as exc:
        raise CodecError(f"{path}: not a table of published points ({type(exc).__name__}: {exc})") from exc
    return [Curve(name, "", sorted(row, key=lambda p: p.bpp), sources[name]) for name, row in points.items()]


class Delta(NamedTuple):
    """Bjontegaard deltas of a codec against an anchor; nan where the curves share too little."""

    rate: float  # percent of bits, negative where fewer
    rate_akima: float
    quality: float  # in the metric's unit, at equal rate
    low: float  # the window that both curves cover, in the metric's unit
    high: float


def delta(anchor: Curve, curve: Curve, metric: Metric) -> Delta:
    """Deltas over the part of the metric's window (of RATES for `quality`) that both curves cover."""
    (bpp_a, a), (bpp_b, b) = anchor.axes(metric), curve.axes(metric)
    log_a, log_b = np.log10(bpp_a), np.log10(bpp_b)
    low, high = _overlap(a, b, metric.window)
    rate, rate_akima = (
        100 * (10 ** _mean_difference(a, log_a, b, log_b, (low, high), method) - 1) for method in METHODS
    )
    rate_window = _overlap(log_a, log_b, (math.log10(RATES[0]), math.log10(RATES[1])))
    return Delta(rate, rate_akima, _mean_difference(log_a, a, log_b, b, rate_window, METHODS[0]), low, high)


def _overlap(a: np.ndarray, b: np.ndarray, window: tuple[float, float]) -> tuple[float, float]:
    """The part of the window within both rising arrays; (nan, nan) where it is too small."""
    if min(len(a), len(b)) < 2:
        return math.nan, math.nan
    low, high = max(window[0], a[0], b[0]), min(window[1], a[-1], b[-1])
    return (float(low), float(high)) if high - low >= MIN_OVERLAP * (window[1] - window[0]) else (math.nan, math.nan)


def _mean_difference(
    x_a: np.ndarray, y_a: np.ndarray, x_b: np.ndarray, y_b: np.ndarray, window: tuple[float, float], method: str
) -> float:
    """Mean of y_b - y_a over a window of x; nan where the window is."""
    import bjontegaard

    if math.isnan(window[0]):
        return math.nan
    (x_a, y_a), (x_b, y_b) = _cut(x_a, y_a, window, method), _cut(x_b, y_b, window, method)
    return float(bjontegaard.bd_linear(x_a, y_a, x_b, y_b, method=method, require_matching_points=False))


def _cut(x: np.ndarray, y: np.ndarray, window: tuple[float, float], method: str) -> tuple[np.ndarray, np.ndarray]:
    """The curve within a window, with points at its ends: bjontegaard integrates the whole range that curves share."""
    from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        ends = (PchipInterpolator if method == "pchip" else Akima1DInterpolator)(x, y)(np.array(window))
    inside = (x > window[0]) & (x < window[1])
    return np.array([window[0], *x[inside], window[1]]), np.array([ends[0], *y[inside], ends[1]])


def at_quality(curve: Curve, metric: Metric, value: float) -> dict[str, float]:
    """bpp, encode and decode MP/s where the curve reaches a value of the metric; nan beyond its ends."""
    point_of = {metric.shown(p.values.get(metric.column, math.nan)): p for p in curve.points}
    _, values = curve.axes(metric)
    result = dict.fromkeys(("bpp", "encode_speed", "decode_speed"), math.nan)
    if len(values) >= 2 and values[0] <= value <= values[-1]:
        for key in result:
            logs = np.log([getattr(point_of[v], key) for v in values])
            if np.isfinite(logs).all():
                result[key] = float(np.exp(np.interp(value, values, logs)))
    return result


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
        kinds: KIND of each codec.
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
                column: np.array(
                    [[_float_of(row_of[n].get(column)) for row_of in complete] for n in range(len(images))]
                )
                for column in ("bpp", *columns)
            }
            samples[name] = Samples(arrays.pop("bpp"), arrays)
    return samples


def _float_of(text: Any) -> float:
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


def compare(
    old: str, rows: list[Row], names: list[str], metrics: list[str], kinds: Sequence[tuple[str, ...]]
) -> dict[str, Any]:
    """What changed for the codecs `names` since the run in the folder `old`, as JSON values.

    Rates are BD-rates in percent against the same codec of the old run; speeds are new over old, over all points that
    both have.  A codec that one of the runs lacks is left out.  Raises CodecError if the runs share no image.
    """
    path = os.path.join(old, "results.csv")
    if not os.path.exists(path):
        raise CodecError(f"{path}: no results to compare with")
    before = read_rows(path)
    shared = _images_of(before) & _images_of(rows)
    if not shared:
        raise CodecError(f"{old}: the runs share no image")
    after_of = {curve.name: curve for curve in curves_of(rows, shared, kinds)[0]}
    before_of = {curve.name: curve for curve in curves_of(before, shared)[0]}
    table = []
    for name in names:
        if name in after_of and name in before_of:
            before_curve, after_curve = before_of[name], after_of[name]
            rates = {metric: _json_number(delta(before_curve, after_curve, known()[metric]).rate) for metric in metrics}
            speeds = {
                key: _json_number(_speed_ratio(before_curve, after_curve, key))
                for key in ("encode_speed", "decode_speed")
            }
            table.append({"name": name, "old": before_curve.about, "new": after_curve.about, "rates": rates, **speeds})
    return {"with": old, "images": len(shared), "codecs": table}


def _images_of(rows: list[Row]) -> set[tuple[str, str]]:
    return {(row["image"], row["crc32"]) for row in rows}


def _speed_ratio(old: Curve, new: Curve, key: str) -> float:
    """New speed over old: the geometric mean over settings that both have; nan without any."""
    before = {point.setting: getattr(point, key) for point in old.points}
    ratios = [getattr(point, key) / before[point.setting] for point in new.points if point.setting in before]
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else float("nan")


def _json_number(value: float) -> float | None:
    """A number for JSON, None for nan."""
    return None if math.isnan(value) else value
