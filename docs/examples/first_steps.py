"""Compress the photograph beside this file, decompress it, and print what that cost."""

import pathlib
import tempfile
import time

import numpy as np
from PIL import Image

import vaecodec

source = pathlib.Path(__file__).with_name("parrots.png")
with tempfile.TemporaryDirectory() as folder:
    packed, restored = pathlib.Path(folder, "parrots.vae"), pathlib.Path(folder, "parrots.png")
    start = time.perf_counter()
    vaecodec.compress_file(str(source), str(packed), quality=50)
    middle = time.perf_counter()
    vaecodec.decompress_file(str(packed), str(restored))
    end = time.perf_counter()
    pixels, again = (np.asarray(Image.open(path).convert("RGB"), float) for path in (source, restored))
    size, info = packed.stat().st_size, vaecodec.info(packed.read_bytes())

psnr = 10 * np.log10(255**2 / np.mean((pixels - again) ** 2))
print(f"{source.name}: {info['width']} x {info['height']}, PNG {source.stat().st_size:,} bytes")
print(f"compressed to {size:,} bytes, {info['bpp']:.3f} bpp, PSNR {psnr:.2f} dB")
print(f"compress {middle - start:.2f} s, decompress {end - middle:.2f} s, with files and loading of the model")
