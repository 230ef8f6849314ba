"""Standard input and output in the place of files: when they may be, and how they are read.  Standard library only."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

STREAM = "-"


def check_streams(args: argparse.Namespace) -> bool:
    """Whether the output is stdout; ends in a usage error where the arguments do not fit together."""
    if args.output_dir is not None:
        args.usage("--output-dir goes with -r; -o takes a folder that exists")
    to_stdout = args.stdout or args.output == STREAM or (args.output is None and args.inputs == [STREAM])
    several = len(args.inputs) > 1
    folder = args.output is not None and os.path.isdir(args.output)
    if args.stdout and args.output not in (None, STREAM):
        args.usage("-c and -o name different outputs")
    if several and STREAM in args.inputs:
        args.usage("- must be the only input")
    if several and (to_stdout or (args.output is not None and not folder)):
        args.usage("several inputs need a folder that exists as -o, or none")
    if folder and STREAM in args.inputs:
        args.usage("standard input has no name to give a file in a folder; -o must be a file")
    if args.output is not None and args.output.endswith(os.sep) and not folder:
        args.usage(f"{args.output} is not a folder")
    _check_rm(args)
    if args.rm and (to_stdout or STREAM in args.inputs):
        args.usage("--rm needs files on both sides")
    if args.json and to_stdout:
        args.usage("--json and the output cannot both go to standard output")
    if STREAM in args.inputs:
        check_stdin(args)
    if to_stdout and (sys.stdout is None or (sys.stdout.isatty() and not args.force)):
        args.usage("standard output is a terminal; -o names a file, -f writes to the terminal")
    return to_stdout


def check_folders(args: argparse.Namespace) -> None:
    """Ends in a usage error where what belongs to single files comes with -r."""
    if args.stdout or args.output is not None:
        args.usage("-r goes with --output-dir, or with no output: not with -o or -c")
    check_no_stream(args)
    if getattr(args, "window", None) is not None:
        args.usage("--window is for single files, not for -r")
    _check_rm(args)


def _check_rm(args: argparse.Namespace) -> None:
    if args.rm and getattr(args, "window", None) is not None:
        args.usage("--rm would lose what is outside of --window")
    if args.rm and getattr(args, "reduce", 1) > 1:
        args.usage("--rm would leave a preview only")


def check_no_stream(args: argparse.Namespace) -> None:
    """Ends in a usage error where standard input is among what -r is to take."""
    if STREAM in args.inputs:
        args.usage("-r takes files and folders, not standard input")


def check_stdin(args: argparse.Namespace) -> None:
    """Ends in a usage error where standard input is nobody's data."""
    if sys.stdin is None or sys.stdin.isatty():
        args.usage("standard input is a terminal; pipe a file into it or name one")


@contextmanager
def opened(args: argparse.Namespace, name: str) -> Iterator[BinaryIO]:
    """An input, by name, to be read once from its start."""
    if name == STREAM:
        check_stdin(args)
        yield sys.stdin.buffer
        return
    with open(name, "rb") as file:
        yield file
