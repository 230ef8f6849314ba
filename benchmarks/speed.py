"""Measure what an instruction set, a thread, a peer and a large image change about speed: the tables of speed.md.

    python benchmarks/speed.py instruction-sets IMAGE -o benchmarks/results/speed/instruction_sets.json
    python benchmarks/speed.py peers IMAGE... -o benchmarks/results/speed/peers.json
    python benchmarks/speed.py large -o benchmarks/results/speed/large_images.json

All times are the least of several calls in one process, tuned for PSNR.  Peers code at the setting whose mean PSNR is
nearest to ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from functools import cache, partial
from typing import Any

import numpy as np
from common import PARROTS, least_seconds, publish, significant
from PIL import Image

from vaecodec.bench import open_peer
from vaecodec.bench.peer import Options, Peer
from vaecodec.codec import Codec
from vaecodec.images.metrics import psnr
from vaecodec.model.file import load_model
from vaecodec.native import library

NAMES = {"avx512vnni": "AVX-512 VNNI", "avx512": "AVX-512", "avx2": "AVX2", "sse2": "SSE2", "neon": "NEON", "c": "C"}
OTHERS = {"avif-psnr": "AVIF", "jxl": "JPEG XL"}
SIDES = 4000, 3000  # pixels of a large image


def speeds(codec: Codec, pixels: np.ndarray, quality: float, effort: int, repeat: int) -> list[float]:
    """MP/s of [encoding, decoding] u8[H, W, 3]."""
    encode = partial(codec.encode, pixels, quality, effort=effort, tune="psnr")
    works = encode, partial(codec.decode, encode())
    return [pixels.shape[0] * pixels.shape[1] / 1e6 / least_seconds(work, repeat) for work in works]


def instruction_sets(options: argparse.Namespace) -> tuple[str, list[str], list[list[Any]]]:
    """Speeds by instruction set and threads, of every model."""
    pixels = np.asarray(Image.open(options.images[0]).convert("RGB"))
    columns = ["model", "core"]
    columns += [f"{way}, {n} thread{'s' * (n > 1)}" for way in ("encode", "decode") for n in options.threads]
    rows: list[list[Any]] = []
    for name in options.models:
        model = load_model(name)
        for kind in options.kinds or reversed([kind for kind in library.kinds() if kind in NAMES]):
            with library.use(kind):
                ways = [
                    speeds(Codec(model, threads=n), pixels, options.quality, 1, options.repeat) for n in options.threads
                ]
            rows.append([model.name, NAMES.get(kind, kind), *map(significant, np.ravel(np.transpose(ways)).tolist())])
    size = f"{pixels.shape[1]} x {pixels.shape[0]}"
    about = f"{os.path.basename(options.images[0])}, {size}, quality {options.quality:g}, effort 1, MP/s, "
    return about + f"fastest of {options.repeat} calls in one process.", columns, rows


def peers(options: argparse.Namespace) -> tuple[str, list[str], list[list[Any]]]:
    """Speeds beside AVIF and JPEG XL at equal mean PSNR, of every model at every quality."""
    images = [np.asarray(Image.open(path).convert("RGB")) for path in options.images]
    threads = max(options.threads)
    others = [open_peer(name, Options(threads=threads)) for name in OTHERS]
    rows: list[list[Any]] = []
    for name in options.models:
        codec = Codec(load_model(name), threads=threads)
        for quality in options.qualities:
            measured = []
            for effort in options.efforts:
                ours = Peer(
                    f"{codec.model.name}, effort {effort}", "", "", others[0].scale, (),
                    partial(codec.encode, effort=effort, tune="psnr"), codec.decode,
                )  # fmt: skip
                measured.append((ours, quality))
            mean = mean_psnr(*measured[0], images)
            measured += [(peer, nearest_setting(peer, images, mean)) for peer in others]
            times = interleaved(measured, images, options.repeat)
            pixels = sum(image.shape[0] * image.shape[1] for image in images) / 1e6
            for way, seconds in zip(("encode", "decode"), times, strict=True):
                rates = [significant(pixels / value) for value in seconds]
                rows.append([codec.model.name, way, round(mean, 1), *rates])
    columns = ["model", "direction", "PSNR, dB", *(f"effort {effort}" for effort in options.efforts), *OTHERS.values()]
    described = "; ".join(f"{peer.name} {peer.version}, {peer.options}" for peer in others)
    about = f"{len(images)} images, {threads} threads each, fastest of {options.repeat}, MP/s of all images, at equal "
    return about + f"mean PSNR (AVIF and JPEG XL to the nearest setting): {described}.", columns, rows


def mean_psnr(peer: Peer, setting: float, images: list[np.ndarray]) -> float:
    """Mean PSNR in dB of a setting over images."""
    return float(np.mean([psnr(image, peer.decode(peer.encode(image, setting))) for image in images]))


def nearest_setting(peer: Peer, images: list[np.ndarray], target: float) -> float:
    """The setting of a peer whose mean PSNR is nearest to a target in dB, by bisection on its scale."""
    measure = cache(lambda setting: mean_psnr(peer, setting, images))
    ends = peer.scale.bisect(lambda setting: measure(setting) < target)
    return min((end for end in ends if end is not None), key=lambda setting: abs(measure(setting) - target))


def interleaved(measured: list[tuple[Peer, float]], images: list[np.ndarray], repeat: int) -> list[list[float]]:
    """Seconds of [encoding, decoding] all images by each codec: the sum over images of the least time, in turns."""
    files = [[peer.encode(image, setting) for image in images] for peer, setting in measured]
    least = np.full((2, len(measured), len(images)), np.inf)
    for _ in range(repeat):
        for index, (peer, setting) in enumerate(measured):
            for number, image in enumerate(images):
                moments = [time.perf_counter()]
                peer.encode(image, setting)
                moments.append(time.perf_counter())
                peer.decode(files[index][number])
                moments.append(time.perf_counter())
                least[:, index, number] = np.minimum(least[:, index, number], np.diff(moments))
    sums: list[list[float]] = least.sum(2).tolist()
    return sums


LARGE = """
import resource, sys, time
import numpy as np
from PIL import Image
from vaecodec.codec import Codec
from vaecodec.model.file import load_model
path, model, way, threads, quality, width, height = sys.argv[1:]
codec, size = Codec(load_model(model), threads=int(threads)), (int(width), int(height))
if way == "encode":
    pixels = np.asarray(Image.open({photo!r}).convert("RGB").resize(size, Image.Resampling.LANCZOS))
    work = lambda: codec.encode(pixels, float(quality), tune="psnr")
else:
    data = open(path, "rb").read()
    work = lambda: codec.decode(data)
for _ in range(2):
    result = None
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
if way == "encode":
    open(path, "wb").write(result)
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def large(options: argparse.Namespace) -> tuple[str, list[str], list[list[Any]]]:
    """Seconds and peak memory of a large image by threads, each way in processes of its own."""
    script, path = LARGE.format(photo=str(PARROTS)), f"{options.output}.vae"
    rows: list[list[Any]] = []
    sides = [str(side) for side in options.size]
    for name in options.models:
        shown = load_model(name).name
        for threads in options.threads:
            results = []
            for way in ("encode", "decode"):
                command = [sys.executable, "-c", script, path, name, way, str(threads), f"{options.quality:g}", *sides]
                runs = [json.loads("[" + run(command).replace(" ", ",") + "]") for _ in range(min(3, options.repeat))]
                results.append((min(seconds for seconds, _ in runs), max(memory for _, memory in runs)))
            (encode, encode_memory), (decode, decode_memory) = results
            seconds = [float(f"{value:.3g}") for value in (encode, decode)]
            rows.append([shown, threads, *seconds, round(encode_memory), round(decode_memory)])
    os.remove(path)
    columns = ["model", "threads", "encode, s", "decode, s", "encode, MiB", "decode, MiB"]
    about = f"One photograph enlarged to {' x '.join(sides)}, quality {options.quality:g}, effort 1: seconds of the "
    return about + "second call, and peak memory of a process that only encoded or only decoded.", columns, rows


def run(command: list[str]) -> str:
    """The standard output of a command, without its end of line."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {"instruction-sets": instruction_sets, "peers": peers, "large": large}
    parser.add_argument("table", choices=tables)
    parser.add_argument("images", nargs="*")
    numbers = lambda text: [int(number) for number in text.split(",")]  # noqa: E731
    parser.add_argument("--models", type=lambda text: text.split(","), default=["small", "base"])
    parser.add_argument("--kinds", type=lambda text: text.split(","), help="cores; default all that this machine runs")
    parser.add_argument("--threads", type=numbers, default=[1, os.cpu_count() or 1])
    parser.add_argument("--quality", type=float, default=50)
    parser.add_argument("--qualities", type=numbers, default=[20, 50, 75, 90], help="of `peers`")
    parser.add_argument("--efforts", type=numbers, default=[1, 2], help="of `peers`")
    parser.add_argument("--size", type=int, nargs=2, default=SIDES, help="pixels, of `large`")
    parser.add_argument("--repeat", type=int, default=8)
    parser.add_argument("-o", "--output", required=True, help="JSON file")
    options = parser.parse_args()
    options.threads = list(dict.fromkeys(options.threads))
    if options.table != "large" and not options.images:
        parser.error(f"{options.table} needs images")
    publish(*tables[options.table](options), options.output)


if __name__ == "__main__":
    main()
