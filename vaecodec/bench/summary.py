"""What a benchmark comes to: Bjontegaard deltas, speeds at matched quality, and files for other programs to read.

results.csv -> summary.json, tables.md, compressai/CODEC.json
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable
from typing import Any

from vaecodec.atomic import write_atomic
from vaecodec.bench.curves import RATES, Curve, at_quality, delta, is_lossless
from vaecodec.images.metrics import METRICS

MATCHED = (30.0, 33.0, 36.0)  # dB of PSNR, that speeds are compared at
SPEED_AT = 33.0


def summarise(curves: list[Curve], pictures: int, metrics: list[str]) -> dict[str, Any]:
    """Everything that the tables, the plots and the report show, as JSON values; a missing number is None."""
    lossy = [curve for curve in curves if not is_lossless(curve)]
    measured = [curve for curve in lossy if not curve.published]
    published = {curve.name for curve in lossy if curve.published}
    bd = {
        name: {a.name: {b.name: _delta(a, b, name) for b in lossy} for a in lossy}
        for name in METRICS
        if name in metrics
    }
    return {
        "machine": machine(),
        "pictures": pictures,
        "place": [place(c.name, m, bd[m], published) for c in measured if c.name.startswith("vaecodec") for m in bd],
        "metrics": {
            name: {"label": m.label, "unit": m.unit, "window": m.window, "column": m.column}
            for name, m in METRICS.items()
            if name in metrics
        },
        "rates": RATES,
        "curves": [_curve(curve, metrics) for curve in lossy],
        "bd": bd,
        "matched": {f"{db:g}": {curve.name: _matched(curve, db) for curve in measured} for db in MATCHED},
        "speed_at": f"{SPEED_AT:g}",
        "lossless": [_lossless(curve) for curve in curves if is_lossless(curve)],
    }


def place(name: str, metric: str, deltas: dict[str, dict[str, Any]], published: set[str]) -> str:
    """A codec's place in words: its BD-rate against every other, the best first."""
    rates = {anchor: found[name]["rate"] for anchor, found in deltas.items() if anchor != name}
    known = sorted((rate, anchor) for anchor, rate in rates.items() if rate is not None)
    parts = [
        f"{abs(rate):.1f} % {'fewer' if rate < 0 else 'more'} bits than {anchor}"
        + (" (published)" if anchor in published else "")
        for rate, anchor in known
    ]
    label = METRICS[metric].label
    return f"{name}, for equal {label}: {'; '.join(parts)}." if parts else f"{name}, {label}: nothing to compare with."


def machine() -> dict[str, str]:
    """The machine and the versions that times depend on."""
    import numpy as np

    from vaecodec.version import __version__

    model = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": model or platform.machine(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "vaecodec": __version__,
    }


def save(folder: str, summary: dict[str, Any], curves: list[Curve]) -> None:
    """Writes summary.json, tables.md and compressai/*.json into a folder."""
    write_atomic(os.path.join(folder, "summary.json"), _json(summary), overwrite=True)
    write_atomic(os.path.join(folder, "tables.md"), tables(summary).encode(), overwrite=True)
    beside = os.path.join(folder, "compressai")
    os.makedirs(beside, exist_ok=True)
    for curve in curves:
        if not curve.published and not is_lossless(curve):
            name = "".join(c if c.isalnum() or c in "-._" else "-" for c in curve.name)
            write_atomic(os.path.join(beside, f"{name}.json"), _json(compressai(curve, summary)), overwrite=True)


def compressai(curve: Curve, summary: dict[str, Any]) -> dict[str, Any]:
    """A curve in the schema of CompressAI's results, which its plot command reads; seconds a picture."""
    shown = [METRICS[name] for name in summary["metrics"]]
    results = {m.json_name: [_number(p.values[m.column]) for p in curve.points] for m in shown}
    results["bpp"] = [_number(p.bpp) for p in curve.points]
    mean = _mean_megapixels(summary)
    for key, speed in (("encoding_time", "encode_speed"), ("decoding_time", "decode_speed")):
        results[key] = [_number(mean / getattr(p, speed)) for p in curve.points]
    return {"name": curve.name, "description": curve.about, "results": results}


def tables(summary: dict[str, Any]) -> str:
    """The tables in Markdown: each metric's BD-rates, speeds, and lossless coding."""
    names = [curve["name"] for curve in summary["curves"]]
    parts = [f"{summary['pictures']} pictures; {', '.join(f'{k} {v}' for k, v in summary['machine'].items())}.\n"]
    parts += [f"{sentence}\n" for sentence in summary["place"]]
    for name, metric in summary["metrics"].items() if names else ():
        low, high = metric["window"]
        parts.append(
            f"## BD-rate, {metric['label']}, {low:g} to {high:g} {metric['unit']}\n\n"
            "Percent of bits that the row needs more (+) or fewer (-) than the column at equal quality; PCHIP.\n\n"
            + _grid(names, names, lambda row, column, name=name: _sign(summary["bd"][name][column][row]["rate"]))
        )
    for db, found in summary["matched"].items() if names else ():
        keys = {"bpp": "bpp", "encode_speed": "encode MP/s", "decode_speed": "decode MP/s"}
        parts.append(
            f"## At {db} dB PSNR\n\n"
            + _grid(list(found), list(keys.values()), lambda row, column, f=found, k=keys: _speed(f, k, row, column))
        )
    if summary["lossless"]:
        keys = {"bpp": "bpp", "encode_speed": "encode MP/s", "decode_speed": "decode MP/s"}
        found = {row["name"]: row for row in summary["lossless"]}
        parts.append(
            "## Lossless\n\n" + _grid(list(found), list(keys.values()), lambda r, c: _speed(found, keys, r, c))
        )
    return "\n".join(parts)


def _grid(rows: list[str], columns: list[str], cell: Any) -> str:
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {row} | " + " | ".join(cell(row, column) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _sign(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _speed(found: dict[str, dict[str, float | None]], keys: dict[str, str], row: str, column: str) -> str:
    value = found[row][next(key for key, title in keys.items() if title == column)]
    return "-" if value is None else f"{value:.3g}"


def _mean_megapixels(summary: dict[str, Any]) -> float:
    return summary.get("megapixels", math.nan) / max(summary["pictures"], 1)


def _curve(curve: Curve, metrics: Iterable[str]) -> dict[str, Any]:
    """A curve for drawing: all its points, in the metrics' units on the axes."""
    points = [
        {
            "setting": _number(p.setting),
            "bpp": _number(p.bpp),
            **{name: _number(METRICS[name].shown(p.values.get(METRICS[name].column, math.nan))) for name in metrics},
            "encode_speed": _number(p.encode_speed),
            "decode_speed": _number(p.decode_speed),
        }
        for p in curve.points
    ]
    return {"name": curve.name, "about": curve.about, "published": curve.published, "points": points}


def _delta(anchor: Curve, curve: Curve, metric: str) -> dict[str, float | None]:
    return {key: _number(value) for key, value in delta(anchor, curve, METRICS[metric])._asdict().items()}


def _matched(curve: Curve, db: float) -> dict[str, float | None]:
    return {key: _number(value) for key, value in at_quality(curve, METRICS["psnr"], db).items()}


def _lossless(curve: Curve) -> dict[str, Any]:
    best = curve.points[0]
    speeds = {"encode_speed": _number(best.encode_speed), "decode_speed": _number(best.decode_speed)}
    return {"name": curve.name, "about": curve.about, "bpp": _number(best.bpp), **speeds}


def _number(value: float) -> float | None:
    """A number as JSON has it: 6 significant digits, None for nan and infinities."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
