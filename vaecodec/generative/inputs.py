"""Sets of small grey pictures of one size: idx files (MNIST's format), .npy arrays, folders of pictures."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib

import numpy as np

from vaecodec.errors import CodecError
from vaecodec.images.npy import MAGIC, read_npy

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
MAX_BYTES = 1 << 31


def read_set(path: str) -> tuple[np.ndarray, list[str]]:
    """(u8[N, H, W], a name for each) of an idx file, plain or gzipped, a .npy array u8[N, H, W] or [H, W], a picture,
    or a folder of pictures in the order of their names, which are made grey.

    Raises CodecError where they are not of one size, or a file is none of these.
    """
    if os.path.isdir(path):
        found = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.lower().endswith(SUFFIXES)]
        if not found:
            raise CodecError(f"{path}: no pictures in it (looked for {' '.join(SUFFIXES)})")
        pictures = [_picture(one) for one in found]
        shapes = {picture.shape for picture in pictures}
        if len(shapes) > 1:
            raise CodecError(f"{path}: pictures are of {len(shapes)} sizes, expected one")
        return np.stack(pictures), found
    if path.lower().endswith(SUFFIXES):
        return _picture(path)[None], [path]
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if data[:2] == b"\x1f\x8b":
        data = _inflated(data, path)
    if len(data) > MAX_BYTES:
        raise CodecError(f"{path}: larger than {MAX_BYTES} bytes")
    array = _npy(data, path) if data.startswith(MAGIC) else _idx(data, path)
    return array, [f"{path}[{n}]" for n in range(len(array))]


def _inflated(data: bytes, path: str) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as exc:
        raise CodecError(f"{path}: damaged gzip ({exc})") from exc


def _idx(data: bytes, path: str) -> np.ndarray:
    """The format of MNIST: two zero bytes, type 8 for u8, rank 3, big-endian sizes, then all bytes."""
    if len(data) < 16 or data[:4] != b"\0\0\x08\x03":
        raise CodecError(f"{path}: neither a picture, nor an idx or .npy file of grey pictures")
    shape = struct.unpack(">3I", data[4:16])
    if 0 in shape or shape[0] * shape[1] * shape[2] != len(data) - 16:
        raise CodecError(f"{path}: an idx file of {len(data) - 16} bytes, expected {list(shape)}")
    return np.frombuffer(data, np.uint8, offset=16).reshape(shape)


def _npy(data: bytes, path: str) -> np.ndarray:
    try:
        array = read_npy(data)
    except ValueError as exc:
        raise CodecError(f"{path}: damaged .npy ({exc})") from exc
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise CodecError(f"{path}: {array.dtype}{list(array.shape)}, expected uint8[N, H, W]")
    return array if array.ndim == 3 else array[None]


def _picture(path: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise CodecError(f"{path}: not a picture that can be read ({exc})") from exc
