"""Summarise curves, and write them as JSON, Markdown tables, PNG plots by matplotlib, and one HTML file.

curves -> summary.json, tables.md, compressai/CODEC.json, rd-METRIC.png, speed.png, report.html
"""

from __future__ import annotations

import base64
import json
import math
import os
import platform
from collections.abc import Callable
from typing import Any

from vaecodec.atomic import write_atomic
from vaecodec.bench.curves import RATES, Curve, Samples, at_quality, delta, image_rates, interval
from vaecodec.bench.gallery import View
from vaecodec.bench.measure import known

MATCHED = (30.0, 33.0, 36.0)  # dB of PSNR at which speeds are compared
SPEED_AT = 33.0
OURS = "vaecodec"  # names of this package's codecs begin so
WORST, MOST_THUMBNAILS = 4, 24
TEMPLATE = os.path.join(os.path.dirname(__file__), "report.html")

Summary = dict[str, Any]


def summarise(curves: list[Curve], images: int, metrics: list[str]) -> Summary:
    """All that tables, plots and report show, as JSON values; a missing number is None."""
    lossy = [curve for curve in curves if not curve.is_lossless]
    measured = [curve for curve in lossy if not curve.published]
    published = {curve.name for curve in lossy if curve.published}
    shown = {name: metric for name, metric in known().items() if name in metrics}
    bd = {
        name: {a.name: {b.name: _numbers(delta(a, b, metric)._asdict()) for b in lossy} for a in lossy}
        for name, metric in shown.items()
    }
    ours = [curve.name for curve in measured if curve.name.startswith(OURS)]
    return {
        "machine": machine(),
        "count": images,
        "place": [place(name, metric, bd[metric], published) for name in ours for metric in bd],
        "metrics": {
            name: {"label": m.label, "unit": m.unit, "window": m.window, "column": m.column}
            for name, m in shown.items()
        },
        "rates": RATES,
        "curves": [_curve_record(curve, list(shown)) for curve in lossy],
        "bd": bd,
        "matched": {
            f"{db:g}": {curve.name: _numbers(at_quality(curve, known()["psnr"], db)) for curve in measured}
            for db in MATCHED
        },
        "speed_at": f"{SPEED_AT:g}",
        "lossless": [
            {"name": curve.name, "about": curve.about, "bpp": _number(curve.points[0].bpp)}
            | {key: _number(getattr(curve.points[0], key)) for key in ("encode_speed", "decode_speed")}
            for curve in curves
            if curve.is_lossless
        ],
    }


def _curve_record(curve: Curve, metrics: list[str]) -> dict[str, Any]:
    """A curve with all its points, in the units of the axes."""
    points = []
    for point in curve.points:
        values = {name: known()[name].shown(point.values.get(known()[name].column, math.nan)) for name in metrics}
        speeds = {"encode_speed": point.encode_speed, "decode_speed": point.decode_speed}
        points.append(_numbers({"setting": point.setting, "bpp": point.bpp, **values, **speeds}))
    return {"name": curve.name, "about": curve.about, "published": curve.published, "points": points}


def place(name: str, metric: str, deltas: dict[str, dict[str, Any]], published: set[str]) -> str:
    """A sentence with the BD-rates of a codec against every other, best first."""
    rates = {anchor: row[name]["rate"] for anchor, row in deltas.items() if anchor != name}
    measured = sorted((rate, anchor) for anchor, rate in rates.items() if rate is not None)
    parts = [
        (f"{abs(rate):.1f} % {'fewer' if rate < 0 else 'more'} bits than {anchor}" if rate else f"as many as {anchor}")
        + (" (published)" if anchor in published else "")
        for rate, anchor in measured
    ]
    label = known()[metric].label
    return f"{name}, for equal {label}: {'; '.join(parts)}." if parts else f"{name}, {label}: nothing to compare with."


def summarise_images(
    summary: Summary, samples: dict[str, Samples], images: list[str], metrics: list[str]
) -> dict[str, Any]:
    """What single images say, as JSON values, for our codecs against every other measured one.

    "intervals": metric -> anchor -> ours -> [low, high] of the BD-rate, or None;
    "images": metric -> anchor -> ours -> [BD-rate, bpp of the anchor] of each of "names".
    """
    lossy = [curve["name"] for curve in summary["curves"] if curve["name"] in samples]
    ours = [name for name in lossy if name.startswith(OURS)]
    intervals: Summary = {}
    rates: Summary = {}
    for metric in metrics:
        intervals[metric], rates[metric] = {}, {}
        for anchor in lossy:
            others = [name for name in ours if name != anchor]
            estimates = {name: summary["bd"][metric][anchor][name]["rate"] for name in others}
            bounds = {
                name: interval(samples[anchor], samples[name], known()[metric], math.nan if e is None else e)
                for name, e in estimates.items()
            }
            intervals[metric][anchor] = {name: pair and [*map(_number, pair)] for name, pair in bounds.items()}
            rates[metric][anchor] = {
                name: [[*map(_number, pair)] for pair in image_rates(samples[anchor], samples[name], known()[metric])]
                for name in others
            }
    return {"intervals": intervals, "images": {"names": images, "rates": rates}}


def worst_images(summary: Summary) -> list[str]:
    """The images on which our first codec does worst against each other one, WORST of each at most, without repeats."""
    names, rates = summary["images"]["names"], summary["images"]["rates"]
    worst: dict[str, None] = {}
    for anchors in rates.values():
        for ours in anchors.values():
            for pairs in list(ours.values())[:1]:
                order = sorted((n for n, (rate, _) in enumerate(pairs) if rate is not None), key=lambda n: -pairs[n][0])
                worst |= dict.fromkeys(names[n] for n in order[:WORST])
    return list(worst)[:MOST_THUMBNAILS]


def headline(summary: Summary) -> list[str]:
    """Lines with the BD-rates of our codecs against the others by the first metric, and what changed since a run."""
    metric = next(iter(summary["metrics"]))
    lines = [sentence for sentence in summary["place"] if f"equal {summary['metrics'][metric]['label']}" in sentence]
    for row in (summary["compare"] or {"codecs": []})["codecs"]:
        rates = ", ".join(f"{name} {rate:+.2f} %" for name, rate in row["rates"].items() if rate is not None)
        speeds = [f"{row[key]:.2f}" if row[key] else "-" for key in ("encode_speed", "decode_speed")]
        text = f"{row['name']} since {summary['compare']['with']}: bits by {rates or 'no metric'}"
        lines.append(f"{text}; encoding at {speeds[0]} and decoding at {speeds[1]} times the speed")
    return lines


def machine() -> dict[str, str]:
    """The machine and the versions that times depend on."""
    import numpy as np

    from vaecodec.errors import __version__

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


def save_tables(folder: str, summary: Summary, curves: list[Curve]) -> None:
    """Write summary.json, tables.md and compressai/*.json into a folder."""
    write_atomic(os.path.join(folder, "summary.json"), _json(summary), overwrite=True)
    write_atomic(os.path.join(folder, "tables.md"), tables(summary).encode(), overwrite=True)
    os.makedirs(os.path.join(folder, "compressai"), exist_ok=True)
    for curve in curves:
        if not curve.published and not curve.is_lossless:
            name = "".join(c if c.isalnum() or c in "-._" else "-" for c in curve.name)
            path = os.path.join(folder, "compressai", f"{name}.json")
            write_atomic(path, _json(compressai(curve, summary)), overwrite=True)


def compressai(curve: Curve, summary: Summary) -> dict[str, Any]:
    """A curve in the schema of CompressAI's results, for its plot command; times are seconds per image."""
    metrics = [known()[name] for name in summary["metrics"]]
    results = {m.json_name: [_number(p.values[m.column]) for p in curve.points] for m in metrics}
    results["bpp"] = [_number(p.bpp) for p in curve.points]
    mean = summary.get("megapixels", math.nan) / max(summary["count"], 1)
    for key, speed in (("encoding_time", "encode_speed"), ("decoding_time", "decode_speed")):
        results[key] = [_number(mean / getattr(p, speed)) for p in curve.points]
    return {"name": curve.name, "description": curve.about, "results": results}


def tables(summary: Summary) -> str:
    """Tables in Markdown: BD-rates of each metric, speeds, and lossless coding."""
    machine = ", ".join(f"{key} {value}" for key, value in summary["machine"].items())
    parts = [f"{summary['count']} images; {machine}.\n", *(f"{sentence}\n" for sentence in summary["place"])]
    names = [curve["name"] for curve in summary["curves"]]
    for name, metric in summary["metrics"].items() if names else ():
        low, high = metric["window"]
        rates = {row: [summary["bd"][name][column][row]["rate"] for column in names] for row in names}
        parts.append(
            f"## BD-rate, {metric['label']}, {low:g} to {high:g} {metric['unit']}\n\n"
            "Percent of bits that the row needs more (+) or fewer (-) than the column at equal quality; PCHIP.\n\n"
            + _grid(names, rates, "{:+.1f}".format)
        )
    speeds = {f"At {db} dB PSNR": rows for db, rows in summary["matched"].items() if names}
    if summary["lossless"]:
        speeds["Lossless"] = {row["name"]: row for row in summary["lossless"]}
    for title, rows in speeds.items():
        values = {name: [row["bpp"], row["encode_speed"], row["decode_speed"]] for name, row in rows.items()}
        parts.append(f"## {title}\n\n" + _grid(["bpp", "encode MP/s", "decode MP/s"], values, "{:.3g}".format))
    if summary["compare"]:
        rows = {
            row["name"]: [*row["rates"].values(), row["encode_speed"], row["decode_speed"]]
            for row in summary["compare"]["codecs"]
        }
        columns = [*(f"bits, {name}, %" for name in summary["metrics"]), "encode, times", "decode, times"]
        parts.append(f"## Since {summary['compare']['with']}\n\n" + _grid(columns, rows, "{:.3g}".format))
    return "\n".join(parts)


def _grid(columns: list[str], rows: dict[str, list[float | None]], show: Callable[[float], str]) -> str:
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, values in rows.items():
        lines.append(f"| {name} | " + " | ".join("-" if value is None else show(value) for value in values) + " |")
    return "\n".join(lines) + "\n"


def save_html(path: str, summary: Summary, views: list[View], thumbnails: dict[str, str]) -> None:
    """Write the report of a summary, a gallery and thumbnails (data URLs by image) as one file with all in it."""
    records = []
    for view in views:
        with open(view.file, "rb") as file:
            url = "data:image/webp;base64," + base64.b64encode(file.read()).decode()
        records.append(view._replace(file=url)._asdict())
    with open(TEMPLATE, encoding="utf-8") as file:
        template = file.read()
    data = {"summary": summary, "views": records, "thumbnails": thumbnails}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    text = text.replace("</", "<\\/").replace("<!--", "<\\!--")  # which would end the script element
    write_atomic(path, template.replace("/*DATA*/ null", text).encode(), overwrite=True)


def _numbers(values: dict[str, float]) -> dict[str, float | None]:
    return {key: _number(value) for key, value in values.items()}


def _number(value: float) -> float | None:
    """A number for JSON: 6 significant digits, None for nan and infinities."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


# Those of report.html on white.
COLOURS = (
    "#0072B2", "#D55E00", "#2EA1B8", "#5C17B8", "#8A2E17", "#B88A73", "#111111", "#8A73FD", "#73455C", "#0000FD"
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PUBLISHED = "#777777"
DASHES = ((5, 2), (2, 2), (7, 2, 2, 2), (1, 1), (9, 3), (4, 1, 1, 1, 1, 1))


def save_plots(folder: str, summary: Summary) -> None:
    """Write rd-METRIC.png and speed.png into a folder, where there are points; raise ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def save(name: str, draw: Callable[..., bool], *arguments: str) -> None:
        figure = Figure(figsize=(8, 5.2), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.grid(alpha=0.3)
        if draw(axes, summary, *arguments):
            figure.savefig(os.path.join(folder, name))

    for metric in summary["metrics"]:
        save(f"rd-{metric}.png", _draw_curves, metric)
    save("speed.png", _draw_speeds)


def _style(index: int) -> dict[str, str]:
    """Colour and marker of the codec at an index: all of the first 70 differ."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
    }


def _draw_curves(axes: Any, summary: Summary, metric: str) -> bool:
    """Draw the curves of a metric; return whether there is a measured one."""
    curves = [
        (curve, [(p["bpp"], p[metric]) for p in curve["points"] if p[metric] is not None])
        for curve in summary["curves"]
    ]
    published = [(curve, points) for curve, points in curves if points and curve["published"]]
    measured = [(curve, points) for curve, points in curves if points and not curve["published"]]
    if not measured:
        return False
    for index, (curve, points) in enumerate(published):
        label = f"{curve['name']} (published)"
        dashes = DASHES[index % len(DASHES)]
        axes.plot(*zip(*points, strict=True), color=PUBLISHED, lw=1, dashes=dashes, zorder=1, label=label)
    for index, (curve, points) in enumerate(measured):
        axes.plot(*zip(*points, strict=True), **_style(index), ms=4, lw=1.6, label=curve["name"])
    right = min(summary["rates"][1], 1.05 * max(points[-1][0] for _, points in measured))
    axes.set_xlim(0, right)
    about = summary["metrics"][metric]
    visible = [value for _, points in measured for bpp, value in points if bpp <= right]
    if visible:
        low, high = about["window"]
        axes.set_ylim(max(min(visible), low - 0.4 * (high - low)), max(visible) + 0.05 * (high - low))
    axes.set_xlabel("rate, bits per pixel (bpp), whole files")
    axes.set_ylabel(f"{about['label']}, {about['unit']}")
    axes.set_title(f"Mean of {summary['count']} images", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    return True


def _draw_speeds(axes: Any, summary: Summary) -> bool:
    """Draw speeds over rates at one quality; return whether there are any."""
    points = []
    for index, (name, row) in enumerate(summary["matched"][summary["speed_at"]].items()):
        bpp, decode, encode = (row[key] for key in ("bpp", "decode_speed", "encode_speed"))
        if None not in (bpp, decode, encode):
            points.append((bpp, decode))
            axes.plot([bpp], [decode], **_style(index), ls="none", ms=8)
            axes.plot([bpp], [encode], **_style(index), mfc="none", ls="none", ms=8)
            axes.annotate(name, (bpp, decode), textcoords="offset points", xytext=(8, 4), fontsize=9)
    if not points:
        return False
    axes.plot([], [], "o", color="#555555", label="decode")
    axes.plot([], [], "o", color="#555555", mfc="none", label="encode")
    front: list[tuple[float, float]] = []
    for bpp, decode in sorted(points):
        if not front or decode > front[-1][1]:
            front.append((bpp, decode))
    axes.plot(*zip(*front, strict=True), color="#555555", ls=":", lw=1.2, label="Pareto front of decoding")
    axes.set_yscale("log")
    axes.margins(0.12)
    axes.set_xlabel(f"rate at {summary['speed_at']} dB PSNR, bits per pixel (bpp): less is better")
    axes.set_ylabel(f"speed, megapixels per second (MP/s), up to {summary['threads']} threads")
    axes.legend(fontsize=8)
    return True
