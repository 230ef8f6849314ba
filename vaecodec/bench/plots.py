"""The plots as PNG, for documents: rate-distortion for each metric, and speed against efficiency."""

from __future__ import annotations

import math
import os
from typing import Any

# Okabe and Ito 2008, which the colour-blind can tell apart; never yellow on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PUBLISHED = "#777777"
DASHES = ((5, 2), (2, 2), (7, 2, 2, 2), (1, 1), (9, 3), (4, 1, 1, 1, 1, 1))


def save(folder: str, summary: dict[str, Any]) -> list[str]:
    """Writes rd-METRIC.png and speed.png into a folder; their paths.  Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paths = []

    def draw(name: str, drawing: Any, *arguments: Any) -> None:
        figure = Figure(figsize=(8, 5.2), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.grid(alpha=0.3)
        if drawing(axes, summary, *arguments):
            paths.append(os.path.join(folder, name))
            figure.savefig(paths[-1])

    for metric in summary["metrics"]:
        draw(f"rd-{metric}.png", _rate_distortion, metric)
    draw("speed.png", _speed)
    return paths


def style(index: int) -> tuple[str, str]:
    """(colour, marker) of the codec at a place in the list: no two alike in their first 49."""
    return COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def _rate_distortion(axes: Any, summary: dict[str, Any], metric: str) -> bool:
    about = summary["metrics"][metric]
    measured = published = 0
    ends = [1e-9]
    right = summary["rates"][1]
    for curve in summary["curves"]:
        points = [(p["bpp"], p[metric]) for p in curve["points"] if p[metric] is not None]
        if not points:
            continue
        x, y = zip(*points, strict=True)
        if curve["published"]:
            axes.plot(x, y, color=PUBLISHED, lw=1, dashes=DASHES[published % len(DASHES)], zorder=1,
                      label=f"{curve['name']} (published)")  # fmt: skip
            published += 1
        else:
            colour, marker = style(measured)
            axes.plot(x, y, color=colour, marker=marker, ms=4, lw=1.6, label=curve["name"])
            measured += 1
            ends.append(x[-1])
    if not measured:
        return False
    right = min(right, 1.05 * max(ends))
    axes.set_xlim(0, right)
    own = [curve["points"] for curve in summary["curves"] if not curve["published"]]
    seen = [p[metric] for points in own for p in points if p[metric] is not None and p["bpp"] <= right]
    if seen:
        low, high = about["window"]
        axes.set_ylim(max(min(seen), low - 0.4 * (high - low)), max(seen) + 0.05 * (high - low))
    axes.set_xlabel("rate, bits per pixel (bpp), whole files")
    axes.set_ylabel(f"{about['label']}, {about['unit']}")
    axes.set_title(f"Mean of {summary['pictures']} pictures", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    return True


def _speed(axes: Any, summary: dict[str, Any]) -> bool:
    matched = summary["matched"][summary["speed_at"]]
    points = []
    for index, (name, found) in enumerate(matched.items()):
        colour, marker = style(index)
        bpp, decode, encode = (found[key] for key in ("bpp", "decode_speed", "encode_speed"))
        if None in (bpp, decode, encode):
            continue
        points.append((bpp, decode))
        axes.plot([bpp], [decode], marker=marker, color=colour, ls="none", ms=8)
        axes.plot([bpp], [encode], marker=marker, mfc="none", color=colour, ls="none", ms=8)
        axes.annotate(name, (bpp, decode), textcoords="offset points", xytext=(8, 4), fontsize=9)
    if not points:
        return False
    axes.plot([], [], "o", color="#555555", label="decode")
    axes.plot([], [], "o", color="#555555", mfc="none", label="encode")
    front: list[tuple[float, float]] = []
    best = -math.inf
    for bpp, decode in sorted(points):
        if decode > best:
            front.append((bpp, decode))
            best = decode
    axes.plot(*zip(*front, strict=True), color="#555555", ls=":", lw=1.2, label="Pareto line of decoding")
    axes.set_yscale("log")
    axes.margins(0.12)
    axes.set_xlabel(f"rate at {summary['speed_at']} dB PSNR, bits per pixel (bpp): less is better")
    axes.set_ylabel(f"speed, megapixels per second (MP/s), up to {summary['threads']} threads")
    axes.legend(fontsize=8)
    return True
