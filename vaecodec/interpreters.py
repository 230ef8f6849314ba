"""LiteRT: flatbuffers in interpreters, quietly, and none of a parent's in the child of a fork."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TypeVar

import numpy as np

from vaecodec.errors import ModelError

T = TypeVar("T")
BANNER = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."


@contextmanager
def without_banner() -> Iterator[None]:
    """Keeps LiteRT's one line of greeting off stderr, which it writes past Python; all else is passed on."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # a process without a standard error, such as a daemon
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            others = [line for line in caught.readlines() if line.strip() != BANNER]
            if others and sys.stderr is not None:  # else descriptor 2 may be any file that was opened since
                with suppress(OSError):
                    os.write(2, b"".join(others))


class Runner:
    """One flatbuffer in an interpreter, which is laid out anew when the shapes of its inputs change.

    Inputs and outputs are in the order of their names.  Raises ModelError on one that cannot be run.
    """

    def __init__(self, content: bytes, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with _as_model_errors():
            self._interpreter = Interpreter(model_content=content, num_threads=threads)
            details = self._interpreter.get_input_details(), self._interpreter.get_output_details()
            self._inputs, self._outputs = (
                [one["index"] for one in sorted(each, key=lambda one: one["name"])] for each in details
            )
        self._shapes: list[tuple[int, ...]] = []

    def __call__(self, inputs: tuple[np.ndarray, ...], see: Callable[[list[np.ndarray]], T]) -> T:
        """see(the outputs for these inputs), which are the interpreter's memory and not to be kept."""
        with _as_model_errors():
            self._lay_out([value.shape for value in inputs])
            for index, value in zip(self._inputs, inputs, strict=True):
                self._interpreter.set_tensor(index, value)
            self._interpreter.invoke()
        return see([self._interpreter.tensor(index)() for index in self._outputs])  # with shapes not known before

    def _lay_out(self, shapes: list[tuple[int, ...]]) -> None:
        if shapes == self._shapes:
            return
        self._shapes = []  # should the layout fail
        for index, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(index, shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


@contextmanager
def _as_model_errors() -> Iterator[None]:
    """What LiteRT raises on a flatbuffer that it cannot run, as a ModelError."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError, IndexError) as exc:
        raise ModelError(f"the model's network cannot be run ({str(exc).partition(chr(10))[0]})") from exc


_first = threading.Lock()
_greeted = False


class Runners:
    """Runners by name, each made of content(name) when it is first used; safe to share between threads."""

    def __init__(self, content: Callable[[str], bytes], threads: int) -> None:
        self._content, self._threads = content, threads
        self._of_parents: list[dict[str, Runner]] = []
        self._begin()
        _alive.add(self)

    def _begin(self) -> None:
        self._made: dict[str, Runner] = {}
        self._lock = threading.Lock()  # interpreters hold their tensors: one call at a time

    def forked(self) -> None:
        """In the child of a fork, which has the interpreters but not their threads.

        To use one, or to let go of it, would wait for ever.
        """
        self._of_parents.append(self._made)
        self._begin()

    def __call__(self, name: str, inputs: tuple[np.ndarray, ...], see: Callable[[list[np.ndarray]], T]) -> T:
        """see(the outputs of a flatbuffer), which are not to be kept; raises ModelError on one that cannot be run."""
        with self._lock:
            if name in self._made:
                return self._made[name](inputs, see)
            # The banner comes with the first interpreter of a process, perhaps as late as it is laid out.
            with _quietly():
                self._made[name] = Runner(self._content(name), self._threads)
                return self._made[name](inputs, see)


class Spare:
    """As Runners of one thread, of which each call has some to itself: as many are made as there are calls at once."""

    def __init__(self, content: Callable[[str], bytes]) -> None:
        self._content = content
        self._free: list[Runners] = []

    def __call__(self, name: str, inputs: tuple[np.ndarray, ...], see: Callable[[list[np.ndarray]], T]) -> T:
        try:
            runners = self._free.pop()
        except IndexError:
            runners = Runners(self._content, 1)
        try:
            return runners(name, inputs, see)
        finally:
            self._free.append(runners)


@contextmanager
def _quietly() -> Iterator[None]:
    global _greeted
    with _first, nullcontext() if _greeted else without_banner():
        yield
        _greeted = True


_alive: weakref.WeakSet[Runners] = weakref.WeakSet()


def _after_fork() -> None:
    global _first
    _first = threading.Lock()
    for runners in list(_alive):
        runners.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
