"""Map a function over items in worker processes; the death of a worker costs only the item it worked on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection, resource_tracker
from typing import Any, TypeVar

Item = TypeVar("Item")
TERMINATED = 143  # exit status after SIGTERM


def map_unordered(
    work: Callable[[Any], Any], items: Iterable[Item], processes: int
) -> Generator[tuple[Item, Any], None, None]:
    """Yield (item, work(item)) in order of completion; the result is None if the item's worker died twice.

    Items are taken from the iterable no faster than they are processed.  `work` must be picklable and should catch
    its exceptions.
    """
    waiting = iter(items)
    running: dict[Future[Any], Item] = {}
    with WorkerPool(processes) as pool:
        while True:
            for item in islice(waiting, 2 * processes - len(running)):
                running[pool.submit(work, item)] = item
            if not running:
                return
            lost = []
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    lost.append(item)
                else:
                    yield item, result
            if lost:  # one of these items may have killed the worker: each is tried again in a worker of its own
                lost += running.values()
                running.clear()
                pool.restart()
                for item in lost:
                    yield item, _run_alone(work, item)


def _run_alone(work: Callable[[Item], Any], item: Item) -> Any:
    with WorkerPool(1) as pool:
        try:
            return pool.submit(work, item).result()
        except BrokenProcessPool:
            return None


class WorkerPool:
    """Worker processes, spawned: forked ones would share the threads' state of BLAS or TensorFlow."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self.restart()

    def restart(self) -> None:
        """Replace the workers, after one has died."""
        self._pool = ProcessPoolExecutor(self._processes, multiprocessing.get_context("spawn"), _start_worker)

    def submit(self, work: Callable[[Item], Any], item: Item) -> Future[Any]:
        """Schedule work(item), and start a worker if none is idle."""
        try:
            with _interrupts_blocked():
                return self._pool.submit(_run, work, item)
        except BrokenProcessPool as exc:
            future: Future[Any] = Future()
            future.set_exception(exc)
            return future

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Wait for the workers; after an exception terminate them, so that they remove their temporary files."""
        if kind is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT while workers are started; they inherit the mask.

    Control-C reaches all processes of a terminal.  A worker would print a traceback until it has a handler.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which unblocks SIGINT when it starts its process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """Prepare a new worker: it ends with its parent or on SIGTERM, ignores Control-C, and prints nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and terminates its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff writes to it


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _run(work: Callable[[Item], Any], item: Item) -> Any:
    try:
        return work(item)
    except SystemExit:  # on SIGTERM; `work` has removed its temporary files
        os._exit(TERMINATED)
