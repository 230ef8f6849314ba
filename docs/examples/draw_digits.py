"""Draw digits from the shipped model, vary one, interpolate between two, and pack them all without loss."""

import io
import pathlib
import sys

import numpy as np
from PIL import Image

import vaecodec
from vaecodec.generative.image_sets import contact_sheet

folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
digits = vaecodec.sample(40, seed=7)  # u8[40, 28, 28], the same on every machine
seven, three = digits[10], digits[20]  # to the eye; the model knows no names
near = vaecodec.vary(seven, strength=0.4, n=9)
between = vaecodec.interpolate(seven, three, 10)
rows = [*digits, seven, *near, *between]
Image.fromarray(contact_sheet(rows, columns=10, cell=56)).save(folder / "digits.png")

data = vaecodec.encode_set(digits)  # one .vae file, bits-back coding
assert np.array_equal(vaecodec.decode_set(data), digits)
png = 0
for digit in digits:
    file = io.BytesIO()
    Image.fromarray(digit).save(file, "PNG", optimize=True)
    png += file.tell()
bpp = 8 * len(data) / digits.size
print(f"{len(digits)} digits: {len(data):,} bytes, {bpp:.3f} bits a pixel; as PNG files {png:,} bytes")
