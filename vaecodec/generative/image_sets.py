"""Sets of small grey images of one size: code them losslessly, read them, show them on a contact sheet."""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vaecodec.container.image_set import Header, pack, parse
from vaecodec.errors import CodecError, FormatError, LimitError, ModelError
from vaecodec.generative import bitsback
from vaecodec.limits import DEFAULT, NONE, Limits
from vaecodec.model.file import find_generator, load_generator

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
MAX_BYTES = 1 << 31  # of an idx or .npy file
MARGIN = 2  # pixels between the images of a contact sheet
BACKGROUND = 128


def encode(images: np.ndarray, model: str = "digits") -> bytes:
    """Code u8[N, S, S] as a .vae file; raises CodecError for another shape or type."""
    generator = load_generator(model)
    words, consumed = bitsback.encode(generator, images)
    crc = zlib.crc32(images.tobytes())
    return pack(Header(generator.id, len(images), generator.config.side, consumed, crc), words)


def decode(data: bytes, model: str | None = None, limits: Limits | None = DEFAULT) -> np.ndarray:
    """Decode a .vae file to u8[N, S, S], with a model by name or path, or else the known one of the id in the header.

    Raises FormatError on damage, ModelError if the model is unknown or another one, and LimitError if the header
    announces more pixels than `limits` allow (None: any number).
    """
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


def read_set(path: str) -> tuple[np.ndarray, list[str]]:
    """Read a set of images as u8[N, H, W], and a name for each of them.

    `path` is an idx file (the format of MNIST), plain or gzipped; a .npy array u8[N, H, W] or u8[H, W]; an image; or a
    folder of images, read in order of name and converted to grey.  Raises CodecError if the images differ in size, or
    a file cannot be read as any of these.
    """
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
    array = _parse_npy_or_idx(data, path)
    return array, [f"{path}[{n}]" for n in range(len(array))]


def _parse_npy_or_idx(data: bytes, path: str) -> np.ndarray:
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
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise CodecError(f"{path}: not a readable image ({exc})") from exc


def contact_sheet(images: Sequence[np.ndarray], columns: int = 0, cell: int = 0) -> np.ndarray:
    """Place images u8[h, w] or u8[h, w, 3] on a grid: u8[H, W], or u8[H, W, 3] if any has colour.

    `columns` 0 gives an approximately square sheet.  `cell` is the side of a cell in pixels, 0 for the largest side of
    an image; larger images are reduced, smaller ones enlarged by the largest whole factor that fits.
    """
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
        place = sheet[top : top + image.shape[0], left : left + image.shape[1]]
        place[...] = image if image.ndim == sheet.ndim else image[..., None]
    return sheet
