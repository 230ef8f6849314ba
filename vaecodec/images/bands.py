"""Pixels of any number of channels: what a model takes that is not for RGB.

1 channel is grey: pictures, and their files say so.  2, or 4 and more, are arrays u8[H, W, C], which no picture format
has, and beside which there is no alpha.
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import numpy as np

from vaecodec.config import PICTURE_CHANNELS
from vaecodec.errors import CodecError, ModelError
from vaecodec.images.files import read_image
from vaecodec.images.npy import MAGIC, read_npy
from vaecodec.images.rows import Rows


def samples_for(channels: int, image: Any) -> tuple[np.ndarray, dict[str, bytes]]:
    """(samples, metadata) of what a model of so many channels is to code; raises CodecError, or as check_array does."""
    if channels in PICTURE_CHANNELS:
        return read_image(image)
    check_array(channels, image)
    return image, {}


def check_array(channels: int, image: Any) -> None:
    """Raises ModelError on what is no u8[H, W, C]."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == channels:
        return
    what = f"{image.dtype}{list(image.shape)}" if isinstance(image, np.ndarray) else "a picture"
    raise ModelError(f"the model is for arrays uint8[H, W, {channels}], not for {what}")


def as_model_has(channels: int, rgb: np.ndarray, grey: bool) -> np.ndarray:
    """u8[H, W, C] of u8[H, W, 3] for a model of pictures, else ModelError; CodecError on colours where C is 1."""
    if channels == 3:
        return rgb
    if channels not in PICTURE_CHANNELS:
        check_array(channels, None)
    if not grey:
        raise CodecError("a picture in colour, and the model is for grey ones")
    return np.ascontiguousarray(rgb[..., :1])


class Converted:
    """The rows of u8[H, W, 3] as a model takes them: plans.Rows; raises as `as_model_has` once they are read."""

    def __init__(self, rows: Rows, channels: int, grey: bool) -> None:
        self.shape, self.dtype = (*rows.shape[:2], channels), rows.dtype
        self._rows, self._grey = rows, grey

    def __getitem__(self, rows: slice) -> np.ndarray:
        return as_model_has(self.shape[2], self._rows[rows], self._grey)


def flat(samples: np.ndarray) -> np.ndarray:
    """[H, W, C] as [H, W * C], in which nothing is taken for alpha."""
    return samples.reshape(len(samples), -1)


def unpacked(encoded: bytes) -> bytes | np.ndarray:
    """The array of a .npy file, for threads to read from; all else as it is, and b"" for a broken one."""
    if not encoded.startswith(MAGIC):
        return encoded
    with suppress(ValueError):
        return read_npy(encoded)
    return b""


def read_training(encoded: bytes | np.ndarray, channels: int) -> np.ndarray:
    """u8[H, W, C] of a .npy file, of its array or of a picture; raises OSError, ValueError, SyntaxError otherwise.

    Pictures are made grey or RGB where that is asked for; else they must have so many channels of 8 bits.
    """
    from PIL import Image

    if isinstance(encoded, np.ndarray) or encoded.startswith(MAGIC):
        pixels = encoded if isinstance(encoded, np.ndarray) else read_npy(encoded)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    else:
        with Image.open(io.BytesIO(encoded)) as picture:
            if channels in PICTURE_CHANNELS:
                picture = picture.convert("L" if channels == 1 else "RGB")
            pixels = np.asarray(picture)
            pixels = pixels[..., None] if channels == 1 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != channels:
        raise ValueError(f"{pixels.dtype}{list(pixels.shape)}, expected uint8[H, W, {channels}]")
    return pixels
