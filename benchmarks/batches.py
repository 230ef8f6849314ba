"""Measure throughput against batch size and image size: the transforms alone, and the whole codec.

    python benchmarks/batches.py --device gpu [--model my.vcm] [-o OUT/batches.json]

Everything but the transforms runs on the CPU, whatever the device; so the difference between both kinds of rows is what
a GPU cannot make faster.  On a CPU (the default) the same runs without TensorFlow.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from common import PARROTS, least_seconds, publish
from PIL import Image
from transforms import calls

from vaecodec.codec import Codec
from vaecodec.model.file import load_model
from vaecodec.threads import Threads


def images_of(size: tuple[int, int], batch: int) -> list[np.ndarray]:
    """u8[H, W, 3]: one photograph at this width and height, flipped and turned so that no two of eight are equal."""
    pixels = np.asarray(Image.open(PARROTS).convert("RGB").resize(size, Image.Resampling.LANCZOS))
    variants = []
    for n in range(min(batch, 8)):
        up, left, colour = (1 - 2 * (n >> bit & 1) for bit in range(3))
        variants.append(np.ascontiguousarray(pixels[::up, ::left, ::colour]))
    return [variants[n % 8] for n in range(batch)]


def rows_of(codec: Codec, device: str, size: tuple[int, int], batch: int, options: argparse.Namespace) -> list[Any]:
    """MP/s of analysis and synthesis, and of encoding and decoding whole files, in one row."""
    images = images_of(size, batch)
    megapixels = batch * size[0] * size[1] / 1e6
    with ThreadPoolExecutor(options.threads) as pool:
        threads = Threads(options.threads, pool if options.threads > 1 else None)
        transforms = [least_seconds(work, options.repeat) for work in calls(codec.transforms, images, threads).values()]
    files = codec.encode_batch(images, options.quality)
    encode = least_seconds(lambda: codec.encode_batch(images, options.quality), options.repeat)
    decode = least_seconds(lambda: codec.decode_batch(files), options.repeat)
    speeds = [megapixels / seconds for seconds in (*transforms, encode, decode)]
    return [device, f"{size[0]} x {size[1]}", batch, *speeds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--device", choices=("cpu", "gpu", "tensorflow"), default="cpu")
    parser.add_argument("--sizes", default="256x256,768x512,2048x1536", help="widths x heights, multiples of 16")
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument("--most", type=float, default=50.0, help="megapixels of a batch; larger ones are left out")
    parser.add_argument("--quality", type=float, default=75)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("-o", "--output", help="JSON file")
    options = parser.parse_args()
    codec, rows = Codec(load_model(options.model), options.device, options.threads), []
    for size in [tuple(map(int, text.split("x"))) for text in options.sizes.split(",")]:
        for batch in map(int, options.batches.split(",")):
            if batch * size[0] * size[1] <= 1e6 * options.most:
                rows.append(rows_of(codec, options.device, (size[0], size[1]), batch, options))
    about = (
        f"Transforms alone and the whole codec, in batches; model {codec.model.name}, quality {options.quality:g}, "
        f"{options.threads} threads; the fastest of {options.repeat}."
    )
    speeds = ["analysis, MP/s", "synthesis, MP/s", "encode, MP/s", "decode, MP/s"]
    publish(about, ["device", "image, pixels", "batch", *speeds], rows, options.output)


if __name__ == "__main__":
    main()
