"""Read metadata."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from PIL import Image

EXIF_PREFIX = b"Exif\0\0"  # JPEG's, which Pillow shows for some formats and not for others; never stored
ORIENTATION = 274
# A TIFF keeps its layout and its EXIF in one directory.  These tags describe the picture and not the file:
# description, make, model, software, date, artist, computer, copyright, EXIF and GPS directories.
TIFF_TAGS = (270, 271, 272, 305, 306, 315, 316, 33432, 34665, 34853)
TIFF_DIRECTORIES = (34665, 34853)
TIFF_XMP = 700
# Bytes of a value, by type
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
RESOLUTION = struct.Struct("<II")
INCH = 0.0254  # metres
SRGB_GAMMA = 0.45455  # of a PNG without a profile


def upright(image: Image.Image, name: str, left_out: list[str]) -> tuple[Image.Image, int, bytes | None]:
    """(loaded image turned as its EXIF says, that orientation, EXIF without it); damaged EXIF is left out, and said so.

    Pillow has turned a TIFF as it loaded it: the orientation is 1 by now.
    """
    from PIL import Image, ImageOps

    try:
        tags = image.getexif()
        orientation = tags.get(ORIENTATION, 1)
        turned = ImageOps.exif_transpose(image)
        exif = turned.info.get("exif")
        if exif is None and "Raw profile type exif" in turned.info:  # PNGs of before 2017
            exif = turned.getexif().tobytes()
        elif exif is None and hasattr(image, "tag_v2"):
            kept = Image.Exif()
            for tag in TIFF_TAGS:
                if tag in tags:
                    kept[tag] = tags.get_ifd(tag) if tag in TIFF_DIRECTORIES else tags[tag]
            exif = kept.tobytes() if len(kept) else None
        return turned, orientation if orientation in range(1, 9) else 1, exif and exif.removeprefix(EXIF_PREFIX)
    except Exception:  # EXIF is read by hand in Pillow: any error means that it is not EXIF
        left_out.append(f"{name}: its EXIF data is damaged and left out")
        return image, 1, None


def directories_fit(file: BinaryIO) -> bool:
    """Whether all values of a TIFF's first directory, and of its EXIF and GPS directories, lie within the file.

    Pillow skips values that do not.  TIFF 6.0, section 2; BigTIFF has magic 43 and offsets of 8 bytes.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    count, entry, offset = (
        struct.Struct(order + form) for form in (("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I"))
    )
    if len(head) < 16:
        return False
    waiting = [offset.unpack_from(head, 8 if big else 4)[0]]
    known = {*waiting}
    while waiting:
        at = waiting.pop()
        file.seek(at)
        begin = file.read(count.size)
        if len(begin) < count.size:
            return False
        entries = file.read(min(count.unpack(begin)[0] * entry.size, size))
        if len(entries) < count.unpack(begin)[0] * entry.size:
            return False
        for tag, kind, number, value in entry.iter_unpack(entries):
            length = number * TYPE_SIZES.get(kind, 0)
            where = offset.unpack(value)[0] if len(value) == offset.size else 0
            if length > offset.size and where + length > size:
                return False
            if tag in TIFF_DIRECTORIES and where not in known:
                waiting.append(where)
                known.add(where)
    return True


def collect(
    image: Image.Image, icc: bytes | None, exif: bytes | None, on_side: bool, name: str, left_out: list[str]
) -> dict[str, bytes]:
    """Those kinds of metadata that there are, of an image that lay on its side in the file or did not."""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    found = {
        "icc": icc,
        "exif": exif,
        "xmp": xmp.encode() if isinstance(xmp, str) else xmp,
        "dpi": _resolution(image.info.get("dpi"), on_side),
    }
    gamma = image.info.get("gamma")
    if gamma and not icc and "srgb" not in image.info and abs(gamma - SRGB_GAMMA) > 0.005:
        left_out.append(f"{name}: its gamma of {gamma:g} is left out")
    return {kind: value for kind, value in found.items() if isinstance(value, bytes) and value}


def _resolution(dpi: Any, on_side: bool) -> bytes | None:
    """Two u32, pixels a metre; None where there is none that makes sense."""
    try:
        x, y = (round(float(value) / INCH) for value in dpi)
        return RESOLUTION.pack(*((y, x) if on_side else (x, y))) if min(x, y) > 0 else None
    except (TypeError, ValueError, OverflowError, ZeroDivisionError, struct.error):
        return None
