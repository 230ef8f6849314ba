"""Who codes the tiles of a picture: threads, and for many of them worker processes.

Transforms let go of Python's lock, entropy coders do not: a sixth of a tile's time is spent under it, so that
threads alone could not make use of more than six cores.  Few threads code a tile each, or share one that has none
beside it.  Where there are more, the symbols of each tile go to a process:

    pixels --analysis, here--> y, z --pipe--> worker --pipe--> payload
    payload --pipe--> worker --pipe--> y --synthesis, here--> pixels

A worker is a Python of its own that is spoken to through pipes: neither forked, which threads of LiteRT would not
survive, nor started by multiprocessing, which would run the main script of whoever uses this library again.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, BinaryIO

from vaecodec import descriptors, memory
from vaecodec.cells import Hands
from vaecodec.errors import CodecError
from vaecodec.sharing import sharing
from vaecodec.weights import Model, make_prior

PIXELS_EACH = 1 << 22  # to start a worker takes as long as two of its megapixels
FEW = 3  # threads that do without workers: all of them together have Python's lock for half of the time
PIXELS_OWN = 1 << 16  # of a tile, from which on a thread for itself is better than a share in each: measured
START = "import sys; sys.path[:] = {path!r}; from vaecodec.parallel import serve; serve()"


def cores() -> int:
    """Cores to use: VAECODEC_THREADS, else those that this process may run on."""
    wanted = os.environ.get("VAECODEC_THREADS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A process that holds the prior of one model and calls functions with it."""

    def __init__(self, model: Model) -> None:
        self._process = subprocess.Popen(
            # Isolated: no module of the working directory is taken for one of ours.
            [sys.executable, "-I", "-c", START.format(path=[os.path.abspath(path) for path in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1"),
        )
        self._send((model.config, {n: a for n, a in model.arrays.items() if n.startswith(PRIOR)}, model.shipped))

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(message, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except OSError as exc:
            raise CodecError(DIED) from exc

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(prior, *arguments) over there, with what it returns or raises."""
        self._send((function, arguments))
        assert self._process.stdout is not None
        try:
            fine, value = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as exc:
            raise CodecError(DIED) from exc
        if not fine:
            raise value
        return value

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what it had still to be told
                pipe.close()


PRIOR = ("integer/", "levels/", "tables/", "companding", "centroids", "litert/first", "litert/second")
DIED = "a worker process has died, perhaps for want of memory; fewer threads need less"


def serve() -> None:
    """The life of a worker: the prior, then calls, until nobody listens."""
    import signal

    memory.keep()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells all; who started this one will end it
    descriptors.fill()
    out: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        prior = make_prior(*pickle.load(sys.stdin.buffer))
        while True:
            function, arguments = pickle.load(sys.stdin.buffer)
            try:
                answer = True, function(prior, *arguments)
            except Exception as exc:
                answer = False, exc
            pickle.dump(answer, out, pickle.HIGHEST_PROTOCOL)
            out.flush()
    except (EOFError, BrokenPipeError):
        os._exit(0)


class Crew:
    """Calls functions for the tiles of one picture, in workers where there are enough pixels to pay for them.

    Where few threads are to have many tiles, each has tiles of its own: they seldom want Python's lock at once.
    Elsewhere they share the networks of a tile, which let go of that lock as transforms do.
    """

    def __init__(self, model: Model, tiles: int, pixels: int, threads: int) -> None:
        self._model, self._prior = model, model.prior
        few = threads <= FEW or not sys.executable
        if few:
            count = threads if tiles >= 2 * threads and pixels >= tiles * PIXELS_OWN else 1
        else:
            count = min(threads, tiles // 2, pixels // PIXELS_EACH)
        self._workers: list[Worker] | None = None
        self._free: queue.LifoQueue[Worker | None] = queue.LifoQueue()  # so that no more start than are needed
        self._threads: ThreadPoolExecutor | None = None
        self._bands: ThreadPoolExecutor | None = None
        self._ahead = count + 1
        if count > 1 and few:
            self._threads = ThreadPoolExecutor(count, "vaecodec")
        elif count > 1:
            self._workers = []
            for _ in range(count):
                self._free.put(None)
            # As many as may wait for a worker and, at the same time, for a transform.
            self._threads = ThreadPoolExecutor(2 * self._ahead, "vaecodec")
        elif threads > 1:
            self._bands = ThreadPoolExecutor(threads - 1, "vaecodec")
            self._prior = self._prior._replace(each=sharing(self._bands, threads - 1), threads=threads)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bands is not None:
            self._bands.shutdown()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            for last in (False, True):  # a thread that waits for a worker's answer gets none, and ends
                for worker in self._workers or ():
                    worker.end()
                self._threads.shutdown(wait=not last)

    @property
    def hands(self) -> Hands:
        """For what is done to one tile here, not in a worker."""
        return Hands(self._prior.each, self._threads is not None and self._workers is None)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(prior, *arguments), of a function that a worker can import."""
        if self._workers is None:
            return function(self._prior, *arguments)
        worker = self._free.get()
        try:
            if worker is None:
                worker = Worker(self._model)
                self._workers.append(worker)
            return worker(function, *arguments)
        finally:
            self._free.put(worker)

    def call_and_see(self, function: Callable[..., Any], *arguments: Any, see: Callable[[Any], Any]) -> Any:
        """function(prior, *arguments, see) -> (answer, what see made), which a worker that cannot see leaves to do."""
        if self._workers is None:
            return function(self._prior, *arguments, see)
        answer, found = self.call(function, *arguments)
        return answer, see(found)

    def map(self, function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """function(*job) of each job, in order; jobs are taken as there is room for them, which bounds memory."""
        if self._threads is None:
            for job in jobs:
                yield function(*job)
            return
        waiting: deque[Future[Any]] = deque()
        for job in jobs:
            waiting.append(self._threads.submit(function, *job))
            if len(waiting) >= self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
