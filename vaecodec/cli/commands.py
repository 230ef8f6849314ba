"""The commands: each takes parsed arguments and returns an exit code, and loads only what it needs itself."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from vaecodec.console import Console, hushed
from vaecodec.errors import CodecError

SAMPLES = {1: "grey", 2: "grey + alpha", 3: "RGB", 4: "RGBA"}  # by channels


def compress(args: argparse.Namespace) -> int:
    """Files -> .vae files."""
    _one_blas_thread()
    from vaecodec.cli import compression

    return compression.compress(args, _console(args))


def decompress(args: argparse.Namespace) -> int:
    """.vae files -> files."""
    _one_blas_thread()
    from vaecodec.cli import compression

    return compression.decompress(args, _console(args))


def verify(args: argparse.Namespace) -> int:
    """Decodes every symbol and byte of .vae files and checks it."""
    _one_blas_thread()
    from vaecodec.cli import compression

    return compression.verify(args, _console(args))


def info(args: argparse.Namespace) -> int:
    """What .vae files say of themselves; needs no model."""
    from vaecodec.container import stored
    from vaecodec.files.streams import opened
    from vaecodec.generative.info import info as describe

    def work(name: str) -> tuple[dict[str, Any], str]:
        with opened(args, name) as file:
            head = file.read(16)
            if stored.is_stored(head):
                record = stored.info(file, head)
            else:
                if file.seekable():  # the data is then in memory once
                    file.seek(-len(head), os.SEEK_CUR)
                    head = b""
                record = describe(head + file.read())
        return {"input": name, **record}, f"{name}: {_said(record)}"

    console = _console(args)
    for name in args.inputs:
        console.attempt(name, partial(work, name), product=True)
    return int(console.failures > 0)


def _said(record: dict[str, Any]) -> str:
    """A record of info in words."""
    if record["kind"] in ("picture", "array"):
        kept = record["coding"] != "vae"
        samples = SAMPLES[record["channels"]] if record["kind"] == "picture" else f"{record['channels']} channels"
        text = (
            "{width} x {height}, "
            + (record["coding"] if kept else "quality {quality:g}")
            + ", {samples}, {bytes} bytes, {bpp:.3f} bpp, "
            + ("" if kept else "{tiles} x {tile} px tiles, model {model}, ")
            + "version {version}"
        ).format(samples=samples + (" of 16 bits" if record["depth"] == 16 else ""), **record)
        filtered = ", with a filter" if record.get("filtered") else ""
        return text + filtered + "".join(f", {kind}" for kind in record["metadata"])
    if record["kind"] == "set":
        form = "{count} pictures of {width} x {height}, {coding}, {bytes} bytes, {bpp:.4f} bits a pixel, model {model}"
        return form.format(**record) + f", version {record['version']}"
    text = "stored file {name}, {size} bytes, {bytes} here, {method}".format(**record)
    if record["mode"] is not None:
        text += f", mode {record['mode']}"
    if record["mtime_ns"] is not None:
        text += f", {_time(record['mtime_ns'])}"
    return f"{text}, version {record['version']}"


def _time(mtime_ns: int) -> str:
    """A time in UTC, to the second."""
    from datetime import datetime, timedelta, timezone

    return (
        f"{datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=mtime_ns // 1000):%Y-%m-%d %H:%M:%S} UTC"
    )


def models(args: argparse.Namespace) -> int:
    """Lists, shows, adds or removes models."""
    _one_blas_thread()
    from vaecodec.cli import models as model_commands

    return model_commands.models(args, _console(args))


def train(args: argparse.Namespace) -> int:
    """Trains, or hands the training step to another machine and takes its state back."""
    from vaecodec.cli import training

    if bool(args.paths) == bool(args.export_step or args.import_state):
        args.usage("PATH is what to train on: needed to train, and not with --export-step or --import-state")
    if args.start is not None and args.import_state:
        args.usage("--from is where training begins; it goes with PATH or --export-step")
    if args.hard and not args.export_step:
        args.usage("--hard goes with --export-step; training here comes to that phase by itself")
    return _with_tensorflow(args, args.out, lambda: training.train(args))


def freeze(args: argparse.Namespace) -> int:
    """Training run -> model file."""
    from vaecodec.cli import training

    with hushed(args.verbose):
        return _with_tensorflow(args, args.output, lambda: training.freeze(args))


def generation(args: argparse.Namespace) -> int:
    """What goes with generative models, by the name of the command."""
    _one_blas_thread()
    from vaecodec.cli import generation as generation_commands

    return getattr(generation_commands, args.command)(args, _console(args))


pack = unpack = sample = vary = interpolate = score = calibrate = generation


def bench(args: argparse.Namespace) -> int:
    """Pictures -> a folder of rates, distortions, times and a report."""
    _one_blas_thread()
    from vaecodec.bench.command import bench as run_benchmark

    console = _console(args)
    try:
        with hushed(args.verbose), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning, module="vaecodec")  # not those of the libraries
            warnings.showwarning = lambda message, *_: console.note(f"warning: {message}")
            run_benchmark(args, console)
    except ImportError as exc:
        if (exc.name or "").startswith("vaecodec"):
            raise
        console.fail("bench", CodecError(f"needs more packages: pip install 'vaecodec[bench]' ({exc})"))
    except (CodecError, OSError) as exc:
        console.fail(args.output, exc)
    return int(console.failures > 0)


def completion(args: argparse.Namespace) -> int:
    """Prints a shell's script."""
    from vaecodec.cli.completion import script
    from vaecodec.cli.parser import make_parser

    print(script(args.shell, make_parser()))
    return 0


def filetype(args: argparse.Namespace) -> int:
    """Prints a rule that the package ships."""
    from importlib.resources import files

    print((files("vaecodec") / "share" / f"vaecodec.{args.kind}").read_text(), end="")
    return 0


def _with_tensorflow(args: argparse.Namespace, name: str, work: Callable[[], tuple[dict[str, Any], str]]) -> int:
    """Work that needs TensorFlow, which may not be here."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def guarded() -> tuple[dict[str, Any], str]:
        try:
            return work()
        except ImportError as exc:
            if (exc.name or "").startswith("vaecodec"):
                raise
            raise CodecError(f"{args.command} needs TensorFlow: pip install 'vaecodec[train]' ({exc})") from exc

    console = _console(args)
    console.progress = False  # training shows its own
    console.attempt(name, guarded)
    return console.failures


def _one_blas_thread() -> None:
    """Spares OpenBLAS its threads, which only get in the way here (integer.OneThread); before NumPy loads."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _console(args: argparse.Namespace) -> Console:
    return Console(args.json, args.quiet, args.verbose)
