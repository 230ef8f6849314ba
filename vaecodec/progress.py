"""What a caller is told while work goes on, and what it is told of when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from vaecodec.errors import CodecError

T = TypeVar("T")
Progress = Callable[[int, int], None]  # tiles, or their iterations: those that are done, and all


def counted(items: Iterator[T], total: int, progress: Progress | None) -> Iterator[T]:
    """The same items, with a word to `progress` before the first and after each."""
    tick = ticker(total, progress)
    for item in items:
        tick()
        yield item


def ticker(total: int, progress: Progress | None) -> Callable[[], None]:
    """A function that tells `progress` of one more each time it is called, from whatever thread."""
    if progress is None:
        return lambda: None
    lock, done = threading.Lock(), 0

    def tick() -> None:
        nonlocal done
        with lock:
            done += 1
            progress(done, total)

    progress(0, total)
    return tick


@contextmanager
def named(name: str) -> Iterator[None]:
    """Puts a file's name before what goes wrong with it."""
    try:
        yield
    except CodecError as exc:
        raise type(exc)(f"{name}: {exc}") from exc
