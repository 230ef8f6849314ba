"""Split and join the channels of images and arrays: grey, RGB, alpha, and what a model takes."""

from __future__ import annotations

import io
from contextlib import suppress
from tokenize import TokenError
from typing import Any

import numpy as np

from vaecodec.config import IMAGE_CHANNELS
from vaecodec.errors import CodecError, ModelError
from vaecodec.transforms.tiling import Box

NPY_MAGIC = b"\x93NUMPY"


def count_channels(samples: np.ndarray) -> int:
    """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA."""
    return 1 if samples.ndim == 2 else samples.shape[2]


def alpha_channel(samples: np.ndarray) -> np.ndarray | None:
    """[H, W] of u8 or u16[H, W, 2 or 4], a view; None without alpha."""
    return samples[..., -1] if count_channels(samples) in (2, 4) else None


def clear_transparent(samples: np.ndarray) -> np.ndarray:
    """The samples with colour 0 where alpha is 0."""
    alpha = alpha_channel(samples)
    if alpha is None or alpha.all():
        return samples
    return samples * (alpha != 0)[..., None]


def split_alpha(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """(u8[H, W, 3], alpha u8[H, W] or None) of u8[H, W] or u8[H, W, 2, 3 or 4]."""
    alpha = alpha_channel(samples)
    colour = samples[..., None] if samples.ndim == 2 else samples if alpha is None else samples[..., :-1]
    rgb = np.ascontiguousarray(np.broadcast_to(colour, (*samples.shape[:2], 3)))
    return (rgb if alpha is None else fill_transparent(rgb, alpha != 0)), alpha


def join_alpha(rgb: np.ndarray, grey: bool, alpha: np.ndarray | None) -> np.ndarray:
    """The inverse of split, but for what the codec did to the colours; grey is the mean of the three, or the one."""
    if grey and rgb.shape[2] == 3:
        total = rgb.sum(axis=2, dtype=np.uint16)
        rgb = ((total + 1) // 3).astype(np.uint8)[..., None]
    if alpha is not None:
        return clear_transparent(np.concatenate([rgb, alpha[..., None]], axis=2))
    return rgb[..., 0] if grey else rgb


def downscale(samples: np.ndarray, box: Box, factor: int) -> np.ndarray:
    """`box` of u8 or u16 samples at 1/factor of its sides: means of squares, halves up, colours weighted by alpha.

    Squares that the box cuts count whole, those that the picture's edge cuts as far as they go.
    """
    if factor == 1:
        return np.ascontiguousarray(samples[box.slices()])
    out = box.reduce(factor)
    part = samples[factor * out.top : factor * out.bottom, factor * out.left : factor * out.right]
    part = part[..., None] if samples.ndim == 2 else part
    weighted = alpha_channel(samples) is not None
    columns = np.arange(0, part.shape[1], factor)
    widths = np.diff(columns, append=part.shape[1])[:, None].astype(np.uint64)
    means = np.empty((*out.shape, part.shape[2]), samples.dtype)
    for row in range(len(means)):  # at 8 bytes a sample, all of them would be too many
        square = part[factor * row : factor * (row + 1)].astype(np.uint64)
        if weighted:
            square[..., :-1] *= square[..., -1:]
        total = np.add.reduceat(square.sum(axis=0), columns, axis=0)
        weight = np.broadcast_to(widths * np.uint64(len(square)), total.shape).copy()
        if weighted:
            weight[:, :-1] = np.maximum(total[:, -1:], 1)
        means[row] = (2 * total + weight) // (2 * weight)
    return clear_transparent(means) if samples.ndim == 3 else means[..., 0]


def fill_transparent(rgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """u8[H, W, 3] with the unseen pixels, bool[H, W], in a smooth continuation of the seen ones.

    Each level of a pyramid is the mean of what is seen in 2x2 pixels of the one below, and fills what is unseen
    there ("pull-push", Gortler et al. 1996, The Lumigraph, section 3.4).
    """
    from PIL import Image

    if seen.all() or max(seen.shape) == 1:
        return rgb
    height, width = seen.shape
    pad = ((0, height % 2), (0, width % 2))
    weight = np.pad(seen, pad).reshape(-(-height // 2), 2, -(-width // 2), 2)
    blocks = np.pad(rgb, (*pad, (0, 0))).reshape(*weight.shape, 3)
    count = weight.sum(axis=(1, 3), dtype=np.uint16)
    total = np.einsum("hiwjc,hiwj->hwc", blocks, weight, dtype=np.uint16)
    coarse = (total // np.maximum(count, 1)[..., None]).astype(np.uint8)
    coarse = fill_transparent(coarse, count > 0)
    smooth = Image.fromarray(coarse).resize((2 * coarse.shape[1], 2 * coarse.shape[0]), Image.Resampling.BILINEAR)
    return np.where(seen[..., None], rgb, np.asarray(smooth)[:height, :width])


def read_npy(data: bytes) -> np.ndarray:
    """The array of a .npy file without pickles; raises ValueError on whatever is wrong with it.

    NumPy has Python's parser read the header, so that errors come as they like, and of CPython 3.11 that parser now and
    then fails while another thread is parsing, as TensorFlow does where it traces a function: not for use in threads.
    """
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (EOFError, OSError, SyntaxError, TokenError, MemoryError) as exc:
        raise ValueError(str(exc)) from exc


def check_array(channels: int, image: Any) -> None:
    """Raises ModelError on what is no u8[H, W, C]."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == channels:
        return
    what = f"{image.dtype}{list(image.shape)}" if isinstance(image, np.ndarray) else "a picture"
    raise ModelError(f"the model is for arrays uint8[H, W, {channels}], not for {what}")


def to_model_channels(channels: int, rgb: np.ndarray, grey: bool) -> np.ndarray:
    """u8[H, W, C] of u8[H, W, 3] for a model of pictures, else ModelError; CodecError on colours where C is 1."""
    if channels == 3:
        return rgb
    if channels not in IMAGE_CHANNELS:
        check_array(channels, None)
    if not grey:
        raise CodecError("a picture in colour, and the model is for grey ones")
    return np.ascontiguousarray(rgb[..., :1])


def flatten_channels(samples: np.ndarray) -> np.ndarray:
    """[H, W, C] as [H, W * C], in which nothing is taken for alpha."""
    return samples.reshape(len(samples), -1)


def load_npy(encoded: bytes) -> bytes | np.ndarray:
    """The array of a .npy file, for threads to read from; all else as it is, and b"" for a broken one."""
    if not encoded.startswith(NPY_MAGIC):
        return encoded
    with suppress(ValueError):
        return read_npy(encoded)
    return b""


def read_training_image(encoded: bytes | np.ndarray, channels: int) -> np.ndarray:
    """u8[H, W, C] of a .npy file, of its array or of a picture; raises OSError, ValueError, SyntaxError otherwise.

    Pictures are made grey or RGB where that is asked for; else they must have so many channels of 8 bits.
    """
    from PIL import Image

    if isinstance(encoded, np.ndarray) or encoded.startswith(NPY_MAGIC):
        pixels = encoded if isinstance(encoded, np.ndarray) else read_npy(encoded)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    else:
        with Image.open(io.BytesIO(encoded)) as picture:
            if channels in IMAGE_CHANNELS:
                picture = picture.convert("L" if channels == 1 else "RGB")
            pixels = np.asarray(picture)
            pixels = pixels[..., None] if channels == 1 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != channels:
        raise ValueError(f"{pixels.dtype}{list(pixels.shape)}, expected uint8[H, W, {channels}]")
    return pixels
