"""Measure bpp, PSNR and SSIMULACRA2 along the quality scale, whose equal steps should look equal; means over images.

python benchmarks/quality.py IMAGES... [--model my.vcm] [--count 8] [--crop 512] [-o OUT.json]
"""

from __future__ import annotations

import argparse

import numpy as np
from common import center_crops, publish

from vaecodec.arguments import DEFAULT_MODEL
from vaecodec.cli.options import numbers
from vaecodec.codec import Codec
from vaecodec.images.metrics import psnr, ssimulacra2
from vaecodec.model.file import load_model

COLUMNS = ["quality", "bpp", "PSNR", "SSIMULACRA2", "bpp %", "dB", "points"]


def main() -> None:
    """Print a row for each quality: values, and differences from the row before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="IMAGES")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--qualities", type=numbers, default=(1.0, *(float(10 * n) for n in range(1, 11))))
    parser.add_argument("-o", "--output")
    args = parser.parse_args()
    codec, crops = Codec(load_model(args.model)), center_crops(args.paths, args.count, args.crop)

    def values(pixels: np.ndarray, quality: float) -> tuple[float, float, float]:
        data = codec.encode(pixels, quality)
        decoded = codec.decode(data)
        return 8 * len(data) / args.crop**2, psnr(pixels, decoded), ssimulacra2(pixels, decoded)

    means = np.array([np.mean([values(pixels, quality) for pixels in crops], 0) for quality in args.qualities])
    more = np.vstack([np.full(3, np.nan), np.diff(means, axis=0)])
    more[1:, 0] = 100 * (means[1:, 0] / means[:-1, 0] - 1)
    rows = [[f"{q:g}", *map(float, row)] for q, row in zip(args.qualities, np.hstack([means, more]), strict=True)]
    about = f"Quality of {codec.model.name} {codec.model.id} on {len(crops)} crops of {args.crop}x{args.crop}."
    publish(about, COLUMNS, rows, args.output)


if __name__ == "__main__":
    main()
