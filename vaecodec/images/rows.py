"""Images as rows of samples, which need not all be in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

Window = tuple[int, int, int, int]  # top, left, height, width


class Rows(Protocol):
    """What encode needs of u8[H, W, C]: slices of rows, the beginning of each not before that of the last."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


def gather(shape: tuple[int, ...], strips: Iterator[np.ndarray]) -> np.ndarray:
    """[H, W] or [H, W, C] of its rows."""
    out, top = np.empty(0), 0
    for strip in strips:
        if not top:
            out = strip if strip.shape == shape else np.empty(shape, strip.dtype)
        if out is not strip:
            out[top : top + len(strip)] = strip
        top += len(strip)
    return out
