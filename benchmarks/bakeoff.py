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
from table import publish

from vaecodec.curves import Curve, Point, delta, interpolate
from vaecodec.metrics import METRICS, Metric
from vaecodec.plots import style

CURVES = pathlib.Path(__file__).parent / "results/bakeoff/curves.csv"
REFERENCES = ("lapped shortcut (the architecture)", "small")


PSNR = METRICS["psnr"]


class Variant(NamedTuple):
    steps: int
    minutes: float  # of one core
    curve: Curve


def read(path: str) -> dict[str, Variant]:
    """By name, in the file's order; points of ascending rate."""
    found: dict[str, Variant] = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            new = Variant(int(row["steps"]), float(row["cpu_minutes"]), Curve(row["variant"], "", []))
            points = found.setdefault(row["variant"], new).curve.points
            points.append(Point(float(row["point"]), float(row["bpp"]), {PSNR.column: float(row["psnr"])}))
    return found


def over(curve: Curve, part: slice = slice(None)) -> Metric:
    """PSNR, with the window that a part of the curve's points spans."""
    _, psnr = curve.axes(PSNR)
    return PSNR._replace(window=(float(psnr[part][0]), float(psnr[part][-1])))


def draw(variants: dict[str, Variant], path: str) -> None:
    """Bits at equal PSNR, in percent of those of the last reference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes, (bits, usual) = figure.add_subplot(), variants[REFERENCES[-1]].curve.axes(PSNR)
    for index, (name, variant) in enumerate(variants.items()):
        bpp, psnr = variant.curve.axes(PSNR)
        at = np.linspace(max(usual[0], psnr[0]), min(usual[-1], psnr[-1]), 80)
        logs = interpolate(psnr, np.log(bpp), at) - interpolate(usual, np.log(bits), at)
        colour, marker = style(index)
        axes.plot(at, 100 * np.expm1(logs), color=colour, marker=marker, markevery=16, ms=4, lw=1.5, label=name)
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
    variants = read(options.curves)
    base, small = (variants[name].curve for name in REFERENCES)
    windows = [(base, over(base, part)) for part in (slice(None), slice(0, 5), slice(3, 8))] + [(small, over(small))]
    rows = [
        [name, steps, minutes, *(delta(anchor, curve, window).rate for anchor, window in windows)]
        for name, (steps, minutes, curve) in variants.items()
    ]
    about = (
        f"BD-rate in %, PCHIP: against {REFERENCES[0]}, all points, the five lowest, the five highest; {REFERENCES[1]}."
    )
    columns = ["variant", "steps", "minutes of a core", "all", "low", "high", f"against {REFERENCES[1]}"]
    publish(about, columns, rows, options.output)
    if options.plot:
        draw(variants, options.plot)


if __name__ == "__main__":
    main()
