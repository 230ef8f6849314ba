"""What a command says and where: its product and JSON on stdout, everything else on stderr, one line a file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from vaecodec.errors import CodecError, SkippedError

CLEAR = "\r\x1b[K"  # start of the line, erase to its end


class Console:
    """One run of a command; `failed` has a line for each file that something went wrong with."""

    def __init__(self, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        self.failed: list[str] = []
        self.progress = not quiet and sys.stderr is not None and sys.stderr.isatty()

    @property
    def failures(self) -> int:
        """How many there are."""
        return len(self.failed)

    def attempt(self, name: str, work: Callable[[], tuple[dict[str, Any], str]], product: bool = False) -> bool:
        """Does the work on one file and says how it went; whether it went well.

        `work` returns the record for --json and the prose for people, which goes to stdout where it is the
        command's product.  What a user can cause is reported in one line; anything else is a bug and passes.
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
        """What became of a file: the record on stdout for --json, else the prose."""
        if self.as_json:
            self.product(json.dumps(record))
        elif product:
            self.product(text)
        else:
            self.note(text)

    def skip(self, name: str, why: str) -> None:
        """Reports a file that is left alone, as it was asked for."""
        self.say({"input": name, "skipped": why}, f"{name}: {why}, left alone")

    def working(self, name: str) -> None:
        """Shows what is being done, on a terminal only."""
        if self.progress:
            print(CLEAR + one_line(name)[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)

    def product(self, text: str) -> None:
        """One line on stdout, seen at once by whoever reads it."""
        print(one_line(text), flush=True)

    def note(self, text: str) -> None:
        """One line on stderr, unless quiet."""
        if not self.quiet:
            self.error(text)

    def detail(self, text: str) -> None:
        """One line on stderr where asked for with -v."""
        if self.verbose:
            self.error(text)

    def fail(self, name: str, exc: BaseException) -> None:
        """Counts and reports a failure: a line on stderr, and with --json one on stdout too."""
        message = explain(name, exc)
        self.failed.append(f"vaecodec: {name}: {message}")
        self.error(self.failed[-1])
        if self.as_json:
            self.product(json.dumps({"input": name, "error": message}))

    def error(self, text: str) -> None:
        """One line on stderr, if anyone can see it: print to a stream of None would go to stdout."""
        self.clear()
        if sys.stderr is not None:
            with suppress(OSError):
                print(one_line(text), file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Takes the progress back."""
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
    """Keeps the chatter of libraries off stderr, unless verbose: ours is one line a file.

    libtiff writes to descriptor 2 and cannot be told not to, so Python's stderr moves to a copy of it.
    """
    import logging

    own, copy = sys.stderr, -1
    if not verbose and own is not None:
        with suppress(OSError):  # where descriptor 2 is closed there is nothing to keep quiet
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
    """An error in the words of a user who has been told `name` already."""
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
    """A message without the name that it may begin with."""
    return str(message).removeprefix(f"{name}: ")


def one_line(text: str) -> str:
    """Text that stays on its line and cannot steer the terminal, whatever a file is called."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
