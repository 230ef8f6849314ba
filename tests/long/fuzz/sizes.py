"""Every size from 1x1 to 65x65 goes there and back: same shape, symbols that check, pixels that resemble.

python tests/long/fuzz/sizes.py
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

TESTS = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(TESTS))

from support.images import synthetic_image
from vaecodec.codec import Codec
from vaecodec.model.file import load_model


def main() -> None:
    codec, done, worst = Codec(load_model(str(TESTS / "golden" / "tiny.vcm")), threads=1), 0, 0.0
    whole = synthetic_image(65, 65)
    for height in range(1, 66):
        for width in range(1, 66):
            pixels = whole[:height, :width]
            again = codec.decode(codec.encode(pixels, 80))
            error = float(np.sqrt(np.mean((again.astype(float) - pixels) ** 2)))
            if again.shape != pixels.shape or error > 16:
                sys.exit(f"{width} x {height}: {again.shape}, error {error:.1f}")
            done, worst = done + 1, max(worst, error)
    print(f"{done} sizes there and back; largest root mean square error {worst:.1f}")


if __name__ == "__main__":
    main()
