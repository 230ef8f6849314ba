"""PNG files a few rows at a time, in either direction, with Pillow doing the filters (PNG 3rd edition, sections 5, 9).

A strip of a PNG is a PNG: its filtered rows, behind one row for the first of them to be predicted from.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from vaecodec.errors import CodecError

if TYPE_CHECKING:
    from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SAMPLES = {0: 1, 2: 3, 3: 1}  # grey, RGB, palette: samples a pixel of the colour types that are read here
PIECE = 1 << 16  # bytes read at a time
BLOCK = 1 << 24  # bytes of pixels written at a time
MAX_ANCILLARY = 1 << 24  # bytes of a chunk beside the pixels; larger ones are left out


def chunk(tag: bytes, payload: bytes) -> bytes:
    """One chunk, with its length and CRC."""
    return struct.pack(">I", len(payload)) + tag + payload + struct.pack(">I", zlib.crc32(tag + payload))


class Layout(NamedTuple):
    """A PNG taken apart: IHDR's payload, whole chunks before and after the pixels, (offset, length) of each IDAT."""

    ihdr: bytes
    before: bytes
    after: bytes
    data: list[tuple[int, int]]

    def build(self, height: int, data: bytes, after: bytes = b"") -> bytes:
        """A PNG of the same kind with another height and other (deflated) pixels."""
        ihdr = chunk(b"IHDR", self.ihdr[:4] + struct.pack(">I", height) + self.ihdr[8:])
        return SIGNATURE + ihdr + self.before + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


def read_layout(file: BinaryIO) -> Layout:
    """Walks the chunks without reading the pixels; raises CodecError where the file ends early."""
    ihdr, beside = b"", {False: b"", True: b""}
    data: list[tuple[int, int]] = []
    file.seek(len(SIGNATURE))
    while True:
        head = file.read(8)
        length, tag = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        if tag == b"IEND":
            return Layout(ihdr, beside[False], beside[True], data)
        if tag == b"IDAT" or length > MAX_ANCILLARY:
            if tag == b"IDAT":
                data.append((file.tell(), length))
            file.seek(length + 4, 1)
            continue
        body = file.read(length + 4)
        if len(head) < 8 or len(body) < length + 4:
            raise CodecError("the PNG is cut off")
        if tag == b"IHDR":
            ihdr = body[:-4]
        else:
            beside[bool(data)] += head + body


def has_frames(file: BinaryIO) -> bool:
    """Whether frames of an animation follow the default image: chunks fdAT (PNG 3rd edition, section 11.3.6.3)."""
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, tag = struct.unpack(">I4s", head)
        if tag in (b"fdAT", b"IEND"):
            return bool(tag == b"fdAT")
        file.seek(length + 4, 1)
    return False


class Reader:
    """The strips of a PNG of 8 bits a sample without interlacing; see `fits`."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self.layout = layout
        width, _, _, colour = struct.unpack_from(">IIBB", layout.ihdr)
        self._row = 1 + width * SAMPLES[colour]
        self._inflated = self._inflate(file)
        self._buffer = bytearray()
        self._last = b""

    @staticmethod
    def fits(layout: Layout) -> bool:
        """Whether strips of it can be read."""
        if len(layout.ihdr) != 13:
            return False
        _, _, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", layout.ihdr)
        return depth == 8 and colour in SAMPLES and not interlace

    def first_row(self) -> Image.Image:
        """A picture of one black row that has all that the file says beside its pixels."""
        return self._open(self.layout.build(1, zlib.compress(bytes(self._row)), self.layout.after))

    def piece(self, height: int) -> Image.Image:
        """The next rows; raises CodecError on damage."""
        while len(self._buffer) < height * self._row:
            more = next(self._inflated, None)
            if more is None:
                raise CodecError("the PNG ends before its last row")
            self._buffer += more
        rows = bytes(self._buffer[: height * self._row])
        del self._buffer[: height * self._row]
        context = b"\0" + self._last if self._last else b""
        whole = self._open(self.layout.build(height + bool(context), zlib.compress(context + rows, 0)))
        piece = whole.crop((0, whole.height - height, whole.width, whole.height)) if context else whole
        self._last = piece.crop((0, height - 1, piece.width, height)).tobytes()
        return piece

    @staticmethod
    def _open(data: bytes) -> Image.Image:
        from PIL import Image

        image = Image.open(io.BytesIO(data), formats=["PNG"])
        image.load()
        return image

    def _inflate(self, file: BinaryIO) -> Iterator[bytes]:
        """The filtered rows, in pieces of any size."""
        inflate = zlib.decompressobj()
        for offset, left in self.layout.data:
            file.seek(offset)
            crc = zlib.crc32(b"IDAT")
            while left:
                piece = file.read(min(left, PIECE))
                if not piece:
                    raise CodecError("the PNG is cut off")
                left -= len(piece)
                crc = zlib.crc32(piece, crc)
                while piece:
                    try:
                        yield inflate.decompress(piece, 1 << 22)
                    except zlib.error as exc:
                        raise CodecError(f"the PNG is damaged ({exc})") from exc
                    piece = inflate.unconsumed_tail
            if file.read(4) != struct.pack(">I", crc):
                raise CodecError("the PNG is damaged (a CRC does not match)")


def write_rows(file: BinaryIO, like: bytes, height: int, strips: Iterator[np.ndarray]) -> None:
    """Writes a PNG of the rows u8[n, W, 3] of `strips`, `height` in all, with the metadata of `like`, a PNG as wide."""
    layout = read_layout(io.BytesIO(like))
    empty = layout.build(height, b"")
    file.write(empty[: empty.index(b"IDAT") - 4])
    # As Pillow compresses, so that the file has the same size.
    deflate = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    context: list[np.ndarray] = []
    for strip in strips:
        size = max(1, BLOCK // strip[0].nbytes)
        for top in range(0, len(strip), size):
            block = strip[top : top + size]
            rows = _filtered(np.concatenate([*context, block]))
            known = len(rows) // (len(block) + len(context)) * len(context)
            file.write(chunk(b"IDAT", deflate.compress(memoryview(rows)[known:])))
            context = [block[-1:].copy()]
    file.write(chunk(b"IDAT", deflate.flush()) + layout.after + chunk(b"IEND", b""))


def _filtered(rows: np.ndarray) -> bytes:
    """The rows with PNG's filters applied, each behind the byte that names its filter."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rows).save(file, "PNG", compress_level=0)
    data = file.getbuffer()
    return zlib.decompress(b"".join(data[at : at + length] for at, length in read_layout(file).data))
