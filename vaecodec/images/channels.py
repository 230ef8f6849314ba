"""Convert between samples and what a model takes: grey, RGB, alpha, or an array of any number of channels.

A model of 1 or 3 channels codes images: samples [H, W] or [H, W, 2, 3 or 4] are split into u8[H, W, 3] and alpha.
Other models code arrays u8[H, W, C], for which there is neither an image format nor alpha.  Arrays of other libraries
are accepted: tensors of PyTorch and JAX, and whatever else NumPy or DLPack can read.

Files of several images are here, too: pages of a TIFF, whose directories are checked, and frames of an animated GIF,
WebP, PNG or AVIF.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vaecodec.config import FINE_MAX, IMAGE_CHANNELS
from vaecodec.errors import CodecError, ModelError
from vaecodec.images import PNG_SIGNATURE
from vaecodec.transforms import Box

if TYPE_CHECKING:
    from PIL import Image


def is_array(value: Any) -> bool:
    """Whether a value is an array, of any library, rather than a path, a file or an image of Pillow."""
    return hasattr(value, "__array_interface__") or hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def to_numpy(values: Any) -> np.ndarray:
    """A NumPy array of the values of an array of any library, without a copy where that is possible.

    An object with `__array__` decides itself.  If it has none or refuses, as tensors on a GPU do, `__dlpack__` is used;
    for other devices than the CPU that copies (Python array API standard 2023.12).  Raises TypeError, ValueError or
    BufferError where neither works.
    """
    if isinstance(values, np.ndarray) or not hasattr(values, "__dlpack__"):
        return np.asarray(values)
    if hasattr(values, "__array__"):
        try:
            return np.asarray(values)
        except (TypeError, ValueError, RuntimeError):
            pass
    values = values.detach() if hasattr(values, "detach") else values  # PyTorch exports no tensor that has a gradient
    try:
        array: np.ndarray = np.from_dlpack(values)
    except (BufferError, RuntimeError, TypeError):
        if not hasattr(values, "cpu"):
            array = np.from_dlpack(values, device="cpu", copy=True)
        else:
            array = np.from_dlpack(values.cpu())
    return array


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


# Not MPO: the further images of such JPEGs are previews or depths of the first.
FRAME_FORMATS = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")
PAGE_FORMATS = ("TIFF",)  # formats whose images are called pages


def _format_and_count(file: BinaryIO) -> tuple[str, int]:
    """The format of a seekable image file, "" if Pillow cannot open it, and what `count_frames` returns."""
    from PIL import Image

    file.seek(0)
    try:
        with Image.open(file) as image:
            return image.format or "", getattr(image, "n_frames", 1) if image.format in FRAME_FORMATS else 1
    except Exception:  # Pillow's readers raise nearly anything on damage, which read_image reports
        return "", 1
    finally:
        file.seek(0)


def count_frames(file: BinaryIO) -> int:
    """Count the images in a seekable image file; 1 for formats that hold only one, or whose others are previews."""
    return _format_and_count(file)[1]


def describe_frames(file: BinaryIO) -> str:
    """Say what a seekable image file holds, if that is more than one image: "12 frames", "3 pages"; else ""."""
    name, count = _format_and_count(file)
    if count > 1:
        return f"{count} {'pages' if name in PAGE_FORMATS else 'frames'}"
    if name != "PNG":
        return ""
    try:
        return "an animation that is damaged" if has_png_frames(file) else ""
    except OSError:
        return ""
    finally:
        file.seek(0)


def check_frame(file: BinaryIO, frame: int, name: str) -> None:
    """Raise CodecError unless a seekable image file has an image of this number, from 1."""
    count = count_frames(file)
    if frame > count:
        raise CodecError(f"{name}: has {count} image{'s' * (count > 1)}, and no number {frame}")


def has_png_frames(file: BinaryIO) -> bool:
    """Whether frames of an animation, chunks fdAT, follow the default image (PNG 3rd edition, section 11.3.6.3)."""
    file.seek(len(PNG_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, tag = struct.unpack(">I4s", head)
        if tag in (b"fdAT", b"IEND"):
            return bool(tag == b"fdAT")
        file.seek(length + 4, 1)
    return False


NPY_MAGIC = b"\x93NUMPY"
STRIP_ROWS = 256  # of images of Pillow that are converted at a time
BLOCK_ROWS = 64  # converted at a time: wider types of a whole image would take a multiple of its memory


def count_channels(samples: np.ndarray) -> int:
    """1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
    return 1 if samples.ndim == 2 else samples.shape[2]


def alpha_channel(samples: np.ndarray) -> np.ndarray | None:
    """A view [H, W] of the alpha of samples, None without alpha."""
    return samples[..., -1] if count_channels(samples) in (2, 4) else None


def clear_transparent(samples: np.ndarray) -> np.ndarray:
    """Set colours to 0 where alpha is 0."""
    alpha = alpha_channel(samples)
    if alpha is None or alpha.all():
        return samples
    cleared = np.empty(samples.shape, samples.dtype)
    return np.multiply(samples, (alpha != 0)[..., None], out=cleared)


def join_alpha(rgb: np.ndarray, grey: bool, alpha: np.ndarray | None, depth: int = 8) -> np.ndarray:
    """Join u8[H, W, 1 or 3] and alpha to samples; grey is the mean of three channels.  Inverse of split_alpha.

    With a depth above 8, colours are u16 of 0..FINE_MAX, and become samples of so many bits.
    """
    if grey and rgb.shape[2] == 3:
        total = rgb.sum(axis=2, dtype=np.uint16)
        rgb = ((total + 1) // 3).astype(rgb.dtype)[..., None]
    if depth > 8:
        fine, rgb = rgb, np.empty(rgb.shape, np.uint16)
        for top in range(0, len(rgb), BLOCK_ROWS):
            part = fine[top : top + BLOCK_ROWS]
            rgb[top : top + BLOCK_ROWS] = (part * np.uint32((1 << depth) - 1) + FINE_MAX // 2) // FINE_MAX
    if alpha is not None:
        return clear_transparent(np.concatenate([rgb, alpha[..., None]], axis=2))
    return rgb[..., 0] if grey else rgb


def count_bits(samples: np.ndarray) -> int:
    """How many bits the colours of samples have, but for those under alpha 0: 8 of u8, 9 to 16 of u16."""
    if samples.dtype == np.uint8:
        return 8
    alpha = alpha_channel(samples)
    if alpha is None:
        return max(9, int(samples.max()).bit_length())
    visible = (alpha != 0)[..., None]
    return max(9, int(np.max(samples[..., :-1], where=visible, initial=0)).bit_length())


def to_8_bits(samples: np.ndarray, bits: int | None = None) -> np.ndarray:
    """u8 samples of the same shape: colours of u16 by `bits`, alpha by 16, where 0 alone becomes 0.

    `bits` are those that the colours have, where samples are a part of an image those of all of it.
    """
    if samples.dtype == np.uint8:
        return samples
    top, has_alpha = np.uint32((1 << (bits or count_bits(samples))) - 1), alpha_channel(samples) is not None
    reduced = np.empty(samples.shape, np.uint8)
    for first in range(0, len(samples), BLOCK_ROWS):
        part, out = samples[first : first + BLOCK_ROWS], reduced[first : first + BLOCK_ROWS]
        out[...] = np.minimum((part * np.uint32(255) + top // 2) // top, 255)
        if has_alpha:
            out[..., -1] = np.maximum((part[..., -1].astype(np.uint32) + 128) // 257, part[..., -1] != 0)
    return reduced


def downscale(samples: np.ndarray, box: Box, factor: int) -> np.ndarray:
    """Average squares of factor x factor pixels, in `box` of u8 or u16 samples, rounding halves up.

    Colours are weighted by alpha.  Squares that the box cuts count whole, those at the image's edge as far as they go.
    """
    if factor == 1:
        return np.ascontiguousarray(samples[box.slices()])
    out = box.reduce(factor)
    pixels = samples[factor * out.top : factor * out.bottom, factor * out.left : factor * out.right]
    pixels = pixels[..., None] if samples.ndim == 2 else pixels
    has_alpha = alpha_channel(samples) is not None
    columns = np.arange(0, pixels.shape[1], factor)
    widths = np.diff(columns, append=pixels.shape[1])[:, None].astype(np.uint64)
    means = np.empty((*out.shape, pixels.shape[2]), samples.dtype)
    for row in range(len(means)):  # one at a time, at 8 bytes a sample
        squares = pixels[factor * row : factor * (row + 1)].astype(np.uint64)
        if has_alpha:
            squares[..., :-1] *= squares[..., -1:]
        total = np.add.reduceat(squares.sum(axis=0), columns, axis=0)
        weight = np.broadcast_to(widths * np.uint64(len(squares)), total.shape).copy()
        if has_alpha:
            weight[:, :-1] = np.maximum(total[:, -1:], 1)
        means[row] = (2 * total + weight) // (2 * weight)
    return clear_transparent(means) if samples.ndim == 3 else means[..., 0]


def key_to_alpha(samples: np.ndarray, key: Any) -> np.ndarray:
    """Opaque samples with an alpha of 0 at pixels of the colour `key`, if there are any."""
    if not isinstance(key, (int, tuple)):
        return samples
    colours, key = samples[..., None] if samples.ndim == 2 else samples, np.asarray(key, np.int64)
    parts = [colours[top : top + STRIP_ROWS] for top in range(0, len(colours), STRIP_ROWS)]
    opaque = np.concatenate([(part != key).any(axis=-1) for part in parts])
    if opaque.all():
        return samples
    keyed = np.empty((*opaque.shape, colours.shape[2] + 1), samples.dtype)
    keyed[..., :-1], keyed[..., -1] = colours, np.where(opaque, np.iinfo(samples.dtype).max, 0)
    return keyed


def check_array(channels: int, image: Any) -> None:
    """Raise ModelError unless `image` is an array u8[H, W, channels]."""
    if not isinstance(image, np.ndarray):
        raise ModelError(f"the model is for arrays uint8[H, W, {channels}], not for an image")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
        shape = f"{image.dtype}{list(image.shape)}"
        raise ModelError(f"the model is for arrays uint8[H, W, {channels}], not for {shape}")


def to_array(image: Image.Image, convert: Callable[[Image.Image], np.ndarray] = np.asarray) -> np.ndarray:
    """Convert an image to an array, strip by strip: np.asarray of the whole takes twice the memory of its result."""
    width, height = image.size
    out = np.empty(0)
    for top in range(0, height, STRIP_ROWS):
        strip = convert(image.crop((0, top, width, min(top + STRIP_ROWS, height))))
        if not top:
            out = np.empty((height, *strip.shape[1:]), strip.dtype)
        out[top : top + len(strip)] = strip
    return out


def read_npy(data: bytes) -> np.ndarray:
    """Read a .npy file without pickles; raise ValueError on damage.

    Not for use in threads: NumPy parses the header with Python's parser, which in CPython 3.11 may fail while another
    thread is parsing, as TensorFlow does to trace a function.
    """
    try:
        array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
        return array
    except (EOFError, OSError, SyntaxError, TokenError, MemoryError) as exc:
        raise ValueError(str(exc)) from exc


def load_npy(encoded: bytes) -> bytes | np.ndarray:
    """The array of a .npy file, b"" where it is damaged; other files as they are."""
    if not encoded.startswith(NPY_MAGIC):
        return encoded
    with suppress(ValueError):
        return read_npy(encoded)
    return b""


def make_vivid(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The colours of u8[H, W, C] as on posters: channels permuted, some inverted, their contrast raised up to sixfold.

    Half of the results are squares of a side of 1 to 16 pixels, in two saturated colours or in all of them.
    Photographs seldom have saturated areas with hard edges, and a network that has not seen them may fail there.
    """
    height, width, channels = pixels.shape
    x = pixels[..., rng.permutation(channels)].astype(np.float32)
    signs = np.where(rng.random(channels) < 0.5, -1.0, 1.0).astype(np.float32)
    x = (x - x.mean((0, 1))) * signs
    if rng.random() < 0.5:
        return np.clip(np.rint(127.5 + x * 6.0 ** rng.random(channels)), 0, 255).astype(np.uint8)
    side, high = 2 ** int(rng.integers(5)), x > 0
    if rng.random() < 0.5:
        colours = rng.random((2, channels)) < 0.5
        high = np.where(high[..., :1], *colours)
    squares = high[::side, ::side].repeat(side, 0).repeat(side, 1)[:height, :width]
    return np.where(squares, 255, 0).astype(np.uint8)


def read_training_image(encoded: bytes | np.ndarray, channels: int) -> np.ndarray:
    """u8[H, W, channels] of an image file, a .npy file or its array; images become grey or RGB for 1 or 3 channels.

    Raises OSError, SyntaxError or ValueError on damage, ValueError on another type or number of channels.
    """
    from PIL import Image

    if isinstance(encoded, np.ndarray) or encoded.startswith(NPY_MAGIC):
        pixels = encoded if isinstance(encoded, np.ndarray) else read_npy(encoded)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    else:
        with Image.open(io.BytesIO(encoded)) as image:
            if channels in IMAGE_CHANNELS:
                image = image.convert("L" if channels == 1 else "RGB")
            pixels = np.asarray(image)
            pixels = pixels[..., None] if channels == 1 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != channels:
        raise ValueError(f"{pixels.dtype}{list(pixels.shape)}, expected uint8[H, W, {channels}]")
    return pixels
