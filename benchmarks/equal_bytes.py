"""Draw crops of one photograph from several codecs at equal bytes: the picture in README.md.

    python benchmarks/equal_bytes.py docs/examples/parrots.png -o docs/images/equal-bytes.png

Every codec gets the largest file that is not above the target.  The crops are not enlarged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vaecodec.bench import open_peer
from vaecodec.bench.gallery import largest_within
from vaecodec.bench.peer import Options, Peer

CODECS = ("avif", "jxl", "vaecodec")
NAMES = {"avif": "AVIF", "jxl": "JPEG XL", "vaecodec": "vaecodec"}
GAP, CAPTION = 8, 66  # pixels


def largest_file(peer: Peer, pixels: np.ndarray, target: int) -> bytes:
    """Return the largest file of at most `target` bytes; exit where all are larger."""
    best = largest_within(peer.scale, target, lambda setting: peer.encode(pixels, setting))
    if best is None:
        raise SystemExit(f"{peer.name}: no file is as small as {target} bytes")
    return best[1]


def draw(pixels: np.ndarray, target: int, box: tuple[int, int, int, int]) -> Image.Image:
    """Return the crop `box` (left, top, right, bottom) of the original and of every codec, side by side."""
    panels = [("original", f"{pixels.nbytes:,} bytes", pixels)]
    for codec in CODECS:
        peer = open_peer(codec, Options())
        data = largest_file(peer, pixels, target)
        decoded = np.asarray(peer.decode(data))
        psnr = 10 * np.log10(255**2 / np.mean((decoded.astype(float) - pixels) ** 2))
        print(f"{peer.name}, {peer.version}, {peer.options}: {len(data)} bytes, {psnr:.2f} dB")
        panels.append((NAMES[codec], f"{len(data):,} bytes, {psnr:.1f} dB", decoded))
    width, height = box[2] - box[0], box[3] - box[1]
    sheet = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height + CAPTION), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (name, about, image) in enumerate(panels):
        left = index * (width + GAP)
        sheet.paste(Image.fromarray(image).crop(box), (left, CAPTION))
        pen.text((left + 2, 0), name, "black", ImageFont.load_default(30))
        pen.text((left + 2, 36), about, (70, 70, 70), ImageFont.load_default(22))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--bytes", type=int, default=6200)
    parser.add_argument("--box", type=int, nargs=4, default=(400, 40, 656, 296), metavar="PIXELS")
    arguments = parser.parse_args()
    pixels = np.asarray(Image.open(arguments.image).convert("RGB"))
    draw(pixels, arguments.bytes, tuple(arguments.box)).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
