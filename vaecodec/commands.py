"""The commands: each takes parsed arguments and returns an exit code, and loads only what it needs itself."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from vaecodec.console import Console, hushed
from vaecodec.errors import CodecError

STREAM = "-"


def compress(args: argparse.Namespace) -> int:
    """Image files -> .vae files."""
    from vaecodec.files import compress_file, compressed_name

    def work(src: Any, dst: Any, **options: Any) -> tuple[dict[str, Any], str]:
        options |= {"strip": args.strip, "overwrite": args.force, "remove": args.rm}
        report = compress_file(src, dst, args.quality, args.model, **options)
        return report, f"{report['image_bytes']} -> {report['bytes']} bytes"

    return _convert(args, work, compressed_name)


def decompress(args: argparse.Namespace) -> int:
    """.vae files -> image files."""
    from vaecodec.files import decompress_file, decompressed_name

    def work(src: Any, dst: Any, **options: Any) -> tuple[dict[str, Any], str]:
        try:
            report = decompress_file(src, dst, args.model, args.force, args.window, args.rm, args.reduce, **options)
        except ValueError as exc:
            if args.window is None:
                raise
            raise CodecError(str(exc)) from exc  # only the file knows whether the window lies within it
        return report, f"{report['bytes']} -> {report['image_bytes']} bytes"

    return _convert(args, work, decompressed_name)


def info(args: argparse.Namespace) -> int:
    """What .vae files say of themselves; needs no model."""
    from vaecodec import container

    def work(name: str) -> tuple[dict[str, Any], str]:
        record = container.info(_read(args, name))
        text = (
            "{width} x {height}, quality {quality:g}, {bytes} bytes, {bpp:.3f} bpp, {tiles} x {tile} px tiles, "
            "model {model}, version {version}"
        ).format(**record)
        text += "".join(f", {kind}" for kind in record["metadata"])
        return {"input": name, **record}, f"{name}: {text}"

    console = _console(args)
    for name in args.inputs:
        console.attempt(name, partial(work, name), product=True)
    return int(console.failures > 0)


def verify(args: argparse.Namespace) -> int:
    """Decodes every symbol of .vae files and checks it."""
    _one_blas_thread()
    from vaecodec.codec import codec_for

    def work(name: str) -> tuple[dict[str, Any], str]:
        data = _read(args, name)
        options = _options(args, console, name)
        codec_for(data, args.model, threads=options.pop("threads")).verify(data, **options)
        return {"input": name, "ok": True, "bytes": len(data)}, f"{name}: ok, {len(data)} bytes"

    console = _console(args)
    with hushed(args.verbose):
        for name in args.inputs:
            console.attempt(name, partial(work, name))
    return int(console.failures > 0)


def models(args: argparse.Namespace) -> int:
    """Lists the shipped models."""
    from vaecodec.weights import load_model, shipped

    console = _console(args)
    for name in shipped():

        def work(name: str = name) -> tuple[dict[str, Any], str]:
            model = load_model(name)
            return {"name": model.name, "model": model.id}, f"{model.name}  {model.id}"

        console.attempt(name, work, product=True)
    return int(console.failures > 0)


def train(args: argparse.Namespace) -> int:
    """Trains, or hands the training step to another machine and takes its state back."""
    from vaecodec import lab

    if bool(args.paths) == bool(args.export_step or args.import_state):
        args.usage("PATH is what to train on: needed to train, and not with --export-step or --import-state")
    if args.start is not None and not args.paths:
        args.usage("--from is where training begins; it goes with PATH")
    return _in_lab(args, args.out, lambda: lab.train(args))


def freeze(args: argparse.Namespace) -> int:
    """Training run -> model file."""
    from vaecodec import lab

    with hushed(args.verbose):
        return _in_lab(args, args.output, lambda: lab.freeze(args))


def bench(args: argparse.Namespace) -> int:
    """Pictures -> a folder of rates, distortions, times and a report."""
    _one_blas_thread()
    from vaecodec.bench import bench as run_benchmark

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


def _in_lab(args: argparse.Namespace, name: str, work: Callable[[], tuple[dict[str, Any], str]]) -> int:
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


def _convert(
    args: argparse.Namespace,
    work: Callable[..., tuple[dict[str, Any], str]],
    default_name: Callable[[str], str],
) -> int:
    """Takes each input to its output, whatever becomes of the others."""
    to_stdout = _check_streams(args)
    _one_blas_thread()
    console = _console(args)
    written: dict[str, str] = {}

    def one(name: str) -> tuple[dict[str, Any], str]:
        src: str | BinaryIO = sys.stdin.buffer if name == STREAM else name
        if to_stdout:
            dst: str | BinaryIO = sys.stdout.buffer
        elif args.output is None:
            dst = default_name(name)
        elif os.path.isdir(args.output):
            dst = os.path.join(args.output, os.path.basename(default_name(name)))
        else:
            dst = args.output
        place = os.path.realpath(dst) if isinstance(dst, str) else STREAM
        if written.get(place, name) != name:  # even with -f: one of the two would be lost
            raise CodecError(f"{dst} is the output of {written[place]} already")
        report, sizes = work(src, dst, **_options(args, console, name))
        written[place] = name
        text = f"{name}: {sizes}, {report['bpp']:.3f} bpp, {report['seconds']:.2f} s"
        return {"input": name, **report}, text + (f" ({report['output']})" if console.verbose else "")

    with hushed(args.verbose):
        if args.model is None or _loads(console, args.model):
            for name in args.inputs:
                console.attempt(name, partial(one, name))
    return int(console.failures > 0)


def _options(args: argparse.Namespace, console: Console, name: str) -> dict[str, Any]:
    """What all that codes takes: limits, cores, and whom to tell of tiles."""
    from vaecodec.limits import DEFAULT

    return {
        "limits": None if args.no_limits else DEFAULT,
        "threads": args.threads,
        "progress": lambda done, total: console.working(f"{name}: {done} of {total} tiles"),
    }


def _loads(console: Console, model: str) -> bool:
    """Whether a model can be had; said once, not for each file."""
    import vaecodec

    try:
        found = vaecodec.load(model).model
    except (CodecError, OSError) as exc:
        console.fail(model, exc)
        return False
    console.detail(f"model {found.name} {found.id}")
    return True


def _check_streams(args: argparse.Namespace) -> bool:
    """Whether the output is stdout; ends in a usage error where the arguments do not fit together."""
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
    if args.rm and getattr(args, "window", None) is not None:
        args.usage("--rm would lose what is outside of --window")
    if args.rm and getattr(args, "reduce", 1) > 1:
        args.usage("--rm would leave a preview only")
    if args.rm and (to_stdout or STREAM in args.inputs):
        args.usage("--rm needs files on both sides")
    if args.json and to_stdout:
        args.usage("--json and the output cannot both go to standard output")
    if STREAM in args.inputs:
        _check_stdin(args)
    if to_stdout and (sys.stdout is None or (sys.stdout.isatty() and not args.force)):
        args.usage("standard output is a terminal; -o names a file, -f writes to the terminal")
    return to_stdout


def _check_stdin(args: argparse.Namespace) -> None:
    if sys.stdin is None or sys.stdin.isatty():
        args.usage("standard input is a terminal; pipe a file into it or name one")


def _read(args: argparse.Namespace, name: str) -> bytes:
    """A whole input, by name."""
    if name == STREAM:
        _check_stdin(args)
        return sys.stdin.buffer.read()
    with open(name, "rb") as file:
        return file.read()


def _one_blas_thread() -> None:
    """Spares OpenBLAS its threads, which only get in the way here (integer.OneThread); before NumPy loads."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _console(args: argparse.Namespace) -> Console:
    return Console(args.json, args.quiet, args.verbose)
