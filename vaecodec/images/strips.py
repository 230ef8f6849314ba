"""Huge pictures, a few rows at a time: from a file to `Codec.encode`, and from `Codec.decode_strips` to a file.

A strip of a picture is a picture: it is read by read_image and its metadata written by write_image, as any other.

    PNG, 8 bits a sample                  strips of it (png)
    PPM, BMP, TGA, TIFF, uncompressed     strips of it: Pillow says where the rows lie
    JPEG, WebP, other PNG and TIFF        Pillow decodes it whole (4 bytes a pixel), and strips are converted
    all else                              as smaller pictures: read_image
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vaecodec.errors import CodecError
from vaecodec.images import metadata, planes, png
from vaecodec.images.files import check_coded_size, read_image, write_image
from vaecodec.images.rows import gather
from vaecodec.notices import collected

if TYPE_CHECKING:
    from PIL import Image, ImageFile

LARGE = 1 << 25  # pixels from which memory is worth the trouble
STRIP_BYTES = 1 << 24
MODES = ("L", "P", "RGB", "CMYK", "1")
UNCOMPRESSED = ("PPM", "BMP", "TGA", "TIFF")
WHOLE = ("JPEG", "WEBP", "PNG", "TIFF")
RAW = {"L": 1, "P": 1, "RGB": 3, "BGR": 3, "BGRX": 4, "RGBX": 4, "CMYK": 4}  # bytes a pixel, by Pillow's raw mode
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 258  # TIFF tags
Pieces = Callable[[int, int], "Image.Image"]


def is_large(height: int, width: int) -> bool:
    """Whether a picture is to be read and written in strips."""
    return height * width >= LARGE


class Strips:
    """u8[H, W, 3] whose rows come from an iterator, once, from the top: codec.Rows; `grey` if its colours are."""

    dtype = np.dtype(np.uint8)

    def __init__(self, shape: tuple[int, int, int], strips: Iterator[np.ndarray], grey: bool) -> None:
        self.shape, self.grey = shape, grey
        self._strips, self._held, self._top = strips, np.empty((0, *shape[1:]), np.uint8), 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        """The rows start..stop; those before start are gone then."""
        parts = [self._held[rows.start - self._top :]]
        missing = rows.stop - rows.start - len(parts[0])
        while missing > 0:
            parts.append(next(self._strips))
            missing -= len(parts[-1])
        self._held, self._top = np.concatenate(parts) if len(parts) > 1 else parts[0], rows.start
        return self._held[: rows.stop - rows.start]


def open_large(
    path: str | os.PathLike[str], name: str | None = None, left_out: list[str] | None = None
) -> tuple[Strips, dict[str, bytes]] | None:
    """(rows, metadata) of a large picture file, or None where read_image has to read it.

    That is so for small ones, those with transparency, those to be turned, and formats that there is no way for
    here.  `left_out` as in read_image.  Raises CodecError on damage, also while rows are read.
    """
    from PIL import Image

    name = name or os.fspath(path)
    try:
        image = Image.open(path)
        check_coded_size(image, b"")
        found = _pieces(path, image) if is_large(image.height, image.width) else None
        if found is None or not _is_plain(found[0]):
            return None
    except Exception:  # as in read_image, which says what is wrong
        return None
    first, pieces = found
    messages: list[str] = []
    row, kept = read_image(first, name, messages)
    if row.dtype != np.uint8 or row.shape not in ((1, image.width), (1, image.width, 3)):
        return None
    if image.format in ("PNG", "TIFF"):
        messages += _lost_by_pillow(path, image, name)
    with collected(left_out) as given:
        given += messages
    height, width, rows = image.height, image.width, max(1, STRIP_BYTES // (3 * image.width))

    def strips() -> Iterator[np.ndarray]:
        for top in range(0, height, rows):
            try:
                piece = pieces(top, min(top + rows, height))
            except (OSError, SyntaxError, CodecError) as exc:
                raise CodecError(f"{name}: {exc}") from exc
            strip = read_image(piece, name, [])[0]  # with the same messages as the first row
            yield planes.split(strip)[0]

    return Strips((height, width, 3), strips(), row.ndim == 2), kept


def _lost_by_pillow(path: str | os.PathLike[str], image: Image.Image, name: str) -> list[str]:
    """Messages on what read_image would have found in the whole file and does not in one row."""
    with open(path, "rb") as file:
        if image.format == "TIFF" and not metadata.directories_fit(file):
            return [f"{name}: some of its EXIF data is damaged and left out"]
        if image.format == "PNG" and not getattr(image, "is_animated", False) and png.has_frames(file):
            return [f"{name}: its animation is damaged; only the default image is kept"]
    return []


def _is_plain(image: Image.Image) -> bool:
    """Whether strips of it can be converted one by one."""
    return image.mode in MODES and not image.has_transparency_data and image.getexif().get(ORIENTATION, 1) == 1


def _pieces(path: str | os.PathLike[str], image: Image.Image) -> tuple[Image.Image, Pieces] | None:
    """(an image of one row with the file's metadata, function of top and bottom that gives strips in order)."""
    from PIL import Image

    if image.format == "PNG":
        file = open(path, "rb")  # noqa: SIM115  (as long as there are rows to read)
        layout = png.read_layout(file)
        if png.Reader.fits(layout):
            reader = png.Reader(file, layout)
            return reader.first_row(), lambda top, bottom: reader.piece(bottom - top)
        file.close()
        if layout.ihdr[8] > 8:
            return None
    if image.format in UNCOMPRESSED and _has_raw_rows(image):
        return _raw_piece(path, 0, 1), lambda top, bottom: _raw_piece(path, top, bottom)
    bits: Any = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    if image.format not in WHOLE or max(bits) > 8:
        return None
    first = _resized(Image.open(path), 1)
    first.im, first.tile = Image.core.new(image.mode, first.size), []
    return first, lambda top, bottom: image.crop((0, top, image.width, bottom))


def _resized(image: ImageFile.ImageFile, height: int) -> ImageFile.ImageFile:
    """An image that is not loaded yet, with another height, as if its header said so."""
    image._size = image._tile_size = (image.width, height)  # type: ignore[attr-defined]
    return image


def _has_raw_rows(image: Image.Image) -> bool:
    """Whether rows lie in the file as they are, from edge to edge."""
    return all(
        tile.codec_name == "raw" and _extents(tile)[::2] == (0, image.width) and _arguments(tile)[0] in RAW
        for tile in getattr(image, "tile", [])
    )


def _extents(tile: ImageFile._Tile) -> tuple[int, int, int, int]:
    """(left, top, right, bottom)."""
    return tile.extents or (0, 0, 0, 0)


def _arguments(tile: ImageFile._Tile) -> tuple[str, int, int]:
    """(raw mode, bytes a row or 0, 1 from the top or -1 from the bottom) of Pillow's raw decoder."""
    given = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return (*given, *("", 0, 1)[len(given) :])


def _raw_piece(path: str | os.PathLike[str], top: int, bottom: int) -> Image.Image:
    """Rows top..bottom of a file with raw rows: the file itself, opened with fewer tiles."""
    from PIL import Image, ImageFile

    image, tiles = Image.open(path), []
    for tile in image.tile:
        _, first, _, last = _extents(tile)
        rawmode, stride, direction = _arguments(tile)
        begin, end = max(first, top), min(last, bottom)
        if begin < end:
            past = begin - first if direction == 1 else last - end
            offset = tile.offset + past * (stride or image.width * RAW[rawmode])
            tiles.append(ImageFile._Tile("raw", (0, begin - top, image.width, end - top), offset, tile.args))
    image.tile = tiles
    return _resized(image, bottom - top)


def write_strips(
    shape: tuple[int, ...],
    strips: Iterator[np.ndarray],
    file: BinaryIO,
    kept: dict[str, bytes],
    format: str,
    left_out: list[str] | None = None,
) -> None:
    """Writes the rows of `strips`, [n, W] or [n, W, C], `shape` in all, as write_image would.

    PNG, and PPM without alpha, as they come, if they come one by one: `file` is only ever written to.  `left_out` as in
    write_image.
    """
    first = next(strips)
    strips, row, whole = chain([first], strips), io.BytesIO(), io.BytesIO()
    in_parts = first.shape != shape
    if in_parts and format == "PNG":
        write_image(np.zeros_like(first[:1]), row, kept, format, left_out)
        png.write_rows(file, row.getvalue(), shape[0], strips)
    elif in_parts and format == "PPM" and shape[2:] in ((), (3,)):
        write_image(np.zeros_like(first[:1]), row, kept, format, left_out)  # for what there is no place for
        file.write(b"P%d\n%d %d\n255\n" % (6 if shape[2:] else 5, shape[1], shape[0]))
        for strip in strips:
            file.write(np.ascontiguousarray(strip).data.cast("B"))
    else:
        write_image(gather(shape, strips), whole, kept, format, left_out)
        file.write(whole.getbuffer())
