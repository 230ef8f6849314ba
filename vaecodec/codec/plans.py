"""What there is to do for a picture: its tiles to encode, and those to decode for what is wanted of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vaecodec.config import STRIDE
from vaecodec.container.image_file import Parsed
from vaecodec.transforms.tiling import Box, Grid
from vaecodec.transforms.wavelet import Coefficients

T = TypeVar("T")
Latents = Coefficients  # of a tile, as analysis makes them


class Plan(NamedTuple):
    """What to decode: pixels of a picture, `reduce` by `reduce` of them to one that comes out."""

    grid: Grid
    target: Box
    reduce: int

    @property
    def cells(self) -> Box:
        """The cells that the target touches."""
        return self.target.reduce(STRIDE)

    def reduced(self, pixels: Box) -> Box:
        """A rectangle of the picture in pixels of what comes out; those that it cuts count."""
        return pixels.reduce(self.reduce)

    @property
    def out(self) -> Box:
        """What comes out."""
        return self.reduced(self.target)

    def shown(self, cells: Box) -> Box:
        """What comes out of these cells."""
        return self.reduced(pixels_of(cells).meet(self.target))


class Part(NamedTuple):
    """One file of a batch, and what to decode of it; `name` is what errors call it, if it has one."""

    data: bytes
    parsed: Parsed
    plan: Plan
    name: str = ""

    @property
    def total(self) -> int:
        """Tiles to decode."""
        return sum(1 for _ in self.plan.grid.touching(self.plan.cells))


class Job(NamedTuple):
    """One tile to encode."""

    seen: np.ndarray  # u8[H, W, C]: its pixels and those of its margin, whole cells
    inner: Box  # its cells among those
    within: tuple[int, int]  # pixels of `seen` that are the picture's


def alike(jobs: Iterable[T], key: Callable[[T], Any], most: int) -> Iterator[tuple[T, ...]]:
    """The jobs in order, in groups of at most `most` neighbours that have the same key."""
    for _, neighbours in groupby(jobs, key):
        while group := tuple(islice(neighbours, most)):
            yield group


def strips_of(out: Box, squares: Iterable[tuple[Box, np.ndarray]]) -> Iterator[np.ndarray]:
    """The rows u8[n, W, C] that tiles, (place, pixels) in order, make up."""
    strip = np.empty(0, np.uint8)
    for place, pixels in squares:
        if place.shape[1] == out.shape[1] and pixels.flags.c_contiguous and pixels.flags.writeable:
            yield pixels  # as it is: to copy a picture takes longer than its wavelets
            continue
        if place.left == out.left:
            strip = np.empty((place.shape[0], out.shape[1], pixels.shape[2]), np.uint8)
        strip[:, place.left - out.left : place.right - out.left] = pixels
        if place.right == out.right:
            yield strip


def cut(pixels: np.ndarray, cells: Box) -> np.ndarray:
    """u8[H', W', C] of the given cells, the picture's last row and column repeated where it ends inside one."""
    height, width = pixels.shape[:2]
    part = pixels[pixels_of(cells).meet(Box(0, 0, height, width)).slices()]
    short = [STRIDE * want - have for want, have in zip(cells.shape, part.shape[:2], strict=True)]
    return np.pad(part, ((0, short[0]), (0, short[1]), (0, 0)), "edge") if any(short) else part


def pixels_of(cells: Box) -> Box:
    """The pixels of cells, those beyond the picture's edge included."""
    return Box(*(STRIDE * edge for edge in cells))


def undisturbed(tile: Box, cells: tuple[int, int], picture: tuple[int, int], reach: int) -> Box:
    """Pixels of a tile among (h, w) cells, from its own corner on, that are of the picture [H, W] and that cells of
    other tiles, which reach so far, do not touch; of no area where there are none.
    """
    top, left = reach * (tile.top > 0), reach * (tile.left > 0)
    bottom = tile.shape[0] - reach * (tile.bottom < cells[0])
    right = tile.shape[1] - reach * (tile.right < cells[1])
    own = Box(0, 0, picture[0] - STRIDE * tile.top, picture[1] - STRIDE * tile.left)
    found = pixels_of(Box(top, left, bottom, right)).meet(own)
    return found if min(found.shape) > 0 else Box(0, 0, 0, 0)
