"""Encode and decode images of many sizes, and check that memory, descriptors and threads do not grow.

python tests/long/leaks.py --count 3000
"""

from __future__ import annotations

import argparse
import gc
import os
import pathlib
import random
import sys
import threading
from contextlib import suppress

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import vaecodec
from support.images import synthetic_image
from support.paths import GOLDEN
from vaecodec.codec import Codec
from vaecodec.model.file import load_model

WARM = 0.2  # of the calls, before which caches fill
GROWTH = 8 << 20  # bytes


def state() -> tuple[int, int, int]:
    """(resident bytes, descriptors, threads) of this process."""
    gc.collect()
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threading.active_count()


def round_trip(codecs: list[Codec], rng: random.Random) -> None:
    """Encode and decode one image; every tenth is cut off and refused."""
    pixels = synthetic_image(rng.randint(1, 120), rng.randint(1, 120), rng.randrange(100))
    codec = rng.choice(codecs)
    if rng.randrange(4):
        data = codec.encode(pixels, rng.randint(1, 100), tile=64)
    else:
        data = vaecodec.encode(pixels, lossless=True)
    if rng.randrange(10) == 0:
        data = data[: rng.randrange(len(data))]
    with suppress(vaecodec.CodecError):
        codec.decode(data) if len(data) > 12 and data[12:16] == b"HEAD" else vaecodec.decode(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, model = random.Random(options.seed), load_model(str(GOLDEN / "tiny.vcm"))
    codecs = [Codec(model, threads=1), Codec(model, threads=4)]
    for _ in range(int(WARM * options.count)):
        round_trip(codecs, rng)
    before = state()
    for _ in range(int((1 - WARM) * options.count)):
        round_trip(codecs, rng)
    after = state()
    memory, descriptors, threads = (late - early for late, early in zip(after, before, strict=True))
    text = f"{memory / 2**20:+.1f} MiB, {descriptors:+} descriptors, {threads:+} threads"
    print(f"{options.count} encodes and decodes: {text} after the first {WARM:.0%}")
    if memory > GROWTH or descriptors > 0 or threads > 0:
        sys.exit("something grows")


if __name__ == "__main__":
    main()
