"""Tiles of images: what to encode or decode of each, and on which threads.

Where there are many tiles, each thread codes tiles of its own; elsewhere all threads share one tile, by strips of rows.
A tile takes a few hundred calls of kernels and of the entropy coder, which release the GIL for most of their time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vaecodec.config import FINE_MAX, STRIDE
from vaecodec.container.image_file import Parsed
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms import Box, Grid
from vaecodec.transforms.wavelet import Coefficients, Values

T = TypeVar("T")
Latents = Coefficients  # of a tile, as the analysis returns them
OWN_TILE_PIXELS = 1 << 16  # from this size of tiles on, a thread for each is faster than all for one: measured
SAMPLE_BITS = 14  # samples are in units of 2**-14 of 255 levels


class DecodePlan(NamedTuple):
    """What to decode of an image: `target` in pixels, and the factor by which to reduce its sides."""

    grid: Grid
    target: Box
    reduce: int

    @property
    def cells(self) -> Box:
        """The cells that the target touches."""
        return self.target.reduce(STRIDE)

    @property
    def output(self) -> Box:
        """The target in reduced pixels."""
        return self.target.reduce(self.reduce)

    def output_of(self, cells: Box) -> Box:
        """The part of these cells in the output, in reduced pixels."""
        return pixel_box(cells).intersection(self.target).reduce(self.reduce)


class DecodeTask(NamedTuple):
    """One file of a batch and what to decode of it; error messages begin with `name`."""

    data: bytes
    parsed: Parsed
    plan: DecodePlan
    name: str = ""
    values: Sequence[Values] = ()  # of all tiles, where they are known already
    is_fine: bool = False  # whether to return u16 of 0..FINE_MAX

    @property
    def tile_count(self) -> int:
        """Tiles to decode."""
        return sum(1 for _ in self.plan.grid.overlapping(self.plan.cells))


class EncodeTask(NamedTuple):
    """One tile to encode: its pixels with those of its halo, in whole cells."""

    pixels: np.ndarray  # u8[H, W, C]
    inner: Box  # cells of the tile itself
    within: tuple[int, int]  # rows and columns of `pixels` that belong to the image
    weights: np.ndarray | None = None  # f32[16 h, 16 w] of the pixels of the tile


class Schedule:
    """Threads for a number of tiles with a number of pixels; a context manager.

    `inner` are the threads that share a tile.
    """

    def __init__(self, tiles: int, pixels: int, threads: int) -> None:
        apart = threads > 1 and tiles >= 2 * threads and pixels >= tiles * OWN_TILE_PIXELS
        self._pool = ThreadPoolExecutor(threads if apart else threads - 1, "vaecodec") if threads > 1 else None
        self._ahead = threads + 1 if apart else 0
        self.inner = Threads(threads, self._pool) if self._pool and not apart else ONE_THREAD

    @classmethod
    def of_grids(cls, counts: Iterable[tuple[Grid, int]], threads: int, work: int = 1) -> Schedule:
        """Schedule a number of tiles of each grid, each of which takes `work` times as long as coding it."""
        tiles, pixels = 0, 0
        for grid, count in counts:
            tiles += count
            pixels += work * count * min(grid.tile, grid.height) * min(grid.tile, grid.width)
        return cls(tiles, pixels, threads)

    @classmethod
    def for_planes(cls, tiles: int, threads: int) -> Schedule:
        """Schedule tiles whose planes are coded on `inner`, and that wait for no other work on the same threads."""
        schedule = cls(0, 0, 1)
        if threads > 1:
            schedule._pool = ThreadPoolExecutor(threads, "vaecodec")
            schedule._ahead = threads + 1 if tiles > 1 else 0
            schedule.inner = Threads(threads, schedule._pool)
        return schedule

    def __enter__(self) -> Schedule:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[..., T], tasks: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """Yield function(*task) for each task, in order; few tasks are taken ahead, which bounds memory."""
        if not self._ahead or self._pool is None:
            for task in tasks:
                yield function(*task)
            return
        pending: deque[Future[T]] = deque()
        for task in tasks:
            pending.append(self._pool.submit(function, *task))
            if len(pending) >= self._ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def group_consecutive(tasks: Iterable[T], key: Callable[[T], Any], size: int) -> Iterator[tuple[T, ...]]:
    """Split tasks into groups of at most `size` neighbours with the same key."""
    for _, neighbours in groupby(tasks, key):
        while group := tuple(islice(neighbours, size)):
            yield group


def join_tiles(output: Box, tiles: Iterable[tuple[Box, np.ndarray]]) -> Iterator[np.ndarray]:
    """Join tiles (place, pixels [h, w, C]), in order, into strips [n, W, C] of the output."""
    strip = np.empty(0, np.uint8)
    for place, pixels in tiles:
        if place.shape[1] == output.shape[1] and pixels.flags.c_contiguous and pixels.flags.writeable:
            yield pixels  # without a copy, which would take longer than the inverse wavelet
            continue
        if place.left == output.left:
            strip = np.empty((place.shape[0], output.shape[1], pixels.shape[2]), pixels.dtype)
        strip[:, place.left - output.left : place.right - output.left] = pixels
        if place.right == output.right:
            yield strip


def pixel_box(cells: Box) -> Box:
    """The pixels of cells, including those beyond the edge of the image."""
    return Box(*(STRIDE * edge for edge in cells))


def cut_padded(pixels: np.ndarray, cells: Box) -> np.ndarray:
    """u8[H', W', C] of these cells; the last row and column are repeated where the image ends inside a cell."""
    height, width = pixels.shape[:2]
    part = pixels[pixel_box(cells).intersection(Box(0, 0, height, width)).slices()]
    missing = [STRIDE * cell_count - length for cell_count, length in zip(cells.shape, part.shape[:2], strict=True)]
    return np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge") if any(missing) else part


def halo_free_area(tile: Box, cells: tuple[int, int], image: tuple[int, int], reach: int) -> Box:
    """Pixels of a tile that do not depend on other tiles, relative to the tile's corner; empty if there are none.

    Args:
        tile: its cells.
        cells: (h, w) of all cells around it.
        image: (height, width) in pixels.
        reach: cells by which other tiles reach into this one.
    """
    top, left = reach * (tile.top > 0), reach * (tile.left > 0)
    bottom = tile.shape[0] - reach * (tile.bottom < cells[0])
    right = tile.shape[1] - reach * (tile.right < cells[1])
    inside = Box(0, 0, image[0] - STRIDE * tile.top, image[1] - STRIDE * tile.left)
    area = pixel_box(Box(top, left, bottom, right)).intersection(inside)
    return area if min(area.shape) > 0 else Box(0, 0, 0, 0)


def reduce_samples(samples: np.ndarray, factor: int, is_fine: bool = False) -> np.ndarray:
    """u8[H / factor, W / factor, C], or u16 of 0..FINE_MAX: means of i16[H, W, C], unit 2**-14, halves rounded up."""
    height, width, channels = samples.shape
    squares = samples.reshape(height // factor, factor, width // factor, factor, channels)
    sums = squares.sum(3, dtype=np.int32).sum(1, dtype=np.int64)
    bits = SAMPLE_BITS + 2 * (factor.bit_length() - 1)
    white, dtype = (FINE_MAX, np.uint16) if is_fine else (255, np.uint8)
    return np.clip((white * (2 * sums + (1 << bits)) + (1 << bits)) >> (bits + 1), 0, white).astype(dtype)
