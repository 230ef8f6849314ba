"""Convert samples to the colours that a model codes; those under alpha 0 become such that they cost little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vaecodec.config import IMAGE_CHANNELS
from vaecodec.errors import CodecError
from vaecodec.images import (
    BLOCK_ROWS,
    alpha_channel,
    check_array,
    clear_transparent,
    count_bits,
    count_channels,
    to_8_bits,
)


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
