"""The commands compress, decompress and verify: files one by one or, with -r, folders in worker processes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO

from vaecodec import limits
from vaecodec.cli.info import check_stdin
from vaecodec.codec.rate_control import Target
from vaecodec.container.chunks import SUFFIX
from vaecodec.errors import CodecError
from vaecodec.files.compression import compress_file, decompress_file, verify_file
from vaecodec.files.folders import FolderWalk, Job, Listing, compress_jobs, decompress_jobs, is_vae, verify_jobs
from vaecodec.files.runs import (
    JobRunner,
    Run,
    compress_job,
    compress_settings,
    decompress_job,
    format_report,
    map_unordered,
    verify_job,
)
from vaecodec.images.frames import count_frames
from vaecodec.model.file import load_model
from vaecodec.progress import Console, Progress, hushed
from vaecodec.threads import available_cores

Convert = Callable[..., dict[str, Any]]


def compress(args: argparse.Namespace, console: Console) -> int:
    """Compress files to .vae files."""
    options = {"quality": args.quality, "model": args.model, "strip": args.strip, "effort": args.effort}
    options |= {"remove": args.rm, "only_images": args.only_images, **_resources(args)}
    targets = {"target_size": args.target_size, "target_bpp": args.target_bpp, "target_psnr": args.target_psnr}
    if not args.recursive:
        return _convert_files(args, console, compress_file, options | targets)
    target = Target.from_arguments(args.target_size, args.target_bpp, args.target_psnr, args.quality)
    settings = compress_settings(target, args.effort, args.strip, args.only_images)
    plan = partial(compress_jobs, overwrite=args.force)
    return _convert_folders(args, console, compress_job, options | targets, plan, settings)


def decompress(args: argparse.Namespace, console: Console) -> int:
    """Decompress .vae files."""
    options = {"model": args.model, "remove": args.rm, "reduce": args.reduce, **_resources(args)}
    if not args.recursive:
        return _convert_files(args, console, decompress_file, options | {"window": args.window})
    plan = partial(decompress_jobs, overwrite=args.force)
    settings = f"reduce {args.reduce}" * (args.reduce > 1)
    return _convert_folders(args, console, decompress_job, options, plan, settings)


def verify(args: argparse.Namespace, console: Console) -> int:
    """Decode every symbol and byte of .vae files and check them."""
    if args.recursive:
        _check_no_stdin(args)
        return _verify_folders(args, console)

    def work(name: str) -> tuple[dict[str, Any], str]:
        if name == "-":
            check_stdin(args)
        source = sys.stdin.buffer if name == "-" else name
        record = verify_file(source, model=args.model, **_resources(args), progress=_show_tiles(console, name))
        return {"input": name, "ok": True, **record}, f"{name}: ok, {record['bytes']} bytes"

    with hushed(args.verbose):
        for name in args.inputs:
            console.attempt(name, partial(work, name))
    return int(console.failures > 0)


def _convert_files(args: argparse.Namespace, console: Console, convert: Convert, options: dict[str, Any]) -> int:
    """Convert each input to its output; go on after a failure."""
    to_stdout = _check_files(args)
    taken: dict[str, str] = {}

    def work(name: str, frame: int | None, dst: str | BinaryIO | None) -> tuple[dict[str, Any], str]:
        if args.command == "compress" and not args.force and is_vae(name):
            raise CodecError("is already a .vae file (-f compresses it again)")
        src: str | BinaryIO = sys.stdin.buffer if name == "-" else name
        progress, frames = _show_tiles(console, name), {"frame": frame} if frame else {}
        try:
            report = convert(src, dst, overwrite=args.force, taken=taken, progress=progress, **options, **frames)
        except ValueError as exc:
            if options.get("window") is None:
                raise
            raise CodecError(str(exc)) from exc  # the window lies outside the image
        taken[os.path.realpath(report["output"])] = name
        return format_report(args.command, name, report, args.verbose)

    with hushed(args.verbose):
        if args.model is None or _model_id(console, args.model):
            output = sys.stdout.buffer if to_stdout else args.output
            for name in args.inputs:
                for frame, dst in _frames(args, name, output):
                    console.attempt(name, partial(work, name, frame, dst))
    return int(console.failures > 0)


def _frames(
    args: argparse.Namespace, name: str, output: str | BinaryIO | None
) -> Iterator[tuple[int | None, str | BinaryIO | None]]:
    """Yield the number and the output of each page or frame that is to be compressed; None for a whole file."""
    frames = 1
    if getattr(args, "all_frames", False):
        with suppress(OSError), open(name, "rb") as file:
            frames = count_frames(file)
    if frames == 1:
        yield getattr(args, "frame", None), output
        return
    folder = args.output if args.output is not None else os.path.dirname(name)
    stem = os.path.splitext(os.path.basename(name))[0]
    for number in range(1, frames + 1):
        yield number, os.path.join(folder, f"{stem}-{number:04}{SUFFIX}")


def _convert_folders(
    args: argparse.Namespace,
    console: Console,
    convert: Convert,
    options: dict[str, Any],
    plan: Callable[[Listing], Iterator[Job]],
    settings: str,
) -> int:
    """Convert every file in the folders, beside it or in the same place below --output-dir."""
    _check_folders(args)
    model = _model_id(console, args.model) if args.model else ""
    if model is None:
        return 1
    how = " ".join((args.command, model, settings)).strip()
    run = Run(console, how, repeat=args.rm)  # a source is removed only after this run has verified its output
    try:
        jobs = run.jobs(FolderWalk(console, args.output_dir).listings(args.inputs), plan)
        outcomes = map_unordered(JobRunner(convert, options, how), jobs, args.jobs)
        for job, outcome in run.successes(outcomes):
            run.report(*format_report(args.command, job.path, outcome.report, args.verbose))
    except BrokenPipeError:  # the reader of standard output has left
        raise
    except OSError as exc:
        console.fail(args.output_dir or args.inputs[0], exc)
    return run.finish()


def _verify_folders(args: argparse.Namespace, console: Console) -> int:
    """Verify every .vae file in the folders, and compare it with the manifest of the run that wrote it."""
    run = Run(console)
    jobs = run.jobs(FolderWalk(console).listings(args.inputs), verify_jobs)
    runner = JobRunner(verify_job, {"model": args.model, **_resources(args)})
    for job, outcome in run.successes(map_unordered(runner, jobs, args.jobs)):
        entry = run.manifests[job.manifest].of_output(job.path) if job.manifest else None
        if entry is not None and entry.crc32 != outcome.crc:
            console.fail(job.path, CodecError("is undamaged, but is not the file that was written there"))
        else:
            text = f"{job.path}: ok, {outcome.report['bytes']} bytes"
            run.report({"input": job.path, "ok": True, **outcome.report}, text)
    for manifest in run.manifests.values():
        for path in manifest.missing():
            console.fail(path, CodecError("is missing"))
    return run.finish()


def _check_files(args: argparse.Namespace) -> bool:
    """End with a usage error if the inputs and outputs do not fit; return whether to write to standard output."""
    stdin, several = "-" in args.inputs, len(args.inputs) > 1
    to_stdout = args.stdout or args.output == "-" or (args.output is None and args.inputs == ["-"])
    to_folder = args.output is not None and os.path.isdir(args.output)
    if args.output_dir is not None:
        args.usage("--output-dir needs -r; -o takes an existing folder")
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
    if getattr(args, "all_frames", False) and (stdin or to_stdout or (args.output is not None and not to_folder)):
        args.usage("--all-frames writes several files; -o must be an existing folder")
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


def _check_folders(args: argparse.Namespace) -> None:
    """End with a usage error on options that do not go with -r."""
    if args.stdout or args.output is not None:
        args.usage("-r takes --output-dir instead of -o or -c")
    _check_no_stdin(args)
    for option in ("window", "frame", "all_frames"):
        if getattr(args, option, None):
            args.usage(f"--{option.replace('_', '-')} does not go with -r")
    _check_rm(args)


def _check_no_stdin(args: argparse.Namespace) -> None:
    if "-" in args.inputs:
        args.usage("-r takes files and folders, not standard input")


def _check_rm(args: argparse.Namespace) -> None:
    if args.rm and getattr(args, "window", None) is not None:
        args.usage("--rm would lose the image outside --window")
    if args.rm and (getattr(args, "frame", None) or getattr(args, "all_frames", False)):
        args.usage("--rm would lose what the files hold beside the frames")
    if args.rm and getattr(args, "reduce", 1) > 1:
        args.usage("--rm would leave only a preview")


def _resources(args: argparse.Namespace) -> dict[str, Any]:
    """Return limits and cores; worker processes share the cores."""
    threads = args.threads or (max(1, available_cores() // args.jobs) if args.recursive else None)
    return {"limits": None if args.no_limits else limits.DEFAULT, "threads": threads}


def _show_tiles(console: Console, name: str) -> Progress:
    """Return a function that shows the progress of one file as a bar and in percent."""

    def show(done: int, total: int) -> None:
        console.working(f"{name}: [{'#' * (20 * done // total):20}] {100 * done // total} %")

    return show


def _model_id(console: Console, name: str) -> str | None:
    """Return the id of a model; report a model that cannot be loaded once, and return None."""
    try:
        model = load_model(name)
    except (CodecError, OSError) as exc:
        console.fail(name, exc)
        return None
    console.detail(f"model {model.name} {model.id}")
    return model.id
