"""Lossless coding of MNIST's test set: bits-back coding by a generative model, beside general coders, as JSON.

    python benchmarks/digits.py ../shared/data/mnist -m digits -o benchmarks/results/digits/lossless.json

Every file is decoded again and compared.  Peers get each picture in a file of its own, or all of them as one: the bytes
end to end for gzip, bzip2 and xz, and one tall picture for PNG and WebP.
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
from vaecodec.entropy.tables import TOTAL
from vaecodec.generative import bitsback, image_sets, scoring
from vaecodec.generative.image_sets import read_set
from vaecodec.model import discrete
from vaecodec.model.file import load_generator
from vaecodec.model.generative import Generator

WIDE = 100  # pictures in a row of the one picture, whose sides WebP limits to 16383


def saved(pixels: np.ndarray, format: str, **options: object) -> bytes:
    """An image file of u8[H, W], which must give the same again."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if format == "PNG" else image.convert("RGB")).save(file, format, **options)
    with Image.open(io.BytesIO(file.getvalue())) as again:
        assert np.array_equal(np.asarray(again.convert("L")), pixels)
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


def tiled(pictures: np.ndarray) -> np.ndarray:
    """One picture of all: u8[N, S, S] -> u8[N / WIDE * S, WIDE * S]."""
    count, side, _ = pictures.shape
    return pictures.reshape(count // WIDE, WIDE, side, side).transpose(0, 2, 1, 3).reshape(-1, WIDE * side)


def ours(pictures: np.ndarray, name: str) -> dict[str, object]:
    """The set as one .vae file, which must give the same again, and what the model says it should cost."""
    model = load_generator(name)
    began = time.process_time()
    data = image_sets.encode(pictures, name)
    middle = time.process_time()
    assert np.array_equal(vaecodec.decode_set(data, name), pictures)
    ended = time.process_time()
    header, words = image_sets.parse(data)
    elbo, initial = scoring.negative_elbo(model, pictures, draws=1).sum(), 32 * header.consumed
    alone = np.mean([len(image_sets.encode(one[None], name)) for one in pictures[:100]])
    return {
        "pictures": len(pictures),
        "model": model.id,
        "bytes": len(data),
        "initial_bytes": initial // 8,
        "bpd": 8 * len(data) / pictures.size,
        "bpd_without_initial": (8 * len(words) - initial) / pictures.size,
        "negative_elbo_bpd": elbo / pictures.size,
        "kl_bpd": kl_bits(model, pictures[:1000]) / pictures[0].size,
        "over_negative_elbo": 8 * len(data) / elbo - 1,
        "alone_bpd": 8 * alone / pictures[0].size,
        "encode_seconds": middle - began,
        "decode_seconds": ended - middle,
        "machine": platform.processor() or platform.machine(),
    }


def kl_bits(model: Generator, pictures: np.ndarray) -> float:
    """Mean divergence of q(z | x) from p(z), over bins."""
    total = 0.0
    for one in np.array_split(pictures, max(1, len(pictures) // 50)):
        mass = bitsback.posterior(model, one) / TOTAL
        total += float((mass * np.log2(mass * discrete.COUNT)).sum())
    return total / len(pictures)


def peers(pictures: np.ndarray) -> dict[str, dict[str, float]]:
    """Bits a pixel of each coder: all pictures in one file, and each of 100 in a file of its own."""
    out = {}
    for name, coder in PEERS.items():
        whole = tiled(pictures) if name.startswith(("PNG", "WebP")) else pictures
        each = sum(len(coder(one)) for one in pictures[:100]) / pictures[:100].size
        out[name] = {"one_file_bpd": 8 * len(coder(whole)) / pictures.size, "each_bpd": 8 * each}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mnist")
    parser.add_argument("-m", "--model", default="digits")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--parts", default="model,peers", help="what to do; the rest stays as it is in OUTPUT")
    parser.add_argument("--most", type=int, default=10000, help="pictures, a multiple of 100")
    args = parser.parse_args()
    pictures = read_set(os.path.join(args.mnist, "t10k-images-idx3-ubyte.gz"))[0][: args.most]
    result = {}
    if os.path.exists(args.output):
        with open(args.output) as file:
            result = json.load(file)
    if "model" in args.parts:
        result |= ours(pictures, args.model)
    if "peers" in args.parts:
        result["peers"] = peers(pictures)
    with open(args.output, "w") as file:
        json.dump(result, file, indent=1)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
