"""Where tiles lie, in latent cells, and the halo that hides their seams.

+-------+-------+--+      A tile's symbols depend on its own cells alone.  The transforms see it with a
|       |       |  |      halo of `halo` cells from its neighbours, as far as they reach, so that the
+-------+-------+--+      tiles join as if the picture had been transformed whole.
|       |       |  |
+-------+-------+--+
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vaecodec.config import FILTER_REACH, STRIDE, Config

DEFAULT_TILE = 1024  # pixels


class Box(NamedTuple):
    """A rectangle, ends exclusive; in cells unless it says pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    def slices(self) -> tuple[slice, slice]:
        """To index an array [height, width, ...] with."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def inside(self, outer: Box) -> Box:
        """The same rectangle in the coordinates of `outer`."""
        return Box(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)

    def meet(self, other: Box) -> Box:
        """What both cover."""
        begins, ends = map(max, self[:2], other[:2]), map(min, self[2:], other[2:])
        return Box(*begins, *ends)

    def reduce(self, factor: int) -> Box:
        """At 1/factor of the size; the squares that it cuts count."""
        return Box(self.top // factor, self.left // factor, -(-self.bottom // factor), -(-self.right // factor))

    def grow(self, margin: int, limit: tuple[int, int]) -> Box:
        """Widened by `margin` on each side, within (height, width)."""
        return Box(
            max(0, self.top - margin),
            max(0, self.left - margin),
            min(limit[0], self.bottom + margin),
            min(limit[1], self.right + margin),
        )


def window_box(window: tuple[int, int, int, int] | None, picture: tuple[int, int]) -> Box:
    """The pixels of a (top, left, height, width) window, None for all, of a picture of (height, width).

    Raises ValueError where it does not lie within the picture.
    """
    top, left, height, width = window or (0, 0, *picture)
    if min(top, left) < 0 or min(height, width) < 1 or top + height > picture[0] or left + width > picture[1]:
        raise ValueError(f"window {window} does not lie within the picture of {picture[1]} x {picture[0]}")
    return Box(top, left, top + height, left + width)


def halo(config: Config, filtered: bool = False) -> int:
    """Cells that either transform reaches beyond a cell: one a coarse block, half of one a fine block.

    Wavelets of four octaves reach four cells when they are taken, and 46 pixels when samples are made of them, which
    fine blocks see; a filter sees what those make.
    """
    reach = config.coarse_blocks + (config.fine_blocks + 1) // 2
    return max(reach, 4, -(-(46 + 8 * config.fine_blocks + FILTER_REACH * filtered) // STRIDE))


class Grid(NamedTuple):
    """The tiles of a picture, numbered in rows from the top left."""

    height: int  # pixels
    width: int
    tile: int

    @property
    def cells(self) -> tuple[int, int]:
        """Latent cells (h, w) of the whole picture."""
        return -(-self.height // STRIDE), -(-self.width // STRIDE)

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile)

    @property
    def total(self) -> int:
        """How many tiles there are."""
        return self.rows * self.columns

    def row(self, index: int) -> Box:
        """The cells of a row of tiles."""
        side = self.tile // STRIDE
        return Box(index * side, 0, min(index * side + side, self.cells[0]), self.cells[1])

    def box(self, index: int) -> Box:
        """The cells of one tile."""
        row, column = divmod(index, self.columns)
        side = self.tile // STRIDE
        h, w = self.cells
        return Box(row * side, column * side, min(row * side + side, h), min(column * side + side, w))

    def touching(self, box: Box) -> Iterator[int]:
        """The tiles that share cells with `box`, in order."""
        side = self.tile // STRIDE
        for row in range(box.top // side, -(-box.bottom // side)):
            for column in range(box.left // side, -(-box.right // side)):
                yield row * self.columns + column
