"""Check that the inputs, outputs and options of a command line fit; end with a usage error where they do not."""

from __future__ import annotations

import argparse
import os
import sys

from vaecodec.container import MAGIC, SUFFIX
from vaecodec.urls import is_url

# Suffixes of image formats: no program would open a .vae file under them.
OTHER_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .avif .avifs .jxl .gif .tif .tiff .bmp .dib .heic .heif .jp2 .j2k .jpx "
    ".ppm .pgm .pbm .pnm .pam .tga .ico .svg .qoi .exr .hdr .psd .npy".split()
)


def split_output(args: argparse.Namespace) -> None:
    """Take the second of two names as the output: compress photo.jpg photo.vae, decompress photo.vae photo.png."""
    if len(args.inputs) != 2 or args.output is not None or args.stdout or "-" in args.inputs:
        return
    first, second = args.inputs
    if args.command == "compress":
        is_output = second.lower().endswith(SUFFIX) and not first.lower().endswith(SUFFIX)
        if not is_output:
            _check_second(args, first, second)
    else:
        is_output = first.lower().endswith(SUFFIX) and not second.lower().endswith(SUFFIX) and not _is_vae(second)
    if is_output and not os.path.isdir(second):
        args.inputs, args.output = [first], second


def _check_second(args: argparse.Namespace, first: str, second: str) -> None:
    """Refuse a second name that can only be meant as an output: compress photo.jpg photo.jxl."""
    stem, suffix = os.path.splitext(second)
    is_other = suffix.lower() in OTHER_SUFFIXES and suffix.lower() != os.path.splitext(first)[1].lower()
    if is_other and os.path.exists(first) and not os.path.lexists(second) and not is_url(second):
        args.usage(f"{second} does not exist, and compress writes .vae files; name an output {stem}{SUFFIX}")


def _is_vae(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def is_folder(path: str) -> bool:
    """Whether outputs go below a path: an existing folder, or a URL that ends with a slash."""
    return os.path.isdir(path) or (is_url(path) and path.endswith("/"))


def check_files(args: argparse.Namespace) -> bool:
    """Check a command without -r; return whether to write to standard output."""
    stdin, several = "-" in args.inputs, len(args.inputs) > 1
    to_stdout = args.stdout or args.output == "-" or (args.output is None and args.inputs == ["-"])
    to_folder = args.output is not None and is_folder(args.output)
    if args.output_dir is not None:
        args.usage("--output-dir needs -r; -o takes an existing folder")
    if args.include or args.exclude:
        args.usage("--include and --exclude need -r")
    if args.stdout and args.output not in (None, "-"):
        args.usage("-c and -o name different outputs")
    if several and stdin:
        args.usage("- must be the only input")
    if several and (to_stdout or (args.output is not None and not to_folder)):
        args.usage("several inputs need an existing folder as -o, or no -o")
    if to_folder and stdin:
        args.usage("standard input has no name for a file in a folder; -o must be a file")
    if args.output is not None and args.output.endswith(os.sep) and not to_folder:
        args.usage(f"{args.output} is not a folder")
    if args.command == "compress" and args.output is not None and not to_folder:
        _check_suffix(args)
    if getattr(args, "all_frames", False) and (stdin or to_stdout or (args.output is not None and not to_folder)):
        args.usage("--all-frames writes several files; -o must be an existing folder")
    if args.dry_run and (stdin or to_stdout):
        args.usage("--dry-run needs files as input and output")
    _check_rm(args)
    if args.rm and (to_stdout or stdin):
        args.usage("--rm needs files as input and output")
    if args.json and to_stdout:
        args.usage("--json and the output cannot share standard output")
    if stdin:
        check_stdin(args)
    if to_stdout and (sys.stdout is None or (sys.stdout.isatty() and not args.force)):
        args.usage("standard output is a terminal; name a file with -o, or force with -f")
    return to_stdout


def check_folders(args: argparse.Namespace) -> None:
    """Check a command with -r."""
    if args.stdout or args.output is not None:
        args.usage("-r takes --output-dir instead of -o or -c")
    check_no_stdin(args)
    for option in ("window", "frame", "all_frames", "roi"):
        if getattr(args, option, None):
            args.usage(f"--{option.replace('_', '-')} does not go with -r")
    _check_rm(args)


def check_no_stdin(args: argparse.Namespace) -> None:
    """Check that -r has files and folders."""
    if "-" in args.inputs:
        args.usage("-r takes files and folders, not standard input")


def check_stdin(args: argparse.Namespace) -> None:
    """Check that standard input is neither closed nor a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        args.usage("standard input is a terminal; pipe a file into it or name a file")


def _check_suffix(args: argparse.Namespace) -> None:
    """Refuse the suffix of another format: nothing would open such a file."""
    stem, suffix = os.path.splitext(args.output)
    if suffix.lower() in OTHER_SUFFIXES:
        args.usage(f"compress writes .vae files; name the output {stem}{SUFFIX} instead of {args.output}")


def _check_rm(args: argparse.Namespace) -> None:
    if args.rm and getattr(args, "window", None) is not None:
        args.usage("--rm would lose the image outside --window")
    if args.rm and (getattr(args, "frame", None) or getattr(args, "all_frames", False)):
        args.usage("--rm would lose what the files hold beside the frames")
    if args.rm and getattr(args, "reduce", 1) > 1:
        args.usage("--rm would leave only a preview")
