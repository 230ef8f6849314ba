"""Report progress, notices and errors of work on files to the caller.

What a conversion leaves out is passed on as a list of messages.  Only the outermost function turns it into warnings:
the filters and the handler of the warnings module belong to the whole process, and what other threads do to them must
not decide whether a source may be removed.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from vaecodec.errors import CodecError

T = TypeVar("T")
Progress = Callable[[int, int], None]  # (done, total) of tiles, or of their iterations


def counted(items: Iterator[T], total: int, progress: Progress | None) -> Iterator[T]:
    """Yield the same items; call `progress` before the first and after each."""
    tick = ticker(total, progress)
    for item in items:
        tick()
        yield item


def ticker(total: int, progress: Progress | None) -> Callable[[], None]:
    """A function that adds one to what is done and reports it to `progress`; any thread may call it."""
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
    """Put a file's name before the message of a CodecError."""
    try:
        yield
    except CodecError as exc:
        raise type(exc)(f"{name}: {exc}") from exc


def warn(messages: list[str], stacklevel: int = 2) -> None:
    """Issue each message as a UserWarning; `stacklevel` counts from the caller, which is 1."""
    for message in messages:
        warnings.warn(message, UserWarning, stacklevel=stacklevel + 1)


@contextmanager
def collect_messages(messages: list[str] | None) -> Iterator[list[str]]:
    """Give the caller's list, or without one a new list that becomes warnings at the end."""
    own: list[str] = []
    yield own if messages is None else messages
    warn(own, stacklevel=4)  # past contextlib and the function that uses this
