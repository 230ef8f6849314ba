"""Measure the transforms alone, in batches: in the native core, and in TensorFlow on the device it uses.

    python benchmarks/transforms.py [--model my.vcm] [--devices cpu,tensorflow] [-o OUT/transforms.json]

Both give the same integers. The floor is the time of the multiply-accumulates at the rate of a large float32 matrix
product, by NumPy or by TensorFlow on its device.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from common import least_seconds, publish

from vaecodec.config import QUALITY_INDICES
from vaecodec.model.file import Model, load_model
from vaecodec.native import library
from vaecodec.threads import Threads
from vaecodec.transforms import Transforms, load_transforms


def calls(transforms: Transforms, images: list[np.ndarray], threads: Threads) -> dict[str, Callable[[], Any]]:
    """Both transforms of the images at the middle quality, as functions to call."""
    index = QUALITY_INDICES // 2
    coefficients = transforms.analysis(images, index, threads)
    return {
        "analysis": lambda: transforms.analysis(images, index, threads),
        "synthesis": lambda: transforms.pixels(coefficients, index, None, threads),
    }


def peak(device: str, repeat: int, side: int) -> float:
    """FLOP/s of a product of two f32[side, side]."""
    if device == "cpu":
        matrix = np.ones((side, side), np.float32)
        return 2 * side**3 / least_seconds(lambda: matrix @ matrix, repeat)
    import tensorflow as tf

    tensor = tf.ones((side, side))
    return 2 * side**3 / least_seconds(lambda: tf.matmul(tensor, tensor).numpy(), repeat)


def rows_of(model: Model, device: str, options: argparse.Namespace) -> list[list[Any]]:
    """A row for each transform and batch size."""
    from vaecodec.training.vae import specification  # needs TensorFlow, which scripts that import this one may lack

    width, height = map(int, options.size.split("x"))
    networks = specification(model.config, 512)
    macs = {name: sum(networks[name].macs.values()) / 512**2 for name in ("analysis", "synthesis")}
    transforms = load_transforms(model.config, model.arrays, model.name, device)
    rate = peak(device, options.repeat, 2048)
    rng, rows = np.random.default_rng(0), []
    with ThreadPoolExecutor(options.threads) as pool:
        threads = Threads(options.threads, pool if options.threads > 1 else None)
        for batch in map(int, options.batches.split(",")):
            images = [rng.integers(0, 256, (height, width, model.config.channels), np.uint8) for _ in range(batch)]
            for name, work in calls(transforms, images, threads).items():
                seconds, pixels = least_seconds(work, options.repeat), batch * height * width
                floor = 2 * macs[name] * pixels / rate
                rows.append([device, name, f"{width} x {height}", batch, pixels / seconds / 1e6, 100 * floor / seconds])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--devices", default="cpu,tensorflow", help="of cpu, tensorflow and gpu")
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--size", default="768x512", help="width x height in pixels, multiples of 16")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the native core")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("-o", "--output", help="JSON file")
    options = parser.parse_args()
    model, rows = load_model(options.model), list[list[Any]]()
    for device in options.devices.split(","):
        rows += rows_of(model, device, options)
    about = (
        f"Transforms alone, model {model.name}; the fastest of {options.repeat}; native core: {library.kind()}, "
        f"{options.threads} threads."
    )
    head = ["device", "transform", "image, pixels", "batch", "MP/s", "% of the peak"]
    publish(about, head, rows, options.output)


if __name__ == "__main__":
    main()
