"""Measure warm speed in one process, by image size, threads and images at once, and where the time goes.

python benchmarks/throughput.py [--model my.vcm] [--device gpu] [-o benchmarks/results/kodak/throughput.json]
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from common import PARROTS, least_seconds, publish
from PIL import Image

from vaecodec.codec import Codec, decoder, encoder
from vaecodec.entropy import coding
from vaecodec.model.file import load_model
from vaecodec.native import library
from vaecodec.transforms import networks

PARTS = ("analysis", "synthesis", "filter", "prior", "sorting", "coding", "other")


@contextmanager
def clocked(codec: Codec) -> Iterator[dict[str, float]]:
    """Seconds that the calling thread spends in each part of the codec; what other threads do is not counted."""
    spent: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    restore: list[tuple[Any, str, Any]] = []
    caller, nested = threading.get_ident(), [0.0]  # seconds of nested clocked calls, for each open call

    def clock(owner: Any, name: str, part: str) -> None:
        function = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            if threading.get_ident() != caller:
                return function(*arguments, **options)
            started = time.perf_counter()
            nested.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                seconds = time.perf_counter() - started
                spent[part] += seconds - nested.pop()
                nested[-1] += seconds

        restore.append((owner, name, function))
        setattr(owner, name, timed)

    clock(codec.transforms, "analysis", "analysis")
    for name in ("levels", "pixels"):
        clock(codec.transforms, name, "synthesis")
    clock(encoder, "fit_one_class", "filter")
    for module in (encoder, networks):
        clock(module, "restored", "filter")
    for name in ("push", "pop"):
        clock(coding, name, "coding")
    clock(coding, "by_table", "sorting")
    clock(encoder, "encode_tile", "prior")
    clock(decoder, "decode_tile", "prior")
    try:
        yield spent
    finally:
        for owner, name, function in restore:
            setattr(owner, name, function)


def parts_of(codec: Codec, work: Callable[[], Any], repeat: int) -> list[Any]:
    """Percent of the time in each of PARTS; dashes where the calling thread leaves all of it to others."""
    started = time.perf_counter()
    with clocked(codec) as spent:
        for _ in range(repeat):
            work()
    total = time.perf_counter() - started
    if not any(spent.values()):
        return ["-"] * len(PARTS)
    spent["other"] = total - sum(spent.values())
    return [100 * spent[part] / total for part in PARTS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--device", choices=("cpu", "gpu", "tensorflow"), default="cpu")
    parser.add_argument("--quality", type=float, default=50)
    parser.add_argument("--repeat", type=int, default=8)
    parser.add_argument("--sizes", default="256x256,768x512,1536x1024,2048x1536", help="widths x heights in pixels")
    parser.add_argument("--threads", default=f"1,{os.cpu_count()}", help="of one call")
    parser.add_argument("--at-once", default=f"1,{2 * (os.cpu_count() or 1)}", help="images, each in a thread")
    parser.add_argument("-o", "--output", help="JSON file")
    options = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in options.sizes.split(",")]
    model, photo = load_model(options.model), Image.open(PARROTS).convert("RGB")
    rows: list[list[Any]] = []

    def add(codec: Codec, size: tuple[int, ...], threads: int, at_once: int) -> None:
        pixels = np.asarray(photo.resize(size, Image.Resampling.LANCZOS))
        data = codec.encode(pixels, options.quality)
        directions = {
            "encode": lambda: codec.encode(pixels, options.quality),
            "decode": lambda: codec.decode(data),
        }
        for direction, work in directions.items():
            if at_once == 1:
                seconds, parts = least_seconds(work, options.repeat), parts_of(codec, work, options.repeat)
            else:
                with ThreadPoolExecutor(at_once) as pool:
                    barrier = threading.Barrier(at_once)

                    def together(work: Callable[[], Any] = work, barrier: threading.Barrier = barrier) -> None:
                        barrier.wait()
                        work()

                    jobs = range(at_once)
                    seconds = least_seconds(lambda: list(pool.map(lambda _: together(), jobs)), options.repeat)  # noqa: B023
                parts = ["-"] * len(PARTS)
            speed = at_once * size[0] * size[1] / seconds / 1e6
            rows.append([direction, f"{size[0]} x {size[1]}", threads, at_once, speed, *parts])

    for threads in dict.fromkeys(map(int, options.threads.split(","))):
        codec = Codec(model, options.device, threads)
        for size in sizes:
            add(codec, size, threads, 1)
        for at_once in map(int, options.at_once.split(",")):
            if at_once > 1:
                add(codec, sizes[min(1, len(sizes) - 1)], threads, at_once)
    about = (
        f"Warm, the fastest of {options.repeat}; one photograph resampled, quality {options.quality:g}, "
        f"model {model.name} {model.id}, device {options.device}, core {library.kind()}; MP/s of all images; "
        "parts in percent."
    )
    head = ["direction", "image, pixels", "threads", "images at once", "MP/s", *(f"{part}, %" for part in PARTS)]
    publish(about, head, rows, options.output)


if __name__ == "__main__":
    main()
