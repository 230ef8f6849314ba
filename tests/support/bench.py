"""Small benchmarks that tests run."""

from __future__ import annotations

import pathlib

from PIL import Image

from support.images import synthetic_image
from support.paths import GOLDEN

OURS = f"vaecodec:{GOLDEN / 'tiny.vcm'}"
COMMON = ["--quick", "--codecs", f"{OURS},jpeg,webp", "--threads", "2", "--show", "1"]


def write_images(folder: pathlib.Path) -> pathlib.Path:
    """Write three images, large enough for MS-SSIM, and return the folder."""
    for seed in range(3):
        Image.fromarray(synthetic_image(176, 192, seed)).save(folder / f"{seed}.png")
    return folder
