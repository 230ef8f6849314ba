"""Share work on one image between threads: strips of rows, or planes.  Kernels release the GIL while they run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar

Item = TypeVar("Item")

STRIPS_EACH = 2  # strips of a thread, so that one that is late leaves some of its own to another
LEAST_ROWS = 4  # of a strip: its neighbours' first rows are computed twice


def available_cores() -> int:
    """Cores to use: $VAECODEC_THREADS, else those that this process may run on."""
    asked = os.environ.get("VAECODEC_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """A number of threads, the calling one among them; with one, everything happens in it."""

    def __init__(self, count: int = 1, pool: ThreadPoolExecutor | None = None) -> None:
        self.count = count if pool is not None else 1
        self._pool = pool

    def run(self, work: Callable[[Item], Any], items: Iterable[Item]) -> None:
        """Call work(item) for each item, in any order; raises what the first call to fail raised."""
        todo = list(items)
        if self._pool is None or len(todo) < 2:
            for item in todo:
                work(item)
            return
        rest, lock = iter(todo), Lock()

        def take() -> None:
            while True:
                with lock:
                    item = next(rest, None)
                    if item is None:
                        return
                work(item)

        others = [self._pool.submit(take) for _ in range(min(self.count, len(todo)) - 1)]
        try:
            take()
        finally:
            with lock:
                for _ in rest:  # after a failure: nobody begins another
                    pass
            for other in others:
                if not other.cancel():
                    other.exception()
        for other in others:
            if not other.cancelled():
                other.result()

    def strips(self, rows: int) -> list[tuple[int, int]]:
        """(first row, row beyond the last) of strips that all threads have a share of."""
        count = 1 if self._pool is None else max(1, min(STRIPS_EACH * self.count, rows // LEAST_ROWS))
        edges = [rows * n // count for n in range(count + 1)]
        return list(pairwise(edges))

    def over_rows(self, rows: int, work: Callable[[tuple[int, int]], Any]) -> None:
        """Call work((top, bottom)) for strips of so many rows."""
        self.run(work, self.strips(rows))


ONE_THREAD = Threads()


@contextmanager
def pool_of(count: int) -> Iterator[Threads]:
    """So many threads for the time of a `with` block."""
    if count < 2:
        yield ONE_THREAD
        return
    with ThreadPoolExecutor(count - 1, "vaecodec") as pool:
        yield Threads(count, pool)
