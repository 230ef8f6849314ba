"""The curves of the bake-off in docs/model.md: Bjontegaard deltas, and what each takes of the reference's bits.

    python benchmarks/bakeoff.py [--curves CSV] [--plot docs/bakeoff.png] [-o OUT.json]

The curves are of middles of 256x256 of 24 held-out photographs: means of bits per pixel, as the models estimate them
for rounded latents, and of RGB PSNR in dB on 8-bit output.  Needs vaecodec[bench].
"""

from __future__ import annotations

import argparse
import csv
import pathlib
from typing import NamedTuple

import numpy as np
from bjontegaard import bd_rate
from scipy.interpolate import PchipInterpolator
from table import publish

from vaecodec.plots import style

CURVES = pathlib.Path(__file__).parent / "results/bakeoff/curves.csv"
REFERENCES = ("lapped shortcut (the architecture)", "small")


class Curve(NamedTuple):
    steps: int
    minutes: float  # of one core
    bpp: np.ndarray
    psnr: np.ndarray


def read(path: str) -> dict[str, Curve]:
    """By variant, in the file's order; points of ascending rate."""
    rows: dict[str, list[dict[str, str]]] = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["variant"], []).append(row)
    return {
        name: Curve(
            int(points[0]["steps"]),
            float(points[0]["cpu_minutes"]),
            *(np.array([float(point[key]) for point in points]) for key in ("bpp", "psnr")),
        )
        for name, points in rows.items()
    }


def delta(reference: Curve, other: Curve, part: slice = slice(None)) -> float | None:
    """Percent of bits at equal PSNR, over what `part` of the reference's points and the other curve share, if any."""
    low, high = reference.psnr[part].min(), reference.psnr[part].max()
    if max(low, other.psnr.min()) >= min(high, other.psnr.max()):
        return None
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    return float(bd_rate(reference.bpp[part], reference.psnr[part], other.bpp, other.psnr, **options))


def draw(curves: dict[str, Curve], path: str) -> None:
    """Bits at equal PSNR, in percent of those of the last reference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes, last = figure.add_subplot(), curves[REFERENCES[-1]]
    usual = PchipInterpolator(last.psnr, np.log(last.bpp))
    for index, (name, curve) in enumerate(curves.items()):
        low, high = max(last.psnr[0], curve.psnr[0]), min(last.psnr[-1], curve.psnr[-1])
        psnr = np.linspace(low, high, 80)
        percent = 100 * (np.exp(PchipInterpolator(curve.psnr, np.log(curve.bpp))(psnr) - usual(psnr)) - 1)
        colour, marker = style(index)
        axes.plot(psnr, percent, color=colour, marker=marker, markevery=16, ms=4, lw=1.5, label=name)
    axes.set(xlabel="RGB PSNR, dB", ylabel=f"bits against {REFERENCES[-1]}, %", ylim=(-25, 105))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=7, ncols=2)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--curves", default=str(CURVES))
    parser.add_argument("--plot", help="PNG file")
    parser.add_argument("-o", "--output", help="JSON file")
    options = parser.parse_args()
    curves = read(options.curves)
    base, small = (curves[name] for name in REFERENCES)
    rows = []
    for name, curve in curves.items():
        halves = [delta(base, curve, part) for part in (slice(None), slice(0, 5), slice(3, 8))]
        rows.append([name, curve.steps, curve.minutes, *halves, delta(small, curve)])
    about = (
        f"BD-rate in %, PCHIP: against {REFERENCES[0]}, all points, the five lowest, the five highest; {REFERENCES[1]}."
    )
    columns = ["variant", "steps", "minutes of a core", "all", "low", "high", f"against {REFERENCES[1]}"]
    publish(about, columns, rows, options.output)
    if options.plot:
        draw(curves, options.plot)


if __name__ == "__main__":
    main()
