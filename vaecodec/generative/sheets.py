"""Contact sheets: many pictures in one, in rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MARGIN = 2  # pixels between pictures
GROUND = 128


def contact_sheet(pictures: Sequence[np.ndarray], columns: int = 0, cell: int = 0) -> np.ndarray:
    """u8[H, W] or u8[H, W, 3] with each picture, u8[h, w] or u8[h, w, 3], in a cell of a grid, from the top left.

    `cell` is the side of a cell: larger pictures are made smaller, and smaller ones as many whole times larger as fit;
    the largest side there is where it is 0.  `columns` are as many as make about a square where they are 0.
    """
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    cell = cell or max(max(picture.shape[:2]) for picture in pictures)
    fitted = [_fitted(picture, cell) for picture in pictures]
    height, width = (max(one.shape[axis] for one in fitted) + MARGIN for axis in (0, 1))
    grey = all(one.ndim == 2 for one in fitted)
    shape = (height * math.ceil(len(fitted) / columns) + MARGIN, width * min(columns, len(fitted)) + MARGIN)
    sheet = np.full(shape if grey else (*shape, 3), GROUND, np.uint8)
    for n, one in enumerate(fitted):
        top, left = n // columns * height + MARGIN, n % columns * width + MARGIN
        sheet[top : top + one.shape[0], left : left + one.shape[1]] = one if one.ndim == sheet.ndim else one[..., None]
    return sheet


def _fitted(picture: np.ndarray, cell: int) -> np.ndarray:
    from PIL import Image

    height, width = picture.shape[:2]
    times = cell // max(height, width)
    if times >= 1:
        return picture.repeat(times, 0).repeat(times, 1)
    size = (max(1, width * cell // max(height, width)), max(1, height * cell // max(height, width)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
