"""Rate and distortion on a folder of pictures: vaecodec beside WebP, AVIF, JPEG XL and published BPG 4:4:4.

    python benchmarks/kodak.py FOLDER --out results.csv        needs imagecodecs and bjontegaard

Bytes are those of whole files; PSNR is of 8-bit RGB, per picture, then averaged over pictures; BD-rate by PCHIP over
the overlap of both curves with 28-38 dB.  Times are one warm call a picture in this process, at --threads.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import time
from collections.abc import Callable

import bjontegaard
import imagecodecs
import numpy as np
from PIL import Image

import vaecodec

PUBLISHED = pathlib.Path(__file__).with_name("published") / "kodak_bpg444.csv"
LOW, HIGH = 28.0, 38.0
Coder = tuple[list[float], Callable[[np.ndarray, float], bytes], Callable[[bytes], np.ndarray]]


def coders(model: str, threads: int) -> dict[str, Coder]:
    """Name -> (settings, encode, decode)."""
    codec = vaecodec.load(model)

    def avif(x: np.ndarray, level: float) -> bytes:
        return imagecodecs.avif_encode(x, level=int(level), speed=6, pixelformat="444", numthreads=threads)

    return {
        "vaecodec": ([1, 8, 15, 22, 30, 40, 50, 60, 70, 80, 90, 100], codec.encode, codec.decode),
        "WebP m6": (
            [1, 5, 10, 20, 30, 45, 60, 75, 85, 92, 97],
            lambda x, q: imagecodecs.webp_encode(x, level=q, method=6, lossless=False),
            imagecodecs.webp_decode,
        ),
        "AVIF s6 4:4:4": (
            [20, 28, 36, 44, 52, 60, 68, 76, 84, 90],
            avif,
            lambda data: imagecodecs.avif_decode(data, numthreads=threads),
        ),
        "JPEG XL e7": (
            [8.0, 6.0, 4.5, 3.5, 2.8, 2.2, 1.7, 1.3, 1.0, 0.7],
            lambda x, d: imagecodecs.jpegxl_encode(x, distance=d, effort=7, numthreads=threads),
            lambda data: imagecodecs.jpegxl_decode(data, numthreads=threads),
        ),
    }


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB, of u8[H, W, 3] against the same."""
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def bd_rate(anchor: np.ndarray, curve: np.ndarray) -> float:
    """Percent, of (bpp, dB) points in rising order; negative where `curve` needs fewer bits."""
    low, high = max(LOW, anchor[0, 1], curve[0, 1]), min(HIGH, anchor[-1, 1], curve[-1, 1])

    def cut(points: np.ndarray) -> np.ndarray:
        # The window's ends become points of the curve, so that only the window is integrated.
        from scipy.interpolate import PchipInterpolator

        inside = points[(points[:, 1] > low) & (points[:, 1] < high)]
        at = PchipInterpolator(points[:, 1], np.log(points[:, 0]))
        ends = [[np.exp(at(end)), end] for end in (low, high)]
        return np.array([ends[0], *inside, ends[1]])

    a, b = cut(anchor), cut(curve)
    return bjontegaard.bd_rate(a[:, 0], a[:, 1], b[:, 0], b[:, 1], method="pchip", require_matching_points=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--model", default="small")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    pictures = {p.name: np.asarray(Image.open(p).convert("RGB")) for p in sorted(options.folder.iterdir())}
    rows, curves = [], {}
    for name, (settings, encode, decode) in coders(options.model, options.threads).items():
        decode(encode(next(iter(pictures.values())), settings[0]))  # warm
        points = []
        for setting in settings:
            mine = []
            for picture, x in pictures.items():
                t0 = time.perf_counter()
                data = encode(x, setting)
                t1 = time.perf_counter()
                y = decode(data)
                t2 = time.perf_counter()
                pixels = x.shape[0] * x.shape[1]
                mine.append((8 * len(data) / pixels, psnr(x, y), pixels / (t1 - t0) / 1e6, pixels / (t2 - t1) / 1e6))
                rows.append([name, setting, picture, len(data), *mine[-1]])
            bpp, db, enc, dec = np.mean(mine, 0)
            points.append((bpp, db))
            print(
                f"{name:14} {setting:6g}  {bpp:.4f} bpp  {db:.3f} dB  encode {enc:.2f} MP/s  decode {dec:.2f} MP/s",
                flush=True,
            )
        curves[name] = np.array(sorted(points))
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["codec", "setting", "picture", "bytes", "bpp", "psnr_rgb", "encode_mp_s", "decode_mp_s"])
        writer.writerows(rows)
    if options.folder.name == "kodak":
        with PUBLISHED.open() as file:
            points = [(float(row["bpp"]), float(row["psnr_rgb"])) for row in csv.DictReader(file)]
        curves["BPG 4:4:4 (published)"] = np.array(points)
    ours = curves.pop("vaecodec")
    for name, anchor in curves.items():
        print(f"vaecodec against {name}: {bd_rate(anchor, ours):+.1f} % BD-rate")


if __name__ == "__main__":
    main()
