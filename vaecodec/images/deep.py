"""Pictures of 16 bits a sample, of which Pillow reads and writes only the grey ones whole.

Its readers of PNG and TIFF undo compression and prediction in full, and only then take one byte of each sample
("raw mode").  So a colour picture is read twice, for its high and for its low bytes.  Its writers cannot; a PNG is
little more than zlib, and that little is here.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

GREY_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of a PNG, by channels (ISO/IEC 15948, 11.2.1)


def raw_mode(image: Image.Image) -> str:
    """How samples lie in the file, in Pillow's words ("L;4", "RGB;16B"); "" once loaded, or where it does not say."""
    for _, _, _, arguments in getattr(image, "tile", ()):
        for value in arguments if isinstance(arguments, tuple) else (arguments,):
            if isinstance(value, str):
                return value
    return ""


def bits_of(image: Image.Image, data: bytes = b"") -> int:
    """Bits a sample in the file `data`: where more than 8, Pillow's own pixels may be less than that."""
    raw = raw_mode(image)
    if image.mode in GREY_MODES or (";16" in raw and not raw.startswith("BGR")):  # BGR;16 is 16 bits a pixel
        return 16
    if image.mode[0] in "IF":
        return 16 if image.format == "PPM" else 32
    if image.format == "PPM":  # decoders that scale have the maximum as their last argument
        maxima = [tile.args[-1] for tile in getattr(image, "tile", ()) if tile.codec_name.startswith("ppm")]
        return 16 if max(maxima, default=255) > 255 else 8
    if image.format == "AVIF":  # AV1 Codec ISO Media File Format Binding 1.2, 2.3.3
        at = data.find(b"av1C")
        flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
        return 12 if flags & 0x60 == 0x60 else 10 if flags & 0x40 else 8
    if image.format == "JPEG2000":  # ISO/IEC 15444-1, A.5.1
        at = data.find(b"\xff\x4f\xff\x51")
        return (data[at + 42] & 0x7F) + 1 if 0 <= at < len(data) - 42 else 8
    return 8


def read(image: ImageFile, again: ImageFile) -> np.ndarray | None:
    """u16[H, W] or u16[H, W, 2, 3 or 4] of a file that was opened twice; None where Pillow cannot give 16 bits.

    Loads both; raises Pillow's errors on damage.
    """
    raw, maximum = raw_mode(image), 65535
    if image.mode in GREY_MODES or image.mode == "I":
        return np.asarray(image).astype(np.uint16)
    if raw == "LA;16B":  # a pixel has as many bits as one of RGBA, so that all come at once
        _set_raw_mode(image, "RGBA")
        wide = np.asarray(image).astype(np.uint16)
        return wide[..., 0::2] << 8 | wide[..., 1::2]
    if raw == "RGB" and image.tile[0].codec_name == "ppm":
        arguments = image.tile[0].args
        raw, maximum = "RGB;16B", int(arguments[1]) if isinstance(arguments, tuple) else maximum
        image.tile = again.tile = [image.tile[0]._replace(codec_name="raw", args=(raw, 0, 1))]
    if raw[:-1] not in ("RGB;16", "RGBA;16"):
        return None
    _set_raw_mode(again, raw[:-1] + OTHER_BYTE[raw[-1]])
    samples = np.asarray(image).astype(np.uint16) << 8
    samples |= np.asarray(again)
    if maximum != 65535:
        samples = ((samples.astype(np.uint32) * 65535 + maximum // 2) // maximum).astype(np.uint16)
    return samples


def _set_raw_mode(image: ImageFile, raw: str) -> None:
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
    ]


def png(samples: np.ndarray, options: dict[str, Any] | None = None) -> bytes:
    """u16[H, W] or u16[H, W, 2, 3 or 4] -> a PNG, bytes; `options` are those of Pillow, for metadata."""
    from PIL import Image

    height, width = samples.shape[:2]
    channels = samples.size // (height * width)
    frame = io.BytesIO()
    Image.new("L", (1, 1)).save(frame, "PNG", **(options or {}))
    chunks = frame.getvalue()
    out, at = [chunks[:8]], 8
    while at < len(chunks):
        (length,) = struct.unpack_from(">I", chunks, at)
        tag, payload = chunks[at + 4 : at + 8], chunks[at + 8 : at + 8 + length]
        at += 12 + length
        if tag == b"IHDR":
            payload = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
        elif tag == b"IDAT":
            payload = _compressed(samples.reshape(height, -1), 2 * channels)
        out += [struct.pack(">I", len(payload)), tag, payload, struct.pack(">I", zlib.crc32(tag + payload))]
    return b"".join(out)


def _compressed(samples: np.ndarray, step: int) -> bytes:
    """The rows u16[H, W * channels], each with the filter of the least sum (ISO/IEC 15948, 9 and 12.7), deflated."""
    deflate, parts = zlib.compressobj(6), []
    above = np.zeros(2 * samples.shape[1], np.int16)
    for line in samples:
        row = line.astype(">u2").view(np.uint8).astype(np.int16)
        left, corner = (np.concatenate([np.zeros(step, np.int16), whole[:-step]]) for whole in (row, above))
        guess = left + above - corner
        to_left, to_above, to_corner = (abs(guess - near) for near in (left, above, corner))
        paeth = np.where(to_above <= to_corner, above, corner)
        paeth = np.where((to_left <= to_above) & (to_left <= to_corner), left, paeth)
        guesses = np.stack([np.zeros_like(row), left, above, (left + above) >> 1, paeth])
        filtered = (row - guesses).astype(np.uint8)
        best = int(np.abs(filtered.view(np.int8).astype(np.int16)).sum(axis=1).argmin())
        parts.append(deflate.compress(bytes([best]) + filtered[best].tobytes()))
        above = row
    return b"".join([*parts, deflate.flush()])
