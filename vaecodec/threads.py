"""Share work on one image between threads: strips of rows, or planes.

Kernels release the GIL while they run.  BLAS is kept to one thread while small matrix products run: its workers spin
between them, and hold the cores.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar

Item = TypeVar("Item")
Each = Callable[..., Iterable[Any]]  # map, or the map of an executor

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


def run(each: Each, work: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Call work(item) for all items by `each`, which may be as lazy as map is."""
    deque(each(work, items), maxlen=0)


def half_slices(length: int) -> list[slice]:
    """Halves of a range, for two threads."""
    return [slice(0, length // 2), slice(length // 2, length)]


class SingleThreadedBlas:
    """Within it, matrix products run on the calling thread alone; for any number of threads at once."""

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
        """Lets no thread begin or end, until let_go."""
        self._lock.acquire()

    def let_go(self) -> None:
        self._lock.release()


@lru_cache(maxsize=1)
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


single_threaded_blas = SingleThreadedBlas()

if hasattr(os, "register_at_fork"):
    # Not while some thread tells BLAS how many it may use: the child would wait for ever for the lock that takes.
    os.register_at_fork(
        before=single_threaded_blas.hold,
        after_in_parent=single_threaded_blas.let_go,
        after_in_child=lambda: single_threaded_blas.__init__(),  # type: ignore[misc]
    )
