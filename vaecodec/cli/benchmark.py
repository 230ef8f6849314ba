"""The command that compares codecs."""

from __future__ import annotations

import argparse
import warnings

from vaecodec.errors import CodecError
from vaecodec.progress import Console, hushed


def bench(args: argparse.Namespace, console: Console) -> int:
    """Measure rate, distortion and time of codecs on images, and write a report."""
    from vaecodec.bench import command

    try:
        with hushed(args.verbose), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning, module="vaecodec")  # not those of the libraries
            warnings.showwarning = lambda message, *_: console.note(f"warning: {message}")
            command.bench(args, console)
    except (CodecError, OSError) as exc:
        console.fail(args.output, exc)
    return int(console.failures > 0)
