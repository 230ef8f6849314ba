"""Print the BD-rate of one codec against another by PSNR, from the results.csv of vaecodec bench.

    python bd_rate.py results.csv ANCHOR CODEC LOW HIGH

The range is LOW to HIGH dB, or the part of it that both codecs reach; the interpolation is PCHIP.
"""

import sys

from vaecodec.bench.curves import curves_of, delta
from vaecodec.bench.measure import read_rows
from vaecodec.images.metrics import METRICS


def main(path: str, anchor: str, codec: str, low: str, high: str) -> None:
    rows = read_rows(path)
    images = {(row["image"], row["crc32"]) for row in rows}
    curves = {curve.name: curve for curve in curves_of(rows, images)[0]}
    difference = delta(curves[anchor], curves[codec], METRICS["psnr"]._replace(window=(float(low), float(high))))
    where = f"{difference.low:.1f} to {difference.high:.1f} dB, {len(images)} images"
    print(f"{codec} against {anchor}: {difference.rate:+.1f} % bits, {where}")


if __name__ == "__main__":
    main(*sys.argv[1:])
