"""Run the full benchmark on Kodak's 24 images: all available codecs, lossless ones too, and published curves.

    python benchmarks/rate_distortion.py KODAK [--model my.vcm] [-o benchmarks/results/kodak]

This is `vaecodec bench` with fixed options; it resumes an earlier run.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import sys

from vaecodec import cli
from vaecodec.bench import DEFAULT
from vaecodec.bench.codecs import PROGRAMS

HERE = pathlib.Path(__file__).parent
LOSSLESS = ("png", "webp-lossless", "jxl-lossless")
TUNED, MOST_EFFORT = "vaecodec@psnr", "vaecodec@9-psnr"
AT = "15,30,50,70,85"  # qualities of most effort, which takes ten seconds a megapixel


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="Kodak's images, kodim01.png to kodim24.png")
    parser.add_argument("-o", "--output", default=str(HERE / "results" / "kodak"))
    parser.add_argument("--model", default="", help="instead of the shipped model")
    parser.add_argument("--threads", default="2")
    options, more = parser.parse_known_args()
    ours = [f"{name}:{options.model}" if options.model else name for name in ("vaecodec", TUNED, MOST_EFFORT)]
    programs = [name for name, needed in PROGRAMS.items() if all(map(shutil.which, needed))]
    codecs = ",".join([*ours, *DEFAULT[1:], *LOSSLESS, *programs])
    command = ["bench", options.folder, "-o", options.output, "--codecs", codecs, "--threads", options.threads]
    command += ["--qualities", f"{ours[-1]}={AT}"]
    return cli.main([*command, "--published", str(HERE / "published" / "kodak.csv"), *more])


if __name__ == "__main__":
    sys.exit(main())
