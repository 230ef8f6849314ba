"""Check that images of every size from 1x1 to 65x65 round-trip with the same shape and similar pixels.

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
    codec, count, largest_error = Codec(load_model(str(TESTS / "golden" / "tiny.vcm")), threads=1), 0, 0.0
    image = synthetic_image(65, 65)
    for height in range(1, 66):
        for width in range(1, 66):
            pixels = image[:height, :width]
            decoded = codec.decode(codec.encode(pixels, 80))
            error = float(np.sqrt(np.mean((decoded.astype(float) - pixels) ** 2)))
            if decoded.shape != pixels.shape or error > 16:
                sys.exit(f"{width} x {height}: {decoded.shape}, error {error:.1f}")
            count, largest_error = count + 1, max(largest_error, error)
    print(f"{count} sizes; largest root mean square error {largest_error:.1f}")


if __name__ == "__main__":
    main()
