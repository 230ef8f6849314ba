"""Divide an image into tiles of latent cells, and compute the halo that hides their seams.

+-------+-------+--+      The symbols of a tile depend on its own cells alone.  The transforms also see a halo of
|       |       |  |      cells of its neighbours, as wide as they reach, so tiles join as if the image had been
+-------+-------+--+      transformed whole.
|       |       |  |
+-------+-------+--+
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vaecodec.config import FILTER_REACH, STRIDE, Config

DEFAULT_TILE = 1024  # pixels
FORWARD_REACH, INVERSE_REACH = 4, 46  # of four octaves of the wavelet: cells, and pixels


class Box(NamedTuple):
    """A rectangle, ends exclusive, in cells unless stated otherwise."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    def slices(self) -> tuple[slice, slice]:
        """Index of an array [height, width, ...]."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def relative_to(self, outer: Box) -> Box:
        """The same rectangle in the coordinates of `outer`."""
        return Box(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)

    def intersection(self, other: Box) -> Box:
        """The rectangle that both cover."""
        return Box(*map(max, self[:2], other[:2]), *map(min, self[2:], other[2:]))

    def reduce(self, factor: int) -> Box:
        """The rectangle at 1/factor of the size, rounded outwards."""
        return Box(self.top // factor, self.left // factor, -(-self.bottom // factor), -(-self.right // factor))

    def grow(self, margin: int, limit: tuple[int, int]) -> Box:
        """The rectangle with a margin on each side, within (height, width)."""
        grown = Box(self.top - margin, self.left - margin, self.bottom + margin, self.right + margin)
        return grown.intersection(Box(0, 0, *limit))


def window_box(window: tuple[int, int, int, int] | None, image: tuple[int, int]) -> Box:
    """The pixels of a (top, left, height, width) window, None for all, of an image of (height, width).

    Raises ValueError if the window does not lie within the image.
    """
    top, left, height, width = window or (0, 0, *image)
    if min(top, left) < 0 or min(height, width) < 1 or top + height > image[0] or left + width > image[1]:
        raise ValueError(f"window {window} does not lie within the image of {image[1]} x {image[0]}")
    return Box(top, left, top + height, left + width)


def halo(config: Config, filtered: bool = False) -> int:
    """Cells that the transforms reach beyond a cell.

    A coarse block reaches one cell and a fine block half a cell.  Fine blocks see the result of the inverse wavelet,
    and a restoration filter sees that of the fine blocks.
    """
    blocks = config.coarse_blocks + (config.fine_blocks + 1) // 2
    pixels = INVERSE_REACH + STRIDE // 2 * config.fine_blocks + FILTER_REACH * filtered
    return max(blocks, FORWARD_REACH, -(-pixels // STRIDE))


class Grid(NamedTuple):
    """The tiles of an image, numbered in rows from the top left."""

    height: int  # pixels
    width: int
    tile: int

    @property
    def cells(self) -> tuple[int, int]:
        """Latent cells (h, w) of the whole image."""
        return -(-self.height // STRIDE), -(-self.width // STRIDE)

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile)

    @property
    def total(self) -> int:
        """Number of tiles."""
        return self.rows * self.columns

    def row(self, index: int) -> Box:
        """The cells of a row of tiles."""
        side = self.tile // STRIDE
        return Box(index * side, 0, min(index * side + side, self.cells[0]), self.cells[1])

    def box(self, index: int) -> Box:
        """The cells of one tile."""
        row, column = divmod(index, self.columns)
        side = self.tile // STRIDE
        return Box(row * side, column * side, row * side + side, column * side + side).intersection(
            Box(0, 0, *self.cells)
        )

    def overlapping(self, box: Box) -> Iterator[int]:
        """The tiles that share cells with `box`, in order."""
        side = self.tile // STRIDE
        for row in range(box.top // side, -(-box.bottom // side)):
            for column in range(box.left // side, -(-box.right // side)):
                yield row * self.columns + column
