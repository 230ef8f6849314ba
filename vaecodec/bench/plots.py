"""Draw rate-distortion curves, and speed over rate, as PNG by matplotlib."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

# Those of report.html on white.
COLOURS = (
    "#0072B2", "#D55E00", "#2EA1B8", "#5C17B8", "#8A2E17", "#B88A73", "#111111", "#8A73FD", "#73455C", "#0000FD"
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PUBLISHED = "#777777"
DASHES = ((5, 2), (2, 2), (7, 2, 2, 2), (1, 1), (9, 3), (4, 1, 1, 1, 1, 1))

Summary = dict[str, Any]


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
