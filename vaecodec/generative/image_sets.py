"""Sets of small grey images of one size: read them, code them in one .vae file, show them on a contact sheet.

    magic    89 56 41 45 0D 0A 1A 0A
    PSET     version, model, number of images, side, initial words consumed, CRC-32 of all pixels
    DATA     words of the stack of `bitsback` (docs/reference/sets.md)

NumPy is imported where it is needed, because `vaecodec info` reads headers without it.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vaecodec.container.chunks import MAGIC, VERSION, pack_chunk
from vaecodec.errors import CodecError, FormatError, LimitError, ModelError
from vaecodec.limits import DEFAULT, NONE, Limits

if TYPE_CHECKING:
    import numpy as np

TAG = b"PSET"
HEADER = struct.Struct("<BB16sIHII")  # version, reserved, model, count, side, consumed, CRC-32
MAX_CONSUMED = 1 << 20
MIN_BITS = 1.0 / 64  # no image costs less, even if the model predicts every pixel of it
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
MAX_BYTES = 1 << 31  # of an idx or .npy file
MARGIN = 2  # pixels between the images of a contact sheet
BACKGROUND = 128


class Header(NamedTuple):
    """The fields of PSET; `model` is 32 hexadecimal digits."""

    model: str
    images: int
    side: int
    consumed: int
    crc: int


def is_set(head: bytes) -> bool:
    """Whether a file that begins with these bytes, 16 or more, holds a set of images."""
    return head[:8] == MAGIC and head[12:16] == TAG


def encode(images: np.ndarray, model: str = "digits") -> bytes:
    """Code u8[N, S, S] losslessly as a .vae file; raises CodecError for another shape or type."""
    from vaecodec.generative import bitsback
    from vaecodec.model.file import load_generator

    generator = load_generator(model)
    words, consumed = bitsback.encode(generator, images)
    fields = (len(images), generator.config.side, consumed, zlib.crc32(images.tobytes()))
    header = HEADER.pack(VERSION, 0, bytes.fromhex(generator.id), *fields)
    return MAGIC + pack_chunk(TAG, header) + pack_chunk(b"DATA", words)


def decode(data: bytes, model: str | None = None, limits: Limits | None = DEFAULT) -> np.ndarray:
    """Decode a .vae file to u8[N, S, S].

    Args:
        data: the file.
        model: name or path of its model; by default the shipped or added model with the id in the header.
        limits: the most pixels to decode; None for no limit.

    Raises:
        FormatError: the file is damaged.
        ModelError: the model is not available, or is not the one that made the file.
        LimitError: the header announces more pixels than `limits` allow.
    """
    from vaecodec.generative import bitsback
    from vaecodec.model.file import find_generator, load_generator

    header, words = parse(data)
    pixels, limit = header.images * header.side**2, (limits or NONE).pixels
    if limit is not None and pixels > limit:
        raise LimitError(f"{header.images} images of {pixels} pixels in all exceed the limit of {limit}")
    generator = load_generator(model) if model else find_generator(header.model)
    if generator.id != header.model:
        raise ModelError(f"the file needs model {header.model}, but {generator.name} has id {generator.id}")
    if generator.config.side != header.side:
        raise FormatError(f"the header gives images of side {header.side}, but the model has {generator.config.side}")
    images = bitsback.decode(generator, words, header.consumed, header.images)
    if zlib.crc32(images.data) != header.crc:
        raise FormatError("the CRC of the pixels does not match")
    return images


def parse(data: bytes) -> tuple[Header, bytes]:
    """Split a file into its header and the words of its stack; raises FormatError on damage."""
    if not is_set(data[:16]):
        raise FormatError("not a .vae file of a set of images" if data[:8] == MAGIC else "not a .vae file")
    payloads, position = [], len(MAGIC)
    for expected in (TAG, b"DATA"):
        if len(data) - position < 12:
            raise FormatError("the file is cut off")
        length = int.from_bytes(data[position : position + 4], "little")
        tag, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            raise FormatError(f"the file is cut off or damaged inside chunk {tag!r}")
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "little"):
            raise FormatError(f"chunk {tag!r} is damaged (its CRC does not match)")
        if tag != expected:
            raise FormatError(f"chunk {tag!r} is in the place of {expected!r}")
        payloads.append(data[position + 8 : end])
        position = end + 4
    if position != len(data):
        raise FormatError(f"{len(data) - position} bytes follow the end of the file")
    header, words = payloads
    return _parse_header(header, len(words)), words


def _parse_header(payload: bytes, data_size: int) -> Header:
    if payload and payload[0] != VERSION:
        raise FormatError(f"file version {payload[0]} is not supported (this reader supports version {VERSION})")
    if len(payload) != HEADER.size:
        raise FormatError(f"the header is {len(payload)} bytes long, expected {HEADER.size}")
    _, reserved, model, count, side, consumed, crc = HEADER.unpack(payload)
    if reserved:
        raise FormatError("the header sets flags that are unknown in this version")
    if not count or not side or consumed > MAX_CONSUMED:
        raise FormatError(f"the header gives {count} images of side {side}, and {consumed} initial words")
    if count * MIN_BITS > 8 * (data_size + 4 * consumed + 4):
        raise FormatError(f"the header gives {count} images, more than {data_size} bytes can hold")
    return Header(model.hex(), count, side, consumed, crc)


def info(data: bytes) -> dict[str, Any]:
    """Describe a file of a set by its header, JSON-ready; raises FormatError on damage."""
    header, _ = parse(data)
    return {
        "kind": "set",
        "version": VERSION,
        "coding": "bits back",
        "model": header.model,
        "count": header.images,
        "height": header.side,
        "width": header.side,
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.images * header.side**2),
    }


def read_set(path: str) -> tuple[np.ndarray, list[str]]:
    """Read a set of images as u8[N, H, W], and a name for each of them.

    Args:
        path: an idx file (the format of MNIST), plain or gzipped; a .npy array u8[N, H, W] or u8[H, W]; an image file;
            or a folder of image files, read in order of name.  Images are converted to grey.

    Raises:
        CodecError: the images differ in size, or a file cannot be read as any of these.
    """
    import numpy as np

    if os.path.isdir(path):
        paths = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.lower().endswith(IMAGE_SUFFIXES)]
        if not paths:
            raise CodecError(f"{path}: contains no images (looked for {' '.join(IMAGE_SUFFIXES)})")
        images = [_read_grey(image_path) for image_path in paths]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise CodecError(f"{path}: images have {len(shapes)} sizes, expected one")
        return np.stack(images), paths
    if path.lower().endswith(IMAGE_SUFFIXES):
        return _read_grey(path)[None], [path]
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as exc:
            raise CodecError(f"{path}: damaged gzip ({exc})") from exc
    if len(data) > MAX_BYTES:
        raise CodecError(f"{path}: larger than {MAX_BYTES} bytes")
    array = _parse_idx_or_npy(data, path)
    return array, [f"{path}[{n}]" for n in range(len(array))]


def _parse_idx_or_npy(data: bytes, path: str) -> np.ndarray:
    import numpy as np

    from vaecodec.images.channels import NPY_MAGIC, read_npy

    if data.startswith(NPY_MAGIC):
        try:
            array = read_npy(data)
        except ValueError as exc:
            raise CodecError(f"{path}: damaged .npy ({exc})") from exc
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
            raise CodecError(f"{path}: {array.dtype}{list(array.shape)}, expected uint8[N, H, W]")
        return array if array.ndim == 3 else array[None]
    # idx: two zero bytes, type 8 for u8, rank 3, big-endian sizes, then the samples.
    if len(data) < 16 or data[:4] != b"\0\0\x08\x03":
        raise CodecError(f"{path}: not an image, nor an idx or .npy file of grey images")
    shape = struct.unpack(">3I", data[4:16])
    if 0 in shape or math.prod(shape) != len(data) - 16:
        raise CodecError(f"{path}: an idx file of {len(data) - 16} bytes, expected {list(shape)}")
    return np.frombuffer(data, np.uint8, offset=16).reshape(shape)


def _read_grey(path: str) -> np.ndarray:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise CodecError(f"{path}: not a readable image ({exc})") from exc


def contact_sheet(images: Sequence[np.ndarray], columns: int = 0, cell: int = 0) -> np.ndarray:
    """Place images, u8[h, w] or u8[h, w, 3], on a grid in rows: u8[H, W], or u8[H, W, 3] if any has colour.

    Args:
        images: the images, of any sizes.
        columns: columns of the grid; 0 for an approximately square sheet.
        cell: side of a cell in pixels; 0 for the largest side of an image.  Larger images are reduced, smaller ones
            are enlarged by the largest whole factor that fits.
    """
    import numpy as np
    from PIL import Image

    columns = columns or math.ceil(math.sqrt(len(images)))
    cell = cell or max(max(image.shape[:2]) for image in images)
    fitted = []
    for image in images:
        height, width = image.shape[:2]
        factor = cell // max(height, width)
        if factor >= 1:
            fitted.append(image.repeat(factor, 0).repeat(factor, 1))
        else:
            size = max(1, width * cell // max(height, width)), max(1, height * cell // max(height, width))
            fitted.append(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)))
    height, width = (max(image.shape[axis] for image in fitted) + MARGIN for axis in (0, 1))
    grey = all(image.ndim == 2 for image in fitted)
    shape = (height * math.ceil(len(fitted) / columns) + MARGIN, width * min(columns, len(fitted)) + MARGIN)
    sheet = np.full(shape if grey else (*shape, 3), BACKGROUND, np.uint8)
    for n, image in enumerate(fitted):
        top, left = n // columns * height + MARGIN, n % columns * width + MARGIN
        cell_pixels = image if image.ndim == sheet.ndim else image[..., None]
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = cell_pixels
    return sheet
