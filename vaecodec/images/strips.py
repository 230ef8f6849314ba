"""Read huge images a few rows at a time."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from vaecodec.errors import CodecError
from vaecodec.images.channels import split_alpha, to_model_channels
from vaecodec.images.metadata import directories_fit
from vaecodec.images.reading import SIGNATURE, check_coded_size, has_frames, read_image
from vaecodec.progress import collect_messages

if TYPE_CHECKING:
    from PIL import Image, ImageFile

SAMPLES = {0: 1, 2: 3, 3: 1}  # grey, RGB, palette: samples a pixel of the colour types that are read here
PIECE = 1 << 16  # bytes read at a time
MAX_ANCILLARY = 1 << 24  # bytes of a chunk beside the pixels; larger ones are left out
Window = tuple[int, int, int, int]  # top, left, height, width
LARGE = 1 << 25  # pixels from which memory is worth the trouble
STRIP_BYTES = 1 << 24
MODES = ("L", "P", "RGB", "CMYK", "1")
UNCOMPRESSED = ("PPM", "BMP", "TGA", "TIFF")
WHOLE = ("JPEG", "WEBP", "PNG", "TIFF")
RAW = {"L": 1, "P": 1, "RGB": 3, "BGR": 3, "BGRX": 4, "RGBX": 4, "CMYK": 4}  # bytes a pixel, by Pillow's raw mode
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 258  # TIFF tags
Pieces = Callable[[int, int], "Image.Image"]


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


class Rows(Protocol):
    """What encode needs of u8[H, W, C]: slices of rows, the beginning of each not before that of the last."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


def gather(shape: tuple[int, ...], strips: Iterator[np.ndarray]) -> np.ndarray:
    """[H, W] or [H, W, C] of its rows."""
    out, top = np.empty(0), 0
    for strip in strips:
        if not top:
            out = strip if strip.shape == shape else np.empty(shape, strip.dtype)
        if out is not strip:
            out[top : top + len(strip)] = strip
        top += len(strip)
    return out


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


def open_strips(
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
    with collect_messages(left_out) as given:
        given += messages
    height, width, rows = image.height, image.width, max(1, STRIP_BYTES // (3 * image.width))

    def strips() -> Iterator[np.ndarray]:
        for top in range(0, height, rows):
            try:
                piece = pieces(top, min(top + rows, height))
            except (OSError, SyntaxError, CodecError) as exc:
                raise CodecError(f"{name}: {exc}") from exc
            strip = read_image(piece, name, [])[0]  # with the same messages as the first row
            yield split_alpha(strip)[0]

    return Strips((height, width, 3), strips(), row.ndim == 2), kept


def _lost_by_pillow(path: str | os.PathLike[str], image: Image.Image, name: str) -> list[str]:
    """Messages on what read_image would have found in the whole file and does not in one row."""
    with open(path, "rb") as file:
        if image.format == "TIFF" and not directories_fit(file):
            return [f"{name}: some of its EXIF data is damaged and left out"]
        if image.format == "PNG" and not getattr(image, "is_animated", False) and has_frames(file):
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
        layout = read_layout(file)
        if Reader.fits(layout):
            reader = Reader(file, layout)
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


class ModelRows:
    """The rows of u8[H, W, 3] as a model takes them: plans.Rows; raises as `to_model_channels` once they are read."""

    def __init__(self, rows: Rows, channels: int, grey: bool) -> None:
        self.shape, self.dtype = (*rows.shape[:2], channels), rows.dtype
        self._rows, self._grey = rows, grey

    def __getitem__(self, rows: slice) -> np.ndarray:
        return to_model_channels(self.shape[2], self._rows[rows], self._grey)
