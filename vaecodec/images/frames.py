"""Count the images in a file: pages of a TIFF, frames of an animated GIF, WebP, PNG or AVIF."""

from __future__ import annotations

import struct
from typing import BinaryIO

from vaecodec.errors import CodecError
from vaecodec.images.inspection import PNG_SIGNATURE

# Not MPO: the further images of such JPEGs are previews or depths of the first.
FORMATS = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")
PAGES = ("TIFF",)  # formats whose images are called pages


def _format_and_count(file: BinaryIO) -> tuple[str, int]:
    """The format of a seekable image file, "" if Pillow cannot open it, and what `count_frames` returns."""
    from PIL import Image

    file.seek(0)
    try:
        with Image.open(file) as image:
            return image.format or "", getattr(image, "n_frames", 1) if image.format in FORMATS else 1
    except Exception:  # Pillow's readers raise nearly anything on damage, which read_image reports
        return "", 1
    finally:
        file.seek(0)


def count_frames(file: BinaryIO) -> int:
    """Count the images in a seekable image file; 1 for formats that hold only one, or whose others are previews."""
    return _format_and_count(file)[1]


def describe_frames(file: BinaryIO) -> str:
    """Say what a seekable image file holds, if that is more than one image: "12 frames", "3 pages"; else ""."""
    name, count = _format_and_count(file)
    if count > 1:
        return f"{count} {'pages' if name in PAGES else 'frames'}"
    if name != "PNG":
        return ""
    try:
        return "an animation that is damaged" if has_png_frames(file) else ""
    except OSError:
        return ""
    finally:
        file.seek(0)


def check_frame(file: BinaryIO, frame: int, name: str) -> None:
    """Raise CodecError unless a seekable image file has an image of this number, from 1."""
    count = count_frames(file)
    if frame > count:
        raise CodecError(f"{name}: has {count} image{'s' * (count > 1)}, and no number {frame}")


def has_png_frames(file: BinaryIO) -> bool:
    """Whether frames of an animation, chunks fdAT, follow the default image (PNG 3rd edition, section 11.3.6.3)."""
    file.seek(len(PNG_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, tag = struct.unpack(">I4s", head)
        if tag in (b"fdAT", b"IEND"):
            return bool(tag == b"fdAT")
        file.seek(length + 4, 1)
    return False
