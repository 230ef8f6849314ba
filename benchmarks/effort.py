"""Measure what each encoder effort gains and costs: BD-rate against effort 1, and CPU seconds per megapixel.

    python benchmarks/effort.py IMAGES... [--tune eye] [--count 12] [--crop 512] [--rows rows.csv] [-o OUT.json]

BD-rates are by PSNR, or by SSIMULACRA2 with --tune eye.  Bytes and points, or dB, are changes at one quality, means
over qualities and images.

IMAGES are folders, .tar files or images. Of those that are large enough, `count` are taken at even distances, and
their centres are cropped. --rows keeps what is measured, so the same command resumes; commands with other --qualities
may run at the same time. Seconds are CPU seconds of one thread, which depend little on other work of the machine.
"""

from __future__ import annotations

import argparse
import csv
import os
import time

import bjontegaard
import numpy as np
from common import center_crops, publish, significant

from vaecodec.cli.options import numbers
from vaecodec.codec import Codec
from vaecodec.container.image_file import quality_index_of
from vaecodec.images.metrics import psnr, ssimulacra2
from vaecodec.model.file import load_model
from vaecodec.rdo.prices import ITERATIONS, plan_of

COLUMNS = ["effort", "iterations", "BD-rate, %", "lower half, %", "upper half, %", "bytes, %", "{}", "s/MP"]
UNITS = {"psnr": "dB", "eye": "points"}
Key = tuple[str, str, int, int, float, int]  # model, tune, crop, image, quality, effort
Row = tuple[float, float, float]  # bpp, PSNR or SSIMULACRA2, CPU seconds


def measure(codec: Codec, tune: str, pixels: np.ndarray, quality: float, effort: int) -> Row:
    """Rate, fidelity and CPU seconds of one file."""
    started = time.process_time()
    data = codec.encode(pixels, quality, effort=effort, tune=tune)
    seconds = time.process_time() - started
    fidelity = (psnr if tune == "psnr" else ssimulacra2)(pixels, codec.decode(data))
    return 8 * len(data) / (pixels.shape[0] * pixels.shape[1]), fidelity, seconds


def read(path: str) -> dict[Key, Row]:
    """The rows of a file, or none where there is no file."""
    rows: dict[Key, Row] = {}
    if os.path.exists(path):
        with open(path, newline="") as file:
            for model, tune, crop, image, quality, effort, *values in csv.reader(file):
                bpp, fidelity, seconds = map(float, values)
                rows[model, tune, int(crop), int(image), float(quality), int(effort)] = (bpp, fidelity, seconds)
    return rows


def bd_rate(anchor: np.ndarray, curve: np.ndarray) -> float:
    """Percent of bits at equal fidelity; curves are f64[qualities, 2 or more] of bpp and fidelity."""
    return float(bjontegaard.bd_rate(*anchor[:, :2].T, *curve[:, :2].T, method="pchip", min_overlap=0))


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="IMAGES")
    parser.add_argument("--model", default="small")
    parser.add_argument("--tune", choices=("psnr", "eye"), default="psnr")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--qualities", type=numbers, default=(10.0, 30.0, 50.0, 70.0, 90.0))
    parser.add_argument("--efforts", type=numbers, default=tuple(range(1, len(ITERATIONS) + 1)))
    parser.add_argument("--rows", default=os.devnull)
    parser.add_argument("-o", "--output")
    args = parser.parse_args()
    codec, done = Codec(load_model(args.model), threads=1), read(args.rows)
    crops = center_crops(args.paths, args.count, args.crop)
    efforts = sorted({1, *map(int, args.efforts)})

    def row(image: int, quality: float, effort: int) -> Row:
        key = (codec.model.id, args.tune, args.crop, image, quality, effort)
        if key not in done:
            done[key] = measure(codec, args.tune, crops[image], quality, effort)
            with open(args.rows, "a", newline="") as file:
                csv.writer(file).writerow([*key, *done[key]])
        return done[key]

    def curve(effort: int) -> np.ndarray:
        return np.mean([[row(n, q, effort) for q in args.qualities] for n in range(len(crops))], axis=0)

    curves = {effort: curve(effort) for effort in efforts}
    half = -(-len(args.qualities) // 2)
    rows = []
    for effort, points in curves.items():
        parts = [slice(None), slice(0, half), slice(half - len(args.qualities) % 2, None)]
        rates = [bd_rate(curves[1][part], points[part]) if half > 1 else float("nan") for part in parts]
        larger = 100 * float(np.mean(points[:, 0] / curves[1][:, 0] - 1))
        better = float(np.mean(points[:, 1] - curves[1][:, 1]))
        iterations = plan_of(effort, quality_index_of(max(args.qualities)), args.tune).iterations
        seconds = float(points[:, 2].mean() / args.crop**2 * 1e6)
        values = [*(round(value, 1) for value in (*rates, larger)), round(better, 2)]
        rows.append([str(effort), iterations, *values, significant(seconds)])
    columns = [column.format(UNITS[args.tune]) for column in COLUMNS]
    qualities = ", ".join(f"{quality:g}" for quality in args.qualities)
    about = (
        f"{codec.model.name}, tune {args.tune}, {len(crops)} crops of {args.crop} x {args.crop}, quality {qualities}; "
    )
    publish(about + "CPU seconds per megapixel of one thread.", columns, rows, args.output)


if __name__ == "__main__":
    main()
