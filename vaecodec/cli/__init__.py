"""The command line: its exit codes.  Standard library only; what a command needs loads with it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vaecodec.cli.parser import make_parser

FAILED, INTERRUPTED, TERMINATED = 1, 130, 143


def main(argv: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code; never raises for what a user, a file or a signal does."""
    with _standard_error():
        return _main(argv)


def _main(argv: list[str] | None) -> int:
    with suppress(AttributeError, ValueError):  # a name that the terminal's encoding lacks is shown escaped
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    before, code = signal.getsignal(signal.SIGTERM), 0
    with suppress(ValueError):  # outside of the main thread signals are somebody else's
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # unwinds, so that no temporary file stays
    try:
        code = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()  # here and not at exit, where a failure would be a traceback
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as exc:  # files have their own handler, so this is standard output
        if not isinstance(exc, BrokenPipeError) and not code:  # its reader had enough, or the file's line told it
            print(f"vaecodec: standard output: {exc.strerror or exc}", file=sys.stderr)
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    finally:
        with suppress(ValueError, TypeError):
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _standard_error() -> Iterator[None]:
    """Give a process without a standard error one that goes nowhere."""
    _open_standard_descriptors()
    if sys.stderr is not None:
        yield
        return
    with open(os.devnull, "w") as sys.stderr:
        try:
            yield
        finally:
            sys.stderr = None  # type: ignore[assignment]


def _open_standard_descriptors() -> None:
    """Open each of the descriptors 0, 1 and 2 that is closed, on the null device.

    The next file that is opened would get its number otherwise, and libraries write messages to number 2.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.dup(descriptor)
    os.close(descriptor)


def _run(argv: list[str] | None) -> int:
    try:
        args = make_parser().parse_args(argv)
        from vaecodec.cli import commands

        return getattr(commands, args.command)(args)
    except SystemExit as exc:  # --help, wrong usage, SIGTERM
        return exc.code if isinstance(exc.code, int) else 0
