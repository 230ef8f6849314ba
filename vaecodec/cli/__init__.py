"""Run the command line: parse it, call the command, and return the exit status.

Exit status: 0 success; 1 at least one file failed, the others were processed; 2 usage error; 130 interrupted;
143 terminated.  Only the standard library is imported here; a command's module imports what the command needs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vaecodec.cli.parser import make_parser
from vaecodec.errors import CodecError
from vaecodec.progress import Console

FAILED, INTERRUPTED, TERMINATED = 1, 130, 143
COMMANDS = {
    "compression": ("compress", "decompress", "verify"),
    "inspection": ("info", "filetype", "models", "completion"),
    "benchmark": ("bench",),
    "models": ("train", "freeze", "calibrate", "pack", "unpack", "sample", "vary", "interpolate", "score"),
}
MODULES = {command: module for module, commands in COMMANDS.items() for command in commands}
EXTRAS = {
    "train": "train",
    "freeze": "train",
    "bench": "bench",
    "completion": "completion",
}  # optional dependencies of commands


def main(argv: list[str] | None = None) -> int:
    """Run one command line; raises nothing for errors of users, files or signals."""
    with _standard_error():
        return _main(argv)


def _main(argv: list[str] | None) -> int:
    with suppress(AttributeError, ValueError):  # show names that the terminal's encoding lacks escaped
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    handler, code = signal.getsignal(signal.SIGTERM), 0
    with suppress(ValueError):  # only the main thread may set handlers
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that temporary files are removed
    try:
        code = _run_command(argv)
        if sys.stdout is not None:
            sys.stdout.flush()  # a failure at exit would print a traceback
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as exc:  # of standard output: commands report errors of files
        if not isinstance(exc, BrokenPipeError) and not code:  # no message if the reader has left or a file has failed
            print(f"vaecodec: standard output: {exc.strerror or exc}", file=sys.stderr)
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    finally:
        with suppress(ValueError, TypeError):
            signal.signal(signal.SIGTERM, handler)


def _run_command(argv: list[str] | None) -> int:
    try:
        args = make_parser().parse_args(argv)
        name = args.command
        console = Console(args.json, args.quiet, args.verbose, name)
        args.argv = sys.argv[1:] if argv is None else argv
        if os.environ.get("VAECODEC_THREADS"):
            _check_threads(args)
        extra = EXTRAS.get(name)
        if extra != "train":  # OpenBLAS threads slow the codec down; set before NumPy is imported
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        try:
            command = getattr(importlib.import_module(f"vaecodec.cli.{MODULES[name]}"), name)
            return int(command(args, console))
        except ImportError as exc:
            if extra is None or (exc.name or "").startswith("vaecodec"):
                raise
            console.fail(name, CodecError(f"needs more packages: pip install 'vaecodec[{extra}]' ({exc})"))
            return FAILED
    except SystemExit as exc:  # --help, usage errors, SIGTERM
        return exc.code if isinstance(exc.code, int) else 0


def _check_threads(args: argparse.Namespace) -> None:
    """End with a usage error if the environment names no number of threads."""
    from vaecodec.threads import available_cores

    try:
        available_cores()
    except CodecError as exc:
        args.usage(str(exc))


@contextmanager
def _standard_error() -> Iterator[None]:
    """Open closed standard descriptors on the null device, and give a process without sys.stderr one.

    Otherwise the next file to be opened would get the number 2, and libraries would write messages into it.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    if sys.stderr is not None:
        yield
        return
    with open(os.devnull, "w") as sys.stderr:
        try:
            yield
        finally:
            sys.stderr = None
