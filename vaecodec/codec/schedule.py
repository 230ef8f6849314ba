"""Schedule the tiles of images on threads.

Where there are many tiles, each thread has tiles of its own; elsewhere all threads share one tile, by strips of rows.
A tile takes a few hundred calls of kernels and of the entropy coder, which spend most of their time without the GIL.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vaecodec.threads import ONE_THREAD, Threads

PIXELS_OWN = 1 << 16  # of a tile, from which on a thread for itself is better than a share in each: measured


class Schedule:
    """Threads for so many tiles with so many pixels; a context manager."""

    def __init__(self, tiles: int, pixels: int, threads: int) -> None:
        apart = threads > 1 and tiles >= 2 * threads and pixels >= tiles * PIXELS_OWN
        self._pool = ThreadPoolExecutor(threads if apart else threads - 1, "vaecodec") if threads > 1 else None
        self._ahead = threads + 1 if apart else 0
        self.inner = Threads(threads, self._pool) if self._pool and not apart else ONE_THREAD  # those that share a tile

    def __enter__(self) -> Schedule:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """function(*job) of each job, in order; jobs are taken as there is room for them, which bounds memory."""
        if not self._ahead or self._pool is None:
            for job in jobs:
                yield function(*job)
            return
        waiting: deque[Future[Any]] = deque()
        for job in jobs:
            waiting.append(self._pool.submit(function, *job))
            if len(waiting) >= self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def schedule_of(counts: Iterable[tuple[Any, int]], threads: int, work: int = 1) -> Schedule:
    """For so many of the tiles of each grid, each of which is `work` times as much to do as it is to code."""
    tiles, pixels = 0, 0
    for grid, count in counts:
        tiles += count
        pixels += work * count * min(grid.tile, grid.height) * min(grid.tile, grid.width)
    return Schedule(tiles, pixels, threads)
