"""Read large images in strips of rows.

A strip is an image of its own, which read_image converts to samples as any other:

    PNG, 8 bits a sample                  a PNG of the strip's filtered rows
    PPM, BMP, TGA, TIFF, uncompressed     the file itself, with the tiles that hold the rows
    JPEG, WebP, other PNG and TIFF        Pillow decodes the whole image, at up to 4 bytes a pixel, and crops it

read_image reads all other files whole.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from vaecodec.errors import CodecError
from vaecodec.images import PNG_SIGNATURE
from vaecodec.images.channels import has_png_frames, tiff_directories_fit
from vaecodec.images.colours import split_alpha, to_model_channels
from vaecodec.images.reading import ORIENTATION, check_coded_size, read_image
from vaecodec.progress import collect_messages

if TYPE_CHECKING:
    from PIL import Image, ImageFile

LARGE = 1 << 25  # pixels from which images are read and written in strips
STRIP_BYTES = 1 << 24
READ_BYTES = 1 << 16
MAX_ANCILLARY = 1 << 24  # bytes of a PNG chunk other than IDAT; larger ones are left out
MODES = ("L", "P", "RGB", "CMYK", "1")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1}  # by colour type: grey, RGB, palette
UNCOMPRESSED = ("PPM", "BMP", "TGA", "TIFF")
DECODED_WHOLE = ("JPEG", "WEBP", "PNG", "TIFF")
PIXEL_BYTES = {"L": 1, "P": 1, "RGB": 3, "BGR": 3, "BGRX": 4, "RGBX": 4, "CMYK": 4}  # by Pillow's raw mode
BITS_PER_SAMPLE = 258  # TIFF tag

Window = tuple[int, int, int, int]  # top, left, height, width
ReadStrip = Callable[[int, int], "Image.Image"]  # (top, bottom) -> the strip; strips follow each other


class Rows(Protocol):
    """An image u8[H, W, C] as slices of rows; encoders begin none of them before an earlier one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


class Strips:
    """Rows u8[H, W, 3] from an iterator of strips; `grey` where all three channels are equal."""

    dtype = np.dtype(np.uint8)

    def __init__(self, shape: tuple[int, int, int], strips: Iterator[np.ndarray], grey: bool) -> None:
        self.shape, self.grey = shape, grey
        self._strips, self._buffer, self._top = strips, np.empty((0, *shape[1:]), np.uint8), 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        parts = [self._buffer[rows.start - self._top :]]
        missing = rows.stop - rows.start - len(parts[0])
        while missing > 0:
            parts.append(next(self._strips))
            missing -= len(parts[-1])
        self._buffer, self._top = np.concatenate(parts) if len(parts) > 1 else parts[0], rows.start
        return self._buffer[: rows.stop - rows.start]


class ModelRows:
    """Rows u8[H, W, 3] converted by to_model_channels."""

    def __init__(self, rows: Rows, channels: int, grey: bool) -> None:
        self.shape, self.dtype = (*rows.shape[:2], channels), rows.dtype
        self._rows, self._grey = rows, grey

    def __getitem__(self, rows: slice) -> np.ndarray:
        return to_model_channels(self.shape[2], self._rows[rows], self._grey)


def gather(shape: tuple[int, ...], strips: Iterator[np.ndarray]) -> np.ndarray:
    """Concatenate strips to an array of this shape; a single strip is returned as it is."""
    out, top = np.empty(0), 0
    for strip in strips:
        if not top:
            out = strip if strip.shape == shape else np.empty(shape, strip.dtype)
        if out is not strip:
            out[top : top + len(strip)] = strip
        top += len(strip)
    return out


def is_large(height: int, width: int) -> bool:
    """Whether an image is read and written in strips."""
    return height * width >= LARGE


def open_strips(
    path: str | os.PathLike[str], name: str | None = None, left_out: list[str] | None = None
) -> tuple[Strips, dict[str, bytes]] | None:
    """Open a large image file as (rows, metadata); None where read_image must read it whole.

    That is the case for small images, transparency, an EXIF orientation, and formats without strips.  `name` and
    `left_out` are those of read_image.  Raises CodecError on damage, also while rows are read.
    """
    from PIL import Image

    name, notes = name or os.fspath(path), list[str]()
    with ExitStack() as opened:
        try:
            image = opened.enter_context(Image.open(path))
            check_coded_size(image, b"")
            reader = _strip_reader(path, image, opened) if is_large(image.height, image.width) else None
            if reader is None:
                return None
            first_row, read_strip = reader
            is_upright = first_row.getexif().get(ORIENTATION, 1) == 1
            if first_row.mode not in MODES or first_row.has_transparency_data or not is_upright:
                return None
        except Exception:  # read_image reports the error
            return None
        row, metadata = read_image(first_row, name, notes)
        if row.dtype != np.uint8 or row.shape not in ((1, image.width), (1, image.width, 3)):
            return None
        files = opened.pop_all()
    if image.format in ("PNG", "TIFF"):  # what read_image finds in the whole file only
        with open(path, "rb") as file:
            if image.format == "TIFF" and not tiff_directories_fit(file):
                notes.append(f"{name}: some of its EXIF data is damaged and left out")
            if image.format == "PNG" and not getattr(image, "is_animated", False) and has_png_frames(file):
                notes.append(f"{name}: its animation is damaged; only the default image is kept")
    with collect_messages(left_out) as messages:
        messages += notes
    height, width, rows = image.height, image.width, max(1, STRIP_BYTES // (3 * image.width))

    def strips() -> Iterator[np.ndarray]:
        with files:
            for top in range(0, height, rows):
                try:
                    strip = read_strip(top, min(top + rows, height))
                except (OSError, SyntaxError, CodecError) as exc:
                    raise CodecError(f"{name}: {exc}") from exc
                samples, _ = read_image(strip, name, [])  # with the same messages as the first row
                yield split_alpha(samples)[0]

    return Strips((height, width, 3), strips(), row.ndim == 2), metadata


def _strip_reader(
    path: str | os.PathLike[str], image: Image.Image, opened: ExitStack
) -> tuple[Image.Image, ReadStrip] | None:
    """(an image of one row with the file's metadata, a function that reads strips); `opened` closes their files."""
    from PIL import Image

    if image.format == "PNG":
        file = opened.enter_context(open(path, "rb"))  # noqa: SIM115
        layout = read_png_layout(file)
        if PngStripReader.supports(layout):
            reader = PngStripReader(file, layout)
            return reader.first_row(), lambda top, bottom: reader.read(bottom - top)
        if layout.ihdr[8] > 8:
            return None
    if image.format in UNCOMPRESSED and _has_raw_rows(image):
        return _raw_strip(path, 0, 1), lambda top, bottom: _raw_strip(path, top, bottom)
    bits: Any = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    if image.format not in DECODED_WHOLE or max(bits) > 8:
        return None
    first_row = _set_height(opened.enter_context(Image.open(path)), 1)
    first_row.im, first_row.tile = Image.new(image.mode, first_row.size).im, []
    return first_row, lambda top, bottom: image.crop((0, top, image.width, bottom))


def _set_height(image: ImageFile.ImageFile, height: int) -> ImageFile.ImageFile:
    """Change the height of an image that is not loaded, as if its header said so."""
    image._size = image._tile_size = (image.width, height)  # type: ignore[attr-defined]
    return image


def _has_raw_rows(image: Image.Image) -> bool:
    """Whether the file holds uncompressed rows, from edge to edge."""
    return all(
        tile.codec_name == "raw"
        and (tile.extents or (0, 0, 0, 0))[::2] == (0, image.width)
        and _raw_arguments(tile)[0] in PIXEL_BYTES
        for tile in getattr(image, "tile", [])
    )


def _raw_arguments(tile: ImageFile._Tile) -> tuple[str, int, int]:
    """Arguments of Pillow's raw decoder: raw mode, bytes a row or 0, 1 from the top or -1 from the bottom."""
    arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return (*arguments, *("", 0, 1)[len(arguments) :])


def _raw_strip(path: str | os.PathLike[str], top: int, bottom: int) -> Image.Image:
    """Open a file with raw rows as an image of the rows top..bottom."""
    from PIL import Image, ImageFile

    image, tiles = Image.open(path), []
    for tile in image.tile:
        _, tile_top, _, tile_bottom = tile.extents or (0, 0, 0, 0)
        raw_mode, stride, direction = _raw_arguments(tile)
        begin, end = max(tile_top, top), min(tile_bottom, bottom)
        if begin < end:
            skipped = begin - tile_top if direction == 1 else tile_bottom - end
            offset = tile.offset + skipped * (stride or image.width * PIXEL_BYTES[raw_mode])
            tiles.append(ImageFile._Tile("raw", (0, begin - top, image.width, end - top), offset, tile.args))
    image.tile = tiles
    return _set_height(image, bottom - top)


def png_chunk(tag: bytes, payload: bytes) -> bytes:
    """A PNG chunk with its length and CRC (PNG 3rd edition, section 5.3)."""
    return struct.pack(">I", len(payload)) + tag + payload + struct.pack(">I", zlib.crc32(tag + payload))


class PngLayout(NamedTuple):
    """The chunks of a PNG file."""

    ihdr: bytes  # payload
    before: bytes  # whole chunks before the pixels
    after: bytes
    data: list[tuple[int, int]]  # (offset, length) of each IDAT's payload

    def build(self, height: int, data: bytes, after: bytes = b"") -> bytes:
        """A PNG of the same kind with another height, other deflated pixels and other chunks after them."""
        ihdr = png_chunk(b"IHDR", self.ihdr[:4] + struct.pack(">I", height) + self.ihdr[8:])
        return PNG_SIGNATURE + ihdr + self.before + png_chunk(b"IDAT", data) + after + png_chunk(b"IEND", b"")


def read_png_layout(file: BinaryIO, max_ancillary: int = MAX_ANCILLARY) -> PngLayout:
    """Read the chunks of a PNG without its pixels; raise CodecError where the file ends early."""
    ihdr, before, after = b"", b"", b""
    data: list[tuple[int, int]] = []
    file.seek(len(PNG_SIGNATURE))
    while True:
        head = file.read(8)
        length, tag = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        if tag == b"IEND":
            return PngLayout(ihdr, before, after, data)
        if tag == b"IDAT":
            data.append((file.tell(), length))
        if tag == b"IDAT" or length > max_ancillary:
            file.seek(length + 4, 1)
            continue
        body = file.read(length + 4)
        if len(head) < 8 or len(body) < length + 4:
            raise CodecError("the PNG is cut off")
        if tag == b"IHDR":
            ihdr = body[:-4]
        elif data:
            after += head + body
        else:
            before += head + body


class PngStripReader:
    """Read a PNG of 8 bits a sample, without interlacing, in strips; Pillow reverses the filters."""

    def __init__(self, file: BinaryIO, layout: PngLayout) -> None:
        width, _, _, colour_type = struct.unpack_from(">IIBB", layout.ihdr)
        self._layout, self._row_bytes = layout, 1 + width * PNG_CHANNELS[colour_type]
        self._inflated, self._buffer = self._inflate(file), bytearray()
        self._last_row = b""  # unfiltered; the next row may be predicted from it

    @staticmethod
    def supports(layout: PngLayout) -> bool:
        """Whether a PNG can be read in strips."""
        if len(layout.ihdr) != 13:
            return False
        _, _, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", layout.ihdr)
        return depth == 8 and colour_type in PNG_CHANNELS and not interlace

    def first_row(self) -> Image.Image:
        """An image of one black row with the file's metadata."""
        return self._open(self._layout.build(1, zlib.compress(bytes(self._row_bytes)), self._layout.after))

    def read(self, height: int) -> Image.Image:
        """Read the next rows; raise CodecError on damage."""
        size = height * self._row_bytes
        while len(self._buffer) < size:
            block = next(self._inflated, None)
            if block is None:
                raise CodecError("the PNG ends before its last row")
            self._buffer += block
        context = b"\0" + self._last_row if self._last_row else b""
        rows = zlib.compress(context + bytes(self._buffer[:size]), 0)
        del self._buffer[:size]
        strip = self._open(self._layout.build(height + bool(context), rows))
        strip = strip.crop((0, strip.height - height, strip.width, strip.height)) if context else strip
        self._last_row = strip.crop((0, height - 1, strip.width, height)).tobytes()
        return strip

    @staticmethod
    def _open(data: bytes) -> Image.Image:
        from PIL import Image

        image = Image.open(io.BytesIO(data), formats=["PNG"])
        image.load()
        return image

    def _inflate(self, file: BinaryIO) -> Iterator[bytes]:
        """The filtered rows, in blocks of any size."""
        inflate = zlib.decompressobj()
        for offset, remaining in self._layout.data:
            file.seek(offset)
            crc = zlib.crc32(b"IDAT")
            while remaining:
                block = file.read(min(remaining, READ_BYTES))
                if not block:
                    raise CodecError("the PNG is cut off")
                remaining -= len(block)
                crc = zlib.crc32(block, crc)
                while block:
                    try:
                        yield inflate.decompress(block, 1 << 22)
                    except zlib.error as exc:
                        raise CodecError(f"the PNG is damaged ({exc})") from exc
                    block = inflate.unconsumed_tail
            if file.read(4) != struct.pack(">I", crc):
                raise CodecError("the PNG is damaged (a CRC does not match)")
