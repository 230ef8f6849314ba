"""Check the directories of TIFF files, and of EXIF data, which have the same form."""

from __future__ import annotations

import struct
from typing import BinaryIO

SUB_DIRECTORIES = (34665, 34853)  # tags of the EXIF and GPS directories
# Bytes of a value, by type (TIFF 6.0, section 2; BigTIFF)
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def tiff_directories_fit(file: BinaryIO) -> bool:
    """Whether all values of a TIFF's first, EXIF and GPS directories lie in the file (TIFF 6.0, section 2; BigTIFF)."""
    size = file.seek(0, 2)
    file.seek(0)
    header = file.read(16)
    order = "<" if header[:2] == b"II" else ">"
    is_big = header[2:4] in (b"+\0", b"\0+")
    count, entry, offset = (struct.Struct(order + x) for x in (("Q", "HHQ8s", "Q") if is_big else ("H", "HHI4s", "I")))
    if len(header) < 16:
        return False
    pending = [offset.unpack_from(header, 8 if is_big else 4)[0]]
    visited = {*pending}
    while pending:
        file.seek(pending.pop())
        prefix = file.read(count.size)
        if len(prefix) < count.size:
            return False
        length = count.unpack(prefix)[0] * entry.size
        entries = file.read(min(length, size))
        if len(entries) < length:
            return False
        for tag, kind, number, value in entry.iter_unpack(entries):
            length = number * TYPE_SIZES.get(kind, 0)
            position = offset.unpack(value)[0]
            if length > offset.size and position + length > size:
                return False
            if tag in SUB_DIRECTORIES and position not in visited:
                pending.append(position)
                visited.add(position)
    return True
