"""Compute rate-distortion curves from rows of results, and Bjontegaard deltas and speeds from curves.

A point of a curve is one setting of a codec: the arithmetic means over all images of bpp, PSNR and the other metrics.
Its speed is all pixels over all seconds. A setting that lacks an image has no point.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from vaecodec.bench.metrics import known
from vaecodec.errors import CodecError
from vaecodec.images.metrics import MIN_OVERLAP, Metric

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
