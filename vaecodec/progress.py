"""Report progress, notices and errors of work on files to the caller.

What a conversion leaves out is passed on as a list of messages.  Only the outermost function turns it into warnings:
the filters and the handler of the warnings module belong to the whole process, and what other threads do to them must
not decide whether a source may be removed.  `Console` shows all of it to the user of a command.
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


UNITS = ("kB", "MB", "GB", "TB")
CLEAR = "\r\x1b[K"  # start of the line, erase to its end
SCHEMA = 1  # version of the records of --json: vaecodec/share/records.schema.json


class Console:
    """The output of one run of a command; `failed` has a line for each file that failed, `warnings` counts warnings."""

    def __init__(self, as_json: bool = False, quiet: bool = False, verbose: bool = False, command: str = "") -> None:
        self.as_json, self.quiet, self.verbose, self.command = as_json, quiet, verbose, command
        self.failed: list[str] = []
        self.warnings = 0
        self.progress = not quiet and sys.stderr is not None and sys.stderr.isatty()

    @property
    def failures(self) -> int:
        """The number of files that failed."""
        return len(self.failed)

    def attempt(
        self, name: str, work: Callable[[], tuple[dict[str, Any], str]], product: bool = False, status: str = "done"
    ) -> bool:
        """Work on one file and report the result; whether it succeeded.

        `work` returns the record for --json and the text for people, which goes to stdout if it is the command's
        product.  Errors that a user can cause are reported in one line; any other exception is a bug and passes.
        """
        self.working(name)
        warnings: list[str] = []

        def show(text: str) -> None:
            warnings.append(text)
            self.warn(name, text)

        try:
            with shown_warnings(name, show):
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
        self.say(record | ({"warnings": warnings} if warnings else {}), text, product, status)
        return True

    def say(self, record: dict[str, Any], text: str, product: bool = False, status: str = "done") -> None:
        """Report a file: the record on stdout for --json, else the text."""
        if self.as_json:
            about: dict[str, Any] = {"schema": SCHEMA, "command": self.command, "status": status}
            self.product(json.dumps(about | record))
        elif product:
            self.product(text)
        elif text:
            self.note(text)

    def warn(self, name: str, text: str) -> None:
        """Count and show a warning on a file."""
        self.warnings += 1
        self.note(f"{name}: warning: {text}")

    def skip(self, name: str, why: str) -> None:
        """Report a file that is skipped, as requested."""
        self.say({"input": name, "reason": why}, f"{name}: {why}, left alone", status="skipped")

    def working(self, name: str) -> None:
        """Show the name of the current file, on a terminal only."""
        if self.progress:
            print(CLEAR + one_line(name)[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)

    def say_text(self, text: str) -> None:
        """Print text of several lines to stdout as it is, or its record."""
        if self.as_json:
            self.say({"text": text}, "")
        else:
            print(text, end="" if text.endswith("\n") else "\n", flush=True)

    def product(self, text: str) -> None:
        """Print one line to stdout and flush it."""
        print(one_line(text), flush=True)

    def page(self, text: str) -> None:
        """Print lines to stdout."""
        for line in text.splitlines():
            self.product(line)

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
            self.say({"input": name, "error": message}, "", status="failed")

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


def format_bytes(count: float) -> str:
    """Format a size: 999 bytes, 24.4 kB, 1.2 MB, in powers of 1000."""
    if count < 1000:
        return f"{count:.0f} byte" + "s" * (count != 1)
    for unit in UNITS[:-1]:
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} {UNITS[-1]}"


def format_seconds(seconds: float) -> str:
    """Format a duration: 0.12 s, 31 s, 2:05 min, 1:02:05 h; an int is rounded already."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 and isinstance(seconds, float) else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


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
