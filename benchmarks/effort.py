"""What each encoder effort buys and costs: BD-rate against effort 1, real file bytes, and CPU seconds a megapixel.

    python benchmarks/effort.py PICTURES... [--model my.vcm] [--count 12] [--crop 512] [--rows rows.csv] [-o OUT.json]

PICTURES are folders, .tar files or pictures; of those large enough, `count` are taken at even distances, and of each
its middle.  --rows keeps what was measured, so that the same line again resumes, and lines with other --qualities may
run at the same time.  Seconds are those of one thread, so that what else the machine does matters little.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import time

import bjontegaard
import numpy as np
from PIL import Image
from table import publish

from vaecodec.cli.parser import numbers
from vaecodec.codec.codec import Codec
from vaecodec.images.metrics import psnr
from vaecodec.model.file import load_model
from vaecodec.rdo.refinement import ITERATIONS
from vaecodec.training.datasets import encoded_images

COLUMNS = ["effort", "iterations", "BD-rate %", "lower half %", "upper half %", "CPU s/MP"]
Key = tuple[str, int, int, float, int]  # model, crop, picture, quality, effort
Row = tuple[float, float, float]  # bpp, PSNR, CPU seconds


def middles(paths: list[str], count: int, crop: int) -> list[np.ndarray]:
    """u8[crop, crop, 3] from the middles of `count` pictures."""
    large = []
    for encoded in encoded_images(paths):
        image = Image.open(io.BytesIO(encoded))
        if min(image.size) >= crop:
            large.append(encoded)
    found = []
    for n in range(min(count, len(large))):
        image = Image.open(io.BytesIO(large[n * len(large) // count])).convert("RGB")
        left, top = (image.width - crop) // 2, (image.height - crop) // 2
        found.append(np.asarray(image.crop((left, top, left + crop, top + crop))))
    return found


def measure(codec: Codec, pixels: np.ndarray, quality: float, effort: int) -> Row:
    """One file."""
    began = time.process_time()
    data = codec.encode(pixels, quality, effort=effort)
    seconds = time.process_time() - began
    return 8 * len(data) / (pixels.shape[0] * pixels.shape[1]), psnr(pixels, codec.decode(data)), seconds


def read(path: str) -> dict[Key, Row]:
    """What a file of rows holds."""
    found: dict[Key, Row] = {}
    if os.path.exists(path):
        with open(path, newline="") as file:
            for model, crop, picture, quality, effort, *values in csv.reader(file):
                bpp, fidelity, seconds = map(float, values)
                found[model, int(crop), int(picture), float(quality), int(effort)] = (bpp, fidelity, seconds)
    return found


def bd_rate(anchor: np.ndarray, curve: np.ndarray) -> float:
    """% of bits at equal PSNR, of curves [qualities, 2 or more] of bpp and PSNR."""
    return float(bjontegaard.bd_rate(*anchor[:, :2].T, *curve[:, :2].T, method="pchip", min_overlap=0))


def main() -> None:
    """Measures what is missing, then prints the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="PICTURES")
    parser.add_argument("--model", default="small")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--qualities", type=numbers, default=(10.0, 30.0, 50.0, 70.0, 90.0))
    parser.add_argument("--efforts", type=numbers, default=tuple(range(1, len(ITERATIONS) + 1)))
    parser.add_argument("--rows", default=os.devnull)
    parser.add_argument("-o", "--output")
    args = parser.parse_args()
    codec, done = Codec(load_model(args.model), threads=1), read(args.rows)
    crops = middles(args.paths, args.count, args.crop)
    efforts = sorted({1, *map(int, args.efforts)})

    def row(picture: int, quality: float, effort: int) -> Row:
        key = (codec.model.id, args.crop, picture, quality, effort)
        if key not in done:
            done[key] = measure(codec, crops[picture], quality, effort)
            with open(args.rows, "a", newline="") as file:
                csv.writer(file).writerow([*key, *done[key]])
        return done[key]

    def curve(effort: int) -> np.ndarray:
        return np.mean([[row(n, q, effort) for q in args.qualities] for n in range(len(crops))], axis=0)

    curves = {effort: curve(effort) for effort in efforts}
    half = -(-len(args.qualities) // 2)
    rows = []
    for effort, found in curves.items():
        parts = [slice(None), slice(0, half), slice(half - len(args.qualities) % 2, None)]
        rates = [bd_rate(curves[1][part], found[part]) if half > 1 else float("nan") for part in parts]
        rows.append([str(effort), ITERATIONS[effort - 1], *rates, float(found[:, 2].mean() / args.crop**2 * 1e6)])
    about = f"Effort of {codec.model.name} {codec.model.id} on {len(crops)} middles of {args.crop}x{args.crop}."
    publish(about, COLUMNS, rows, args.output)


if __name__ == "__main__":
    main()
