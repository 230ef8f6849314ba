"""Convert samples to the colours that a model codes; those under alpha 0 become such that they cost little.

Samples of more than 8 bits are read from images of Pillow here, too, which itself keeps 8 of 16 bits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from vaecodec.config import IMAGE_CHANNELS
from vaecodec.errors import CodecError
from vaecodec.images.channels import (
    BLOCK_ROWS,
    STRIP_ROWS,
    alpha_channel,
    check_array,
    clear_transparent,
    count_bits,
    count_channels,
    to_8_bits,
    to_array,
)

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile


def split_alpha(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Split u8[H, W] or u8[H, W, 2, 3 or 4] into u8[H, W, 3] and alpha u8[H, W] or None.

    Colours where alpha is 0 are not kept; they become such that they cost little.
    """
    alpha = alpha_channel(samples)
    colour = samples[..., None] if samples.ndim == 2 else samples if alpha is None else samples[..., :-1]
    rgb = np.ascontiguousarray(np.broadcast_to(colour, (*samples.shape[:2], 3)))
    return (rgb if alpha is None else fill_transparent(rgb, alpha != 0)), alpha


class ColourRows:
    """The colours u8[H, W, C] that a model of 1 or 3 channels codes of u8 or u16 samples, made row by row when needed.

    They are those of split_alpha, whatever the samples have under alpha 0.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, samples: np.ndarray, channels: int) -> None:
        self.shape = (*samples.shape[:2], channels)
        samples = samples if max(samples.shape[:2]) > 1 else clear_transparent(samples)  # one pixel has no neighbours
        self._samples, self._bits, self._alpha = samples, count_bits(samples), alpha_channel(samples)
        self._coarse: np.ndarray | None = None
        if self._alpha is not None and not self._alpha.all() and max(self.shape[:2]) > 1:
            self._coarse = _coarser(self._opaque, self._alpha)

    def __getitem__(self, rows: slice) -> np.ndarray:
        rgb = self._opaque(rows)
        if self._coarse is not None and self._alpha is not None:
            _fill_rows(rgb, self._alpha[rows] != 0, self._coarse, rows.start)
        return to_model_channels(self.shape[2], rgb, count_channels(self._samples) < 3)

    def _opaque(self, rows: slice) -> np.ndarray:
        """Rows as u8[n, W, 3], whatever is under alpha 0."""
        samples = to_8_bits(self._samples[rows], self._bits)
        colour = samples[..., None] if samples.ndim == 2 else samples if self._alpha is None else samples[..., :-1]
        colour = np.broadcast_to(colour, (*samples.shape[:2], 3))
        return np.ascontiguousarray(colour) if self._alpha is None else np.array(colour, order="C")


def to_model_channels(channels: int, rgb: np.ndarray, grey: bool) -> np.ndarray:
    """Convert u8[H, W, 3] to the channels of a model of images.

    Raises CodecError on colour for a grey model, ModelError where the model is for arrays.
    """
    if channels == 3:
        return rgb
    if channels not in IMAGE_CHANNELS:
        check_array(channels, None)
    if not grey:
        raise CodecError("the image is in colour, and the model is for grey ones")
    return np.ascontiguousarray(rgb[..., :1])


def fill_transparent(rgb: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Continue the colours of pixels that are visible, bool[H, W], smoothly into the others.

    Pull-push (Gortler et al. 1996, The Lumigraph, section 3.4): each level of a pyramid holds means of visible pixels
    in 2 x 2 of the level below, and fills the others there.
    """
    if visible.all() or max(visible.shape) == 1:
        return rgb
    coarse, filled = _coarser(rgb.__getitem__, visible), rgb.copy()
    for top in range(0, len(rgb), BLOCK_ROWS):
        rows = slice(top, top + BLOCK_ROWS)
        _fill_rows(filled[rows], visible[rows], coarse, top)
    return filled


def _coarser(rows_of: Callable[[slice], np.ndarray], visible: np.ndarray) -> np.ndarray:
    """The next level of the pyramid, filled; rows u8[n, W, 3] come from `rows_of`, and not 0 is visible."""
    height, width = visible.shape
    shape = -(-height // 2), -(-width // 2)
    means, known = np.empty((*shape, 3), np.uint8), np.empty(shape, np.bool_)
    for top in range(0, height, BLOCK_ROWS):
        rows, out = slice(top, min(top + BLOCK_ROWS, height)), slice(top // 2, top // 2 + BLOCK_ROWS // 2)
        padding = ((0, (rows.stop - top) % 2), (0, width % 2))
        weight = np.pad(visible[rows] != 0, padding).reshape(-1, 2, shape[1], 2)
        blocks = np.pad(rows_of(rows), (*padding, (0, 0))).reshape(*weight.shape, 3)
        count = weight.sum(axis=(1, 3), dtype=np.uint16)
        total = np.einsum("hiwjc,hiwj->hwc", blocks, weight, dtype=np.uint16)
        means[out], known[out] = total // np.maximum(count, 1)[..., None], count > 0
    return fill_transparent(means, known)


def _fill_rows(rgb: np.ndarray, visible: np.ndarray, coarse: np.ndarray, top: int) -> None:
    """Fill rows u8[n, W, 3], of which the first is row `top` of the image, from the level above."""
    from PIL import Image

    if visible.all():
        return
    first = max(0, top // 2 - 1)  # interpolation sees one more row on each side
    part = coarse[first : (top + len(rgb)) // 2 + 2]
    smooth = Image.fromarray(part).resize((2 * part.shape[1], 2 * len(part)), Image.Resampling.BILINEAR)
    rows = slice(top - 2 * first, top - 2 * first + len(rgb))
    np.copyto(rgb, np.asarray(smooth)[rows, : rgb.shape[1]], where=~visible[..., None])


GREY_16_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}  # of Pillow's 16-bit raw modes


def raw_mode(image: Image.Image) -> str:
    """Pillow's name for the layout of samples in the file ("L;4", "RGB;16B"); "" once loaded, or if unknown."""
    for tile in getattr(image, "tile", ()):
        for value in tile.args if isinstance(tile.args, tuple) else (tile.args,):
            if isinstance(value, str):
                return value
    return ""


def bit_depth(image: Image.Image, data: bytes = b"") -> int:
    """Bits a sample in the file `data`; above 8, Pillow's pixels may have fewer."""
    raw = raw_mode(image)
    if image.mode in GREY_16_MODES or (";16" in raw and not raw.startswith("BGR")):  # BGR;16 is 16 bits a pixel
        return 16
    if image.mode[0] in "IF":
        return 16 if image.format == "PPM" else 32
    if image.format == "PPM":  # decoders that scale have the maximum as their last argument
        maxima = [tile.args[-1] for tile in getattr(image, "tile", ()) if tile.codec_name.startswith("ppm")]
        return 16 if max(maxima, default=255) > 255 else 8
    if image.format == "AVIF":  # AV1 Codec ISO Media File Format Binding 1.2, 2.3.3
        box = data.find(b"av1C")
        flags = data[box + 6] if 0 <= box < len(data) - 6 else 0
        return 12 if flags & 0x60 == 0x60 else 10 if flags & 0x40 else 8
    if image.format == "JPEG2000":  # ISO/IEC 15444-1, A.5.1
        box = data.find(b"\xff\x4f\xff\x51")
        return (data[box + 42] & 0x7F) + 1 if 0 <= box < len(data) - 42 else 8
    return 8


def read_16_bit(image: ImageFile, copy: ImageFile) -> np.ndarray | None:
    """Samples u16 of a file that is open twice, in file orientation, or None where Pillow has no 16 bits.

    Pillow's PNG and TIFF readers decompress all bytes and then keep one of each colour sample, which the raw mode
    selects: `image` delivers the high bytes and `copy` the low ones.  Raises Pillow's errors on damage.
    """
    raw, maximum = raw_mode(image), 65535
    if image.mode in GREY_16_MODES or image.mode == "I":
        return to_array(image, lambda strip: np.asarray(strip).astype(np.uint16))
    if raw == "LA;16B":  # a pixel has as many bits as one of RGBA: all come at once
        _setraw_mode(image, "RGBA")
        return to_array(image, _join_bytes)
    if raw == "RGB" and image.tile[0].codec_name == "ppm":
        arguments = image.tile[0].args
        raw, maximum = "RGB;16B", int(arguments[1]) if isinstance(arguments, tuple) else maximum
        image.tile = copy.tile = [image.tile[0]._replace(codec_name="raw", args=(raw, 0, 1))]
    if raw[:-1] not in ("RGB;16", "RGBA;16"):
        return None
    _setraw_mode(copy, raw[:-1] + OTHER_BYTE[raw[-1]])
    samples = to_array(image, lambda strip: np.asarray(strip).astype(np.uint16) << 8)
    image.close()  # its pixels need not stay beside those of the copy
    for top in range(0, len(samples), STRIP_ROWS):
        rows = samples[top : top + STRIP_ROWS]
        rows |= np.asarray(copy.crop((0, top, copy.width, top + len(rows))))
        if maximum != 65535:
            rows[...] = (rows.astype(np.uint32) * 65535 + maximum // 2) // maximum
    return samples


def _join_bytes(image: Image.Image) -> np.ndarray:
    """Grey and alpha u16[H, W, 2] from RGBA that holds their high and low bytes."""
    rgba = np.asarray(image).astype(np.uint16)
    joined: np.ndarray = rgba[..., 0::2] << 8 | rgba[..., 1::2]
    return joined


def _setraw_mode(image: ImageFile, raw: str) -> None:
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
    ]
