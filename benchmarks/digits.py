"""Compare lossless coding of MNIST's test set: bits-back coding with a generative model, and general coders.

    python benchmarks/digits.py ../shared/data/mnist -m digits -o benchmarks/results/digits/lossless.json

Every file is decoded and compared. Peers get each image in its own file, or all as one: concatenated bytes for gzip,
bzip2 and xz, and one large image for PNG and WebP.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import os
import platform
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

import vaecodec
from vaecodec import generative as generation
from vaecodec.container.info import parse_set
from vaecodec.entropy import TOTAL
from vaecodec.generative import image_sets
from vaecodec.generative.image_sets import read_set
from vaecodec.model import generative
from vaecodec.model.file import load_generator
from vaecodec.model.generative import Generator

COLUMNS = 100  # images in a row of the large image, whose sides WebP limits to 16383


def saved(pixels: np.ndarray, format: str, **options: object) -> bytes:
    """An image file of u8[H, W], checked to decode to the same."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if format == "PNG" else image.convert("RGB")).save(file, format, **options)
    with Image.open(io.BytesIO(file.getvalue())) as decoded:
        assert np.array_equal(np.asarray(decoded.convert("L")), pixels)
    return file.getvalue()


def png(pixels: np.ndarray) -> bytes:
    return saved(pixels, "PNG", optimize=True)


def webp(pixels: np.ndarray) -> bytes:
    return saved(pixels, "WEBP", lossless=True, quality=100, method=6)


PEERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "gzip -9": lambda pixels: gzip.compress(pixels.tobytes(), 9),
    "bzip2 -9": lambda pixels: bz2.compress(pixels.tobytes(), 9),
    "xz -9e": lambda pixels: lzma.compress(pixels.tobytes(), preset=9 | lzma.PRESET_EXTREME),
    "PNG, Pillow optimize": png,
    "WebP lossless, method 6": webp,
}


def tiled(images: np.ndarray) -> np.ndarray:
    """One image of all: u8[N, S, S] as u8[N / COLUMNS * S, COLUMNS * S]."""
    count, side, _ = images.shape
    return images.reshape(count // COLUMNS, COLUMNS, side, side).transpose(0, 2, 1, 3).reshape(-1, COLUMNS * side)


def ours(images: np.ndarray, name: str) -> dict[str, object]:
    """Code the set as one .vae file, check it, and compare its size with the model's negative ELBO."""
    model = load_generator(name)
    started = time.process_time()
    data = image_sets.encode(images, name)
    encoded = time.process_time()
    assert np.array_equal(vaecodec.decode_set(data, name), images)
    decoded = time.process_time()
    header, words = parse_set(data)
    elbo, initial = generation.negative_elbo(model, images, draws=1).sum(), 32 * header.consumed
    alone = np.mean([len(image_sets.encode(image[None], name)) for image in images[:100]])
    return {
        "images": len(images),
        "model": model.id,
        "bytes": len(data),
        "initial_bytes": initial // 8,
        "bpd": 8 * len(data) / images.size,
        "bpd_without_initial": (8 * len(words) - initial) / images.size,
        "negative_elbo_bpd": elbo / images.size,
        "kl_bpd": kl_bits(model, images[:1000]) / images[0].size,
        "over_negative_elbo": 8 * len(data) / elbo - 1,
        "alone_bpd": 8 * alone / images[0].size,
        "encode_seconds": encoded - started,
        "decode_seconds": decoded - encoded,
        "machine": platform.processor() or platform.machine(),
    }


def kl_bits(model: Generator, images: np.ndarray) -> float:
    """Mean divergence of q(z | x) from p(z) in bits, over bins."""
    total = 0.0
    for batch in np.array_split(images, max(1, len(images) // 50)):
        mass = image_sets.posterior(model, batch) / TOTAL
        total += float((mass * np.log2(mass * generative.COUNT)).sum())
    return total / len(images)


def peers(images: np.ndarray) -> dict[str, dict[str, float]]:
    """Bits per pixel of each coder: all images in one file, and each of 100 in its own file."""
    out = {}
    for name, coder in PEERS.items():
        whole = tiled(images) if name.startswith(("PNG", "WebP")) else images
        separate = sum(len(coder(image)) for image in images[:100]) / images[:100].size
        out[name] = {"one_file_bpd": 8 * len(coder(whole)) / images.size, "each_bpd": 8 * separate}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mnist")
    parser.add_argument("-m", "--model", default="digits")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--parts", default="model,peers", help="what to measure; the rest of OUTPUT is kept")
    parser.add_argument("--most", type=int, default=10000, help="images, a multiple of 100")
    args = parser.parse_args()
    images = read_set(os.path.join(args.mnist, "t10k-images-idx3-ubyte.gz"))[0][: args.most]
    result = {}
    if os.path.exists(args.output):
        with open(args.output) as file:
            result = json.load(file)
    if "model" in args.parts:
        result |= ours(images, args.model)
    if "peers" in args.parts:
        result["peers"] = peers(images)
    with open(args.output, "w") as file:
        json.dump(result, file, indent=1)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
