"""Work on a pool of processes that outlives the death of any of them, and leaves none behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from multiprocessing import connection
from typing import Any, TypeVar

Item = TypeVar("Item")
ENDED = 143  # the exit code of a process that was asked to end


def map_unordered(
    work: Callable[[Any], Any], items: Iterable[Item], processes: int
) -> Generator[tuple[Item, Any], None, None]:
    """(item, work(item)) as they are done, in any order; the result is None where the process died, twice.

    `items` are drawn no faster than the work goes.  `work` must be picklable, and catch what it can.
    """
    waiting = iter(items)
    running: dict[Future[Any], Item] = {}
    with WorkerPool(processes) as pool:
        while True:
            for item in islice(waiting, 2 * processes - len(running)):
                running[pool.submit(work, item)] = item
            if not running:
                return
            orphans = []
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    orphans.append(item)
                else:
                    yield item, result
            if orphans:  # one of them may be to blame: each gets another chance, alone
                orphans += running.values()
                running.clear()
                pool.renew()
                for item in orphans:
                    yield item, _alone(work, item)


def _alone(work: Callable[[Item], Any], item: Item) -> Any:
    with WorkerPool(1) as pool:
        try:
            return pool.submit(work, item).result()
        except BrokenProcessPool:
            return None


class WorkerPool:
    """Fresh interpreters: a forked one would share what a BLAS or TensorFlow has begun in this one."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self.renew()

    def renew(self) -> None:
        """Takes new processes, in the place of none or of dead ones."""
        context = multiprocessing.get_context("spawn")
        self._pids = context.SimpleQueue()
        self._pool = ProcessPoolExecutor(self._processes, context, _begin, (self._pids,))

    def submit(self, work: Callable[[Item], Any], item: Item) -> Future[Any]:
        try:
            return self._pool.submit(_endable, work, item)
        except BrokenProcessPool as exc:
            future: Future[Any] = Future()
            future.set_exception(exc)
            return future

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Waits for the processes; after an error or Control-C they undo what they are at, and end."""
        while kind is not None and not self._pids.empty():
            with suppress(OSError):
                os.kill(self._pids.get(), signal.SIGTERM)
        self._pool.shutdown(wait=True, cancel_futures=True)


def _begin(pids: Any) -> None:
    """In a new process: it ends with its parent or at its word, and says nothing itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, which gets it too, decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff writes to it
    pids.put(os.getpid())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _endable(work: Callable[[Item], Any], item: Item) -> Any:
    try:
        return work(item)
    except SystemExit:  # asked to end: what the work had begun is undone by now
        os._exit(ENDED)
