"""Grey, and alpha beside colour <-> the RGB that a codec takes.

    [H, W] or [H, W, 2, 3 or 4] --split--> u8[H, W, 3], alpha u8[H, W] or None --join--> the same shape

Where alpha is 0 a colour is nobody's: it is 0 for whoever reads the picture, and whatever costs least for the codec.
"""

from __future__ import annotations

import numpy as np

from vaecodec.transforms.tiling import Box


def channels_of(samples: np.ndarray) -> int:
    """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA."""
    return 1 if samples.ndim == 2 else samples.shape[2]


def alpha_of(samples: np.ndarray) -> np.ndarray | None:
    """[H, W] of u8 or u16[H, W, 2 or 4], a view; None without alpha."""
    return samples[..., -1] if channels_of(samples) in (2, 4) else None


def clear(samples: np.ndarray) -> np.ndarray:
    """The samples with colour 0 where alpha is 0."""
    alpha = alpha_of(samples)
    if alpha is None or alpha.all():
        return samples
    return samples * (alpha != 0)[..., None]


def split(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """(u8[H, W, 3], alpha u8[H, W] or None) of u8[H, W] or u8[H, W, 2, 3 or 4]."""
    alpha = alpha_of(samples)
    colour = samples[..., None] if samples.ndim == 2 else samples if alpha is None else samples[..., :-1]
    rgb = np.ascontiguousarray(np.broadcast_to(colour, (*samples.shape[:2], 3)))
    return (rgb if alpha is None else fill(rgb, alpha != 0)), alpha


def join(rgb: np.ndarray, grey: bool, alpha: np.ndarray | None) -> np.ndarray:
    """The inverse of split, but for what the codec did to the colours; grey is the mean of the three, or the one."""
    if grey and rgb.shape[2] == 3:
        total = rgb.sum(axis=2, dtype=np.uint16)
        rgb = ((total + 1) // 3).astype(np.uint8)[..., None]
    if alpha is not None:
        return clear(np.concatenate([rgb, alpha[..., None]], axis=2))
    return rgb[..., 0] if grey else rgb


def reduce(samples: np.ndarray, box: Box, factor: int) -> np.ndarray:
    """`box` of u8 or u16 samples at 1/factor of its sides: means of squares, halves up, colours weighted by alpha.

    Squares that the box cuts count whole, those that the picture's edge cuts as far as they go.
    """
    if factor == 1:
        return np.ascontiguousarray(samples[box.slices()])
    out = box.reduce(factor)
    part = samples[factor * out.top : factor * out.bottom, factor * out.left : factor * out.right]
    part = part[..., None] if samples.ndim == 2 else part
    weighted = alpha_of(samples) is not None
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
    return clear(means) if samples.ndim == 3 else means[..., 0]


def fill(rgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
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
    coarse = fill(coarse, count > 0)
    smooth = Image.fromarray(coarse).resize((2 * coarse.shape[1], 2 * coarse.shape[0]), Image.Resampling.BILINEAR)
    return np.where(seen[..., None], rgb, np.asarray(smooth)[:height, :width])
