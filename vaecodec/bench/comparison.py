"""Compare a run of the benchmark with an earlier one, over the images that both have."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vaecodec.bench.curves import Curve, curves_of, delta
from vaecodec.bench.measure import Row, read_rows
from vaecodec.bench.metrics import known
from vaecodec.errors import CodecError


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
    shared = _images(before) & _images(rows)
    if not shared:
        raise CodecError(f"{old}: the runs share no image")
    after_of = {curve.name: curve for curve in curves_of(rows, shared, kinds)[0]}
    before_of = {curve.name: curve for curve in curves_of(before, shared)[0]}
    table = []
    for name in names:
        if name in after_of and name in before_of:
            before_curve, after_curve = before_of[name], after_of[name]
            rates = {metric: _number(delta(before_curve, after_curve, known()[metric]).rate) for metric in metrics}
            speeds = {
                key: _number(_speed_ratio(before_curve, after_curve, key)) for key in ("encode_speed", "decode_speed")
            }
            table.append({"name": name, "old": before_curve.about, "new": after_curve.about, "rates": rates, **speeds})
    return {"with": old, "images": len(shared), "codecs": table}


def _images(rows: list[Row]) -> set[tuple[str, str]]:
    return {(row["image"], row["crc32"]) for row in rows}


def _speed_ratio(old: Curve, new: Curve, key: str) -> float:
    """New speed over old: the geometric mean over settings that both have; nan without any."""
    before = {point.setting: getattr(point, key) for point in old.points}
    ratios = [getattr(point, key) / before[point.setting] for point in new.points if point.setting in before]
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else float("nan")


def _number(value: float) -> float | None:
    """A number for JSON, None for nan."""
    return None if math.isnan(value) else value
