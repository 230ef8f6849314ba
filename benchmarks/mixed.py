"""Find the images of a mixed set that compare worst with AVIF and WebP at equal bytes.

python benchmarks/mixed.py IMAGE_OR_FOLDER... [--qualities 25,50,75] [--worst 10]

A peer's PSNR at our bytes is interpolated between its two nearest settings, linearly in the logarithm of bytes. PSNR is
over the colours, and 60 dB at most.
"""

from __future__ import annotations

import argparse
import math
import sys

import numpy as np

import vaecodec
from vaecodec.bench import open_peer
from vaecodec.bench.gallery import largest_within
from vaecodec.bench.measure import find_images, read_images
from vaecodec.bench.peer import Options, Peer
from vaecodec.codec import modes
from vaecodec.container import image_file
from vaecodec.images.colours import split_alpha

LIMIT = 60.0  # dB


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.mean((a.astype(np.float32) - b) ** 2))
    return min(LIMIT, 10 * math.log10(255**2 / error)) if error else LIMIT


def at_bytes(peer: Peer, rgb: np.ndarray, size: int) -> float | None:
    """PSNR of a peer at `size` bytes, or of its largest file if smaller; None where its smallest file is larger."""
    best = largest_within(peer.scale, size, lambda setting: peer.encode(rgb, setting))
    if best is None:
        return None
    setting, below = best
    quality = psnr(peer.decode(below), rgb)
    if setting + peer.scale.step > peer.scale.high:
        return quality
    above = peer.encode(rgb, setting + peer.scale.step)
    if len(above) <= len(below):
        return quality
    share = math.log(size / len(below)) / math.log(len(above) / len(below))
    return quality + min(1.0, share) * (psnr(peer.decode(above), rgb) - quality)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--qualities", default="25,50,75")
    parser.add_argument("--worst", type=int, default=10)
    options = parser.parse_args()
    codec, peers = vaecodec.load(), [open_peer(name, Options()) for name in ("avif", "webp")]
    rows = []

    def fail(name: str, exc: Exception) -> None:
        print(f"{name}: {exc}", file=sys.stderr)

    for name, rgb, _ in read_images(find_images(options.paths, fail), fail):
        grey = (rgb == rgb[..., :1]).all()
        samples = np.ascontiguousarray(rgb[..., 0]) if grey else rgb
        for quality in map(float, options.qualities.split(",")):
            data = modes.encode(codec, samples, quality)
            ours = psnr(split_alpha(modes.decode(data))[0], rgb)
            theirs = [at_bytes(peer, rgb, len(data)) for peer in peers]
            worst = min((ours - value for value in theirs if value is not None), default=LIMIT)
            rows.append((worst, name, quality, image_file.info(data), ours, theirs))
    print("| image | quality | coding | bpp | PSNR | AVIF | WebP |\n|---|---|---|---|---|---|---|")
    for _, name, quality, info, ours, theirs in sorted(rows, key=lambda row: row[0])[: options.worst]:
        beside = " | ".join("-" if value is None else f"{value - ours:+.1f}" for value in theirs)
        print(f"| {name} | {quality:g} | {info['coding']} | {info['bpp']:.3f} | {ours:.1f} | {beside} |", flush=True)


if __name__ == "__main__":
    main()
