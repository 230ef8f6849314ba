"""Read the depth of images of Pillow, and samples of 16 bits, of which Pillow itself keeps 8."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from vaecodec.images import STRIP_ROWS, to_array

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

GREY_16_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}  # of Pillow's 16-bit raw modes


def raw_mode(image: Image.Image) -> str:
    """Pillow's name for the layout of samples in the file ("L;4", "RGB;16B"); "" once loaded, or if unknown."""
    for tile in getattr(image, "tile", ()):
        for value in tile.args if isinstance(tile.args, tuple) else (tile.args,):
            if isinstance(value, str):
                return value
    return ""


def bit_depth(image: Image.Image, data: bytes = b"") -> int:
    """Bits a sample in the file `data`; above 8, Pillow's pixels may have fewer."""
    raw = raw_mode(image)
    if image.mode in GREY_16_MODES or (";16" in raw and not raw.startswith("BGR")):  # BGR;16 is 16 bits a pixel
        return 16
    if image.mode[0] in "IF":
        return 16 if image.format == "PPM" else 32
    if image.format == "PPM":  # decoders that scale have the maximum as their last argument
        maxima = [tile.args[-1] for tile in getattr(image, "tile", ()) if tile.codec_name.startswith("ppm")]
        return 16 if max(maxima, default=255) > 255 else 8
    if image.format == "AVIF":  # AV1 Codec ISO Media File Format Binding 1.2, 2.3.3
        box = data.find(b"av1C")
        flags = data[box + 6] if 0 <= box < len(data) - 6 else 0
        return 12 if flags & 0x60 == 0x60 else 10 if flags & 0x40 else 8
    if image.format == "JPEG2000":  # ISO/IEC 15444-1, A.5.1
        box = data.find(b"\xff\x4f\xff\x51")
        return (data[box + 42] & 0x7F) + 1 if 0 <= box < len(data) - 42 else 8
    return 8


def read_16_bit(image: ImageFile, copy: ImageFile) -> np.ndarray | None:
    """Samples u16 of a file that is open twice, in file orientation, or None where Pillow has no 16 bits.

    Pillow's PNG and TIFF readers decompress all bytes and then keep one of each colour sample, which the raw mode
    selects: `image` delivers the high bytes and `copy` the low ones.  Raises Pillow's errors on damage.
    """
    raw, maximum = raw_mode(image), 65535
    if image.mode in GREY_16_MODES or image.mode == "I":
        return to_array(image, lambda strip: np.asarray(strip).astype(np.uint16))
    if raw == "LA;16B":  # a pixel has as many bits as one of RGBA: all come at once
        _setraw_mode(image, "RGBA")
        return to_array(image, _join_bytes)
    if raw == "RGB" and image.tile[0].codec_name == "ppm":
        arguments = image.tile[0].args
        raw, maximum = "RGB;16B", int(arguments[1]) if isinstance(arguments, tuple) else maximum
        image.tile = copy.tile = [image.tile[0]._replace(codec_name="raw", args=(raw, 0, 1))]
    if raw[:-1] not in ("RGB;16", "RGBA;16"):
        return None
    _setraw_mode(copy, raw[:-1] + OTHER_BYTE[raw[-1]])
    samples = to_array(image, lambda strip: np.asarray(strip).astype(np.uint16) << 8)
    image.close()  # its pixels need not stay beside those of the copy
    for top in range(0, len(samples), STRIP_ROWS):
        rows = samples[top : top + STRIP_ROWS]
        rows |= np.asarray(copy.crop((0, top, copy.width, top + len(rows))))
        if maximum != 65535:
            rows[...] = (rows.astype(np.uint32) * 65535 + maximum // 2) // maximum
    return samples


def _join_bytes(image: Image.Image) -> np.ndarray:
    """Grey and alpha u16[H, W, 2] from RGBA that holds their high and low bytes."""
    rgba = np.asarray(image).astype(np.uint16)
    joined: np.ndarray = rgba[..., 0::2] << 8 | rgba[..., 1::2]
    return joined


def _setraw_mode(image: ImageFile, raw: str) -> None:
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
    ]
