"""Share work on one image between threads: strips of rows, or planes.

Kernels release the GIL while they run.  BLAS is kept to one thread while small matrix products run: its workers spin
between them, and hold the cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar

from vaecodec.errors import CodecError

Item = TypeVar("Item")

VARIABLE = "VAECODEC_THREADS"
STRIPS_PER_THREAD = 2  # so that a late thread leaves strips to another
LEAST_ROWS = 4  # of a strip: the rows next to it are computed twice


def available_cores() -> int:
    """The number of cores to use: $VAECODEC_THREADS, else those that this process may run on.

    Raises CodecError where the variable is not a whole number of 1 or more.
    """
    value = os.environ.get(VARIABLE, "").strip()
    if value.isdecimal() and int(value):
        return int(value)
    if value:
        raise CodecError(f"the environment variable {VARIABLE} is {value!r}, expected a whole number of 1 or more")
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """A number of threads, including the calling one; one thread runs all work itself."""

    def __init__(self, count: int = 1, pool: ThreadPoolExecutor | None = None) -> None:
        self.count = count if pool is not None else 1
        self._pool = pool

    def run(self, work: Callable[[Item], Any], items: Iterable[Item]) -> None:
        """Call work(item) for each item, in any order; raises the exception of the first call that fails."""
        items = list(items)
        if self._pool is None or len(items) < 2:
            for item in items:
                work(item)
            return
        rest, lock = iter(items), Lock()

        def take() -> None:
            while True:
                with lock:
                    item = next(rest, None)
                    if item is None:
                        return
                work(item)

        others = [self._pool.submit(take) for _ in range(min(self.count, len(items)) - 1)]
        try:
            take()
        finally:
            with lock:
                for _ in rest:  # after a failure no thread begins another item
                    pass
            for other in others:
                if not other.cancel():
                    other.exception()
        for other in others:
            if not other.cancelled():
                other.result()

    def strips(self, rows: int) -> list[tuple[int, int]]:
        """(first row, row beyond the last) of strips of so many rows, some for each thread."""
        count = 1 if self._pool is None else max(1, min(STRIPS_PER_THREAD * self.count, rows // LEAST_ROWS))
        edges = [rows * n // count for n in range(count + 1)]
        return list(pairwise(edges))

    def over_rows(self, rows: int, work: Callable[[tuple[int, int]], Any]) -> None:
        """Call work((top, bottom)) for each of these strips."""
        self.run(work, self.strips(rows))


ONE_THREAD = Threads()


class SingleThreadedBlas:
    """A context in which matrix products run on the calling thread alone; any number of threads may enter it."""

    def __init__(self) -> None:
        self._lock, self._users, self._limit = Lock(), 0, nullcontext()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0 and os.environ.get("OPENBLAS_NUM_THREADS") != "1":
                self._limit = _controller().limit(limits=1, user_api="blas")
                self._limit.__enter__()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limit.__exit__(None, None, None)
                self._limit = nullcontext()

    def hold(self) -> None:
        """Let no thread enter or leave, until `release`."""
        self._lock.acquire()

    def release(self) -> None:
        """End `hold`."""
        self._lock.release()


@lru_cache(maxsize=1)
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


single_threaded_blas = SingleThreadedBlas()

if hasattr(os, "register_at_fork"):
    # A fork while a thread sets the number of BLAS threads would leave BLAS's lock taken in the child for ever.
    os.register_at_fork(
        before=single_threaded_blas.hold,
        after_in_parent=single_threaded_blas.release,
        after_in_child=lambda: single_threaded_blas.__init__(),  # type: ignore[misc]
    )
