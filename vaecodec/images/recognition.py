"""Which files are pictures, and nothing else: only of those may what is left be the pixels and a little metadata.

A camera's raw file opens as a TIFF of its preview, a layered drawing as its flattened copy.  Those, and whatever
Pillow does not know, are files to be kept as they are.
"""

from __future__ import annotations

import os
import re
from mmap import mmap
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from PIL import Image

# Formats that hold one picture (or frames of one) and say so in their first bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "PCX", "SGI", "QOI")
SUFFIXES = {".tga": "TGA"}  # what has no first bytes to tell it by

# TIFF 6.0, section 8, and Supplement 1; DNG 1.7, chapter 4
NEW_SUBFILE_TYPE, REDUCED = 254, 1
SUB_IFDS, DNG_VERSION = 330, 50706
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
CANON_RAW = b"CR"  # in bytes 8 and 9 of what is else a TIFF


def is_picture(file: BinaryIO, name: str = "") -> bool:
    """Whether a seekable binary file, from its start, is a picture that may be coded as one; reads only its head.

    Says nothing on whether it is a whole or an undamaged one.
    """
    from PIL import Image

    head = _head(file)
    suffix = SUFFIXES.get(os.path.splitext(name)[1].lower())
    for load in (Image.preinit, Image.init):  # the usual formats; all there are, which takes a while
        load()
        formats = [format for format in (*FORMATS, suffix) if format in Image.OPEN]
        try:
            with Image.open(file, formats=formats) as image:
                return image.format != "TIFF" or (head[8:10] != CANON_RAW and not _is_preview(image))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return True  # too large to be decoded, but a picture
        except Exception:  # on what is not theirs Pillow's readers raise nearly anything
            continue
        finally:
            file.seek(0)
    return False


def bytes_after(data: bytes | mmap) -> int:
    """How many bytes follow the end of a JPEG or PNG file, padding aside: phones append films to photographs."""
    end = len(data)
    if data[:2] == b"\xff\xd8":
        end = _jpeg_end(data)
    elif data[:4] == b"\x89PNG":
        end = _png_end(data)
    return len(data[end:].strip(b"\0\t\r\n "))


def _png_end(data: bytes | mmap) -> int:
    """Where IEND ends, or the end of the data where there is none (PNG 3rd edition, section 5)."""
    position, tag = 8, b""
    while tag != b"IEND" and position + 12 <= len(data):
        tag = data[position + 4 : position + 8]
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return position if tag == b"IEND" else len(data)


def _jpeg_end(data: bytes | mmap) -> int:
    """Where the end of image lies, or the end of the data where there is none (ITU-T T.81, B.1.1)."""
    position = 2
    while position + 2 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xD9:  # EOI
            return position + 2
        if marker == 0xFF:  # fill
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # those without a length
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # SOS: compressed data up to the next marker that is no restart
            following = NEXT_MARKER.search(data, position)
            position = following.start() if following else len(data)
    return len(data)


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(16)
    file.seek(0)
    return head


def _is_preview(image: Image.Image) -> bool:
    """Whether a TIFF's first picture stands for another one in the same file."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(NEW_SUBFILE_TYPE, 0) & REDUCED) or SUB_IFDS in tags or DNG_VERSION in tags
