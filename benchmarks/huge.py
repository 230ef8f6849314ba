"""Measure seconds and peak memory of all processes for commands on one huge image. Linux only.

python benchmarks/huge.py --side 20000 --format ppm
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from common import PARROTS, publish
from PIL import Image

from vaecodec.arguments import NO_LIMITS, pillow_limits
from vaecodec.images.writing import write_strips


def strips(side: int) -> Iterator[np.ndarray]:
    """Strips u8[h, side, 3] of copies of a photograph, mirrored in turn, as high as the photograph."""
    photo = np.asarray(Image.open(PARROTS).convert("RGB"))
    for top in range(0, side, len(photo)):
        parts = [photo[:: (-1) ** n, :: (-1) ** (n // 2 + top)] for n in range(-(-side // photo.shape[1]))]
        yield np.ascontiguousarray(np.concatenate(parts, 1)[: side - top, :side])


def resident(root: int) -> int:
    """Bytes in memory of a process and its descendants; shared pages count once (Pss)."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        waiting += parents.get(process, [])
        try:
            lines = pathlib.Path("/proc", str(process), "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
    return total


def measure(arguments: list[str]) -> tuple[float, float]:
    """(seconds, peak MiB) of one command."""
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen([sys.executable, "-m", "vaecodec", *arguments])
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.02 if time.perf_counter() - started < 2 else 0.2)  # short commands need many readings
    if process.returncode:
        sys.exit(f"vaecodec {' '.join(arguments)}: exit code {process.returncode}")
    return time.perf_counter() - started, peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=20_000, help="pixels")
    parser.add_argument("--format", default="ppm", help="of the image: ppm, png, bmp, tif, jpg")
    parser.add_argument("--threads", default=str(os.cpu_count()))
    parser.add_argument("--folder", help="for the files (default: a temporary one)")
    parser.add_argument("-o", "--output", help="JSON file")
    options = parser.parse_args()
    side, common = options.side, ["--no-limits", "-f", "--threads", options.threads]
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.folder or temporary)
        source, coded = folder / f"huge.{options.format}", str(folder / "huge.vae")
        if not source.exists():
            with open(source, "wb") as file, pillow_limits(NO_LIMITS):
                format = {"ppm": "PPM", "png": "PNG", "jpg": "JPEG", "tif": "TIFF", "bmp": "BMP"}[options.format]
                write_strips((side, side, 3), strips(side), file, {}, format)
        window = f"{side // 2},{side // 3},{min(512, side // 2)},{min(512, side // 2)}"
        runs = {
            f"compress {options.format}": ["compress", str(source), "-o", coded],
            "decompress to png": ["decompress", coded, "-o", str(folder / "back.png")],
            "decompress to ppm": ["decompress", coded, "-o", str(folder / "back.ppm")],
            "decompress --reduce 8": ["decompress", coded, "-o", str(folder / "preview.png"), "--reduce", "8"],
            "decompress --window": ["decompress", coded, "-o", str(folder / "part.png"), "--window", window],
            "verify": ["verify", coded],
        }
        rows: list[list[Any]] = []
        for name, arguments in runs.items():
            extra = common if arguments[0] != "verify" else [part for part in common if part != "-f"]
            seconds, peak = measure([*arguments, *extra])
            rows.append([name, seconds, side * side / seconds / 1e6, peak])
            print(f"{name}: {seconds:.1f} s, {peak:.0f} MiB", flush=True)
    about = f"{side} x {side} pixels, --threads {options.threads}; memory of all processes, shared pages counted once."
    publish(about, ["command", "seconds", "MP/s", "MiB"], rows, options.output)


if __name__ == "__main__":
    main()
