"""What one codec saves of another's bits at equal PSNR, from the results.csv of vaecodec bench.

    python bd_rate.py results.csv ANCHOR CODEC LOW HIGH

prints a BD-rate by PCHIP over LOW to HIGH dB, or what of it both codecs reach.
"""

import sys

from vaecodec.bench.curves import curves_of, delta
from vaecodec.bench.measure import read_rows
from vaecodec.images.metrics import METRICS


def main(path: str, anchor: str, codec: str, low: str, high: str) -> None:
    """Prints it."""
    rows = read_rows(path)
    pictures = {(row["image"], row["crc32"]) for row in rows}
    curves = {curve.name: curve for curve in curves_of(rows, pictures)[0]}
    found = delta(curves[anchor], curves[codec], METRICS["psnr"]._replace(window=(float(low), float(high))))
    where = f"{found.low:.1f} to {found.high:.1f} dB, {len(pictures)} pictures"
    print(f"{codec} against {anchor}: {found.rate:+.1f} % bits, {where}")


if __name__ == "__main__":
    main(*sys.argv[1:])
