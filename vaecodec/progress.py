"""Report progress, notices and errors of work on files to the caller.

What a conversion leaves out is passed on as a list of messages.  Only the outermost function turns it into warnings:
the filters and the handler of the warnings module belong to the whole process, and what other threads do to them must
not decide whether a source may be removed.  `Console` shows all of it to whoever runs a command.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from vaecodec.errors import CodecError, SkippedError

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


CLEAR = "\r\x1b[K"  # start of the line, erase to its end


class Console:
    """The output of one run of a command; `failed` has a line for each file that failed."""

    def __init__(self, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        self.failed: list[str] = []
        self.progress = not quiet and sys.stderr is not None and sys.stderr.isatty()

    @property
    def failures(self) -> int:
        """The number of files that failed."""
        return len(self.failed)

    def attempt(self, name: str, work: Callable[[], tuple[dict[str, Any], str]], product: bool = False) -> bool:
        """Work on one file and report the result; whether it succeeded.

        `work` returns the record for --json and the text for people, which goes to stdout if it is the command's
        product.  Errors that a user can cause are reported in one line; any other exception is a bug and passes.
        """
        self.working(name)
        try:
            with shown_warnings(name, lambda text: self.note(f"{name}: warning: {text}")):
                record, text = work()
        except BrokenPipeError:
            raise
        except SkippedError as exc:
            self.skip(name, about(name, exc))
            return True
        except (CodecError, OSError, MemoryError) as exc:
            self.fail(name, exc)
            return False
        finally:
            self.clear()
        self.say(record, text, product)
        return True

    def say(self, record: dict[str, Any], text: str, product: bool = False) -> None:
        """Report a file: the record on stdout for --json, else the text."""
        if self.as_json:
            self.product(json.dumps(record))
        elif product:
            self.product(text)
        else:
            self.note(text)

    def skip(self, name: str, why: str) -> None:
        """Report a file that is skipped, as requested."""
        self.say({"input": name, "skipped": why}, f"{name}: {why}, left alone")

    def working(self, name: str) -> None:
        """Show the name of the current file, on a terminal only."""
        if self.progress:
            print(CLEAR + one_line(name)[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)

    def product(self, text: str) -> None:
        """Print one line to stdout and flush it."""
        print(one_line(text), flush=True)

    def note(self, text: str) -> None:
        """Print one line to stderr, unless quiet."""
        if not self.quiet:
            self.error(text)

    def detail(self, text: str) -> None:
        """Print one line to stderr if verbose."""
        if self.verbose:
            self.error(text)

    def fail(self, name: str, exc: BaseException) -> None:
        """Record and report a failure: a line on stderr, and with --json one on stdout too."""
        message = explain(name, exc)
        self.failed.append(f"vaecodec: {name}: {message}")
        self.error(self.failed[-1])
        if self.as_json:
            self.product(json.dumps({"input": name, "error": message}))

    def error(self, text: str) -> None:
        """Print one line to stderr, if there is one: print to a stream of None would go to stdout."""
        self.clear()
        if sys.stderr is not None:
            with suppress(OSError):
                print(one_line(text), file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Erase the progress line."""
        if self.progress:
            print(CLEAR, end="", file=sys.stderr, flush=True)


@contextmanager
def shown_warnings(name: str, show: Callable[[str], Any]) -> Iterator[None]:
    """Pass the text of each different warning to `show`, without the file's name; for display only."""
    texts: set[str] = set()

    def once(message: object, *_: object) -> None:
        text = about(name, message)
        if text not in texts:  # Pillow checks a large image each time it opens it
            texts.add(text)
            show(text)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in (UserWarning, RuntimeWarning):  # ours, and Pillow's on large images
            warnings.simplefilter("always", kind)
        warnings.showwarning = once  # type: ignore[assignment]
        yield


@contextmanager
def hushed(verbose: bool = False) -> Iterator[None]:
    """Keep the messages of libraries off stderr, unless verbose: ours are one line a file.

    libtiff writes to descriptor 2 and cannot be told not to, so Python's stderr moves to a copy of it.
    """
    import logging

    own, copy = sys.stderr, -1
    if not verbose and own is not None:
        with suppress(OSError):  # descriptor 2 may be closed
            copy = os.dup(2)
    if copy < 0:
        yield
        return
    if sys.stderr is sys.__stderr__:
        sys.stderr = open(copy, "w", 1, own.encoding, own.errors, closefd=False)  # noqa: SIM115
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        os.dup2(copy, 2)
        os.close(copy)
        sys.stderr = own


def explain(name: str, exc: BaseException) -> str:
    """The message of an error, for a line that begins with `name`."""
    if isinstance(exc, MemoryError):
        return "not enough memory"
    if isinstance(exc, FileExistsError):
        return f"{exc.filename} exists already (-f overwrites it)"
    if isinstance(exc, IsADirectoryError) and exc.filename == name:
        return "is a folder (-r takes what is in it)"
    if isinstance(exc, OSError) and exc.strerror:
        named = isinstance(exc.filename, str) and exc.filename != name
        return f"{exc.filename}: {exc.strerror}" if named else exc.strerror
    return about(name, exc) or type(exc).__name__


def about(name: str, message: object) -> str:
    """The message without the name that it may begin with."""
    return str(message).removeprefix(f"{name}: ")


def one_line(text: str) -> str:
    """The text with control characters escaped: file names must not break lines or steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
