"""The commands compress, decompress and verify: files one by one or, with -r, folders in worker processes."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO

from vaecodec import arguments
from vaecodec.arguments import check_tune
from vaecodec.cli.options import check_files, check_folders, check_no_stdin, check_stdin, split_output
from vaecodec.codec.mode_decision import Target
from vaecodec.container import SUFFIX
from vaecodec.errors import CodecError
from vaecodec.files.compression import compress_file, decompress_file, verify_file
from vaecodec.files.folders import (
    FolderWalk,
    Job,
    Listing,
    compress_jobs,
    decompress_jobs,
    is_vae,
    verify_jobs,
    whole_names,
)
from vaecodec.files.planning import Selection, Workload, planned_output
from vaecodec.files.runs import (
    JobRunner,
    Run,
    Tally,
    compress_job,
    compress_settings,
    decompress_job,
    format_report,
    map_unordered,
    settings_text,
    sizes_of_report,
    verify_job,
)
from vaecodec.images.channels import count_frames
from vaecodec.model.file import load_model
from vaecodec.progress import Console, Progress, format_bytes, hushed
from vaecodec.threads import available_cores

Convert = Callable[..., dict[str, Any]]
Report = tuple[dict[str, Any], str]  # for --json, and as text


def compress(args: argparse.Namespace, console: Console) -> int:
    """Compress files to .vae files."""
    options = {"quality": args.quality, "model": args.model, "strip": args.strip, "effort": args.effort}
    tune = check_tune(args.tune, args.target_psnr)
    options |= {"remove": args.rm, "only_images": args.only_images, "tune": tune, **_resources(args)}
    targets = {"target_size": args.target_size, "target_bpp": args.target_bpp, "target_psnr": args.target_psnr}
    targets |= {"lossless": args.lossless, "max_error": args.max_error}
    if not args.recursive:
        convert = _compress_weighted if args.roi else compress_file
        return _convert_files(args, console, convert, options | targets | {"roi": args.roi})
    goals = (args.target_size, args.target_bpp, args.target_psnr, args.quality, args.lossless, args.max_error)
    target = Target.from_arguments(*goals)
    settings = compress_settings(target, args.effort, tune, args.strip, args.only_images)
    plan = partial(compress_jobs, overwrite=args.force)
    return _convert_folders(args, console, compress_job, options | targets, plan, settings)


def _compress_weighted(*files: Any, **options: Any) -> dict[str, Any]:
    """Compress a file with weights, which may not fit it."""
    try:
        return compress_file(*files, **options)
    except ValueError as exc:
        raise CodecError(str(exc)) from exc


def decompress(args: argparse.Namespace, console: Console) -> int:
    """Decompress .vae files."""
    options = {"model": args.model, "remove": args.rm, "reduce": args.reduce, **_resources(args)}
    if not args.recursive:
        return _convert_files(args, console, decompress_file, options | {"window": args.window})
    plan = partial(decompress_jobs, overwrite=args.force)
    settings = (f"reduce {args.reduce}" * (args.reduce > 1),)
    return _convert_folders(args, console, decompress_job, options, plan, settings)


def verify(args: argparse.Namespace, console: Console) -> int:
    """Decode every symbol and byte of .vae files and check them."""
    if args.recursive:
        check_no_stdin(args)
        return _verify_folders(args, console)

    def work(name: str) -> Report:
        if name == "-":
            check_stdin(args)
        source = sys.stdin.buffer if name == "-" else name
        record = verify_file(source, model=args.model, **_resources(args), progress=_show_tiles(console, name))
        return {"input": name, "ok": True, **record}, _verified_text(name, record)

    with hushed(args.verbose):
        for name in args.inputs:
            console.attempt(name, partial(work, name))
    return int(console.failures > 0)


def _verified_text(name: str, report: dict[str, Any]) -> str:
    return f"{name}: ok, {format_bytes(report['bytes'])}"


def _convert_files(args: argparse.Namespace, console: Console, convert: Convert, options: dict[str, Any]) -> int:
    """Convert each input to its output; go on after a failure."""
    split_output(args)
    to_stdout = check_files(args)
    taken: dict[str, str] = {}
    tally, whole = Tally(), set[str]()
    if args.command == "compress" and (args.output is None or os.path.isdir(args.output)):
        whole = whole_names(args.inputs, args.output)

    def work(name: str, frame: int | None, dst: str | BinaryIO | None) -> Report:
        if args.command == "compress" and not args.force and is_vae(name):
            raise CodecError("is already a .vae file (-f compresses it again)")
        naming: dict[str, Any] = {"frame": frame} if frame else {}
        naming |= {"whole_name": True} if name in whole else {}
        if args.dry_run:
            naming |= {"only_images": options.get("only_images", False)}
            output = planned_output(
                args.command, name, args.output if frame is None else str(dst), args.force, **naming
            )
            return {"input": name, "output": output}, f"{name} -> {output}"
        src: str | BinaryIO = sys.stdin.buffer if name == "-" else name
        options_here = {**options, "overwrite": args.force, "progress": _show_tiles(console, name), **naming}
        try:
            report = convert(src, dst, taken=taken, **options_here)
        except ValueError as exc:
            if options.get("window") is None:
                raise
            raise CodecError(str(exc)) from exc  # the window lies outside the image
        taken[os.path.realpath(report["output"])] = name
        tally.add(*sizes_of_report(args.command, report))
        return format_report(args.command, name, report)

    with hushed(args.verbose):
        if args.model is None or _model_id(console, args.model):
            output = sys.stdout.buffer if to_stdout else args.output
            for name in args.inputs:
                for frame, dst in _frames(args, name, output):
                    status = "planned" if args.dry_run else "done"
                    console.attempt(name, partial(work, name, frame, dst), status=status)
            if len(args.inputs) > 1 and not args.dry_run:
                tally.report(console)
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
    settings: tuple[str, ...],
) -> int:
    """Convert every file in the folders, beside it or in the same place below --output-dir."""
    check_folders(args)
    model = _model_id(console, args.model) if args.model else ""
    if model is None:
        return 1
    how = settings_text(args.command, model, *settings)
    run = _run_of(args, console, how, repeat=args.rm)  # a source is removed only after this run has verified its output
    walk = FolderWalk(console, args.output_dir, _selection(args), makes_folders=not args.dry_run)
    try:
        jobs = run.jobs(walk.listings(args.inputs), plan)
        if args.dry_run:
            return _plan_folders(args, console, jobs)
        with _resumable(args, console, run):
            for job, outcome in run.successes(map_unordered(JobRunner(convert, options, how), jobs, args.jobs)):
                sizes = sizes_of_report(args.command, outcome.report)
                run.report(*format_report(args.command, job.path, outcome.report), sizes, outcome.warnings)
    except BrokenPipeError:  # the reader of standard output has left
        raise
    except OSError as exc:
        console.fail(args.output_dir or args.inputs[0], exc)
    return run.finish()


def _plan_folders(args: argparse.Namespace, console: Console, jobs: Iterator[Job]) -> int:
    """Report what would be written, and write nothing."""
    only_images = getattr(args, "only_images", False)

    def work(job: Job) -> Report:
        folder = None if job.folder is None else os.path.join(job.folder, "")
        output = planned_output(args.command, job.path, folder, job.overwrite, job.whole_name, only_images)
        return {"input": job.path, "output": output}, f"{job.path} -> {output}"

    with hushed(args.verbose):
        for job in jobs:
            console.attempt(job.path, partial(work, job), status="planned")
    return int(console.failures > 0)


@contextmanager
def _resumable(args: argparse.Namespace, console: Console, run: Run) -> Iterator[None]:
    """Say how to resume a run that is interrupted or terminated."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        console.clear()
        console.note(f"interrupted with {run.tally.done} done; to resume: vaecodec {shlex.join(args.argv)}")
        raise


def _verify_folders(args: argparse.Namespace, console: Console) -> int:
    """Verify every .vae file in the folders, and compare it with the manifest of the run that wrote it."""
    run = _run_of(args, console)
    jobs = run.jobs(FolderWalk(console).listings(args.inputs), verify_jobs)
    runner = JobRunner(verify_job, {"model": args.model, **_resources(args)})
    for job, outcome in run.successes(map_unordered(runner, jobs, args.jobs)):
        entry = run.manifests[job.manifest].of_output(job.path) if job.manifest else None
        if entry is not None and entry.crc32 != outcome.crc:
            console.fail(job.path, CodecError("is undamaged, but is not the file that was written there"))
        else:
            record = {"input": job.path, "ok": True, **outcome.report}
            run.report(record, _verified_text(job.path, outcome.report), (outcome.report["bytes"], 0), outcome.warnings)
    for manifest in run.manifests.values():
        for path in manifest.missing():
            console.fail(path, CodecError("is missing"))
    return run.finish()


def _run_of(args: argparse.Namespace, console: Console, how: str = "", repeat: bool = False) -> Run:
    """Make the run of a command, which on a terminal shows how much is left."""
    if not console.progress:
        return Run(console, how, repeat)

    def takes(name: str) -> bool:
        is_output = name.lower().endswith(SUFFIX)
        return (not is_output or args.output_dir is not None) if args.command == "compress" else is_output

    return Run(console, how, repeat, Workload(args.inputs, _selection(args), takes))


def _selection(args: argparse.Namespace) -> Selection:
    return Selection(tuple(getattr(args, "include", ())), tuple(getattr(args, "exclude", ())))


def _resources(args: argparse.Namespace) -> dict[str, Any]:
    """Return limits and cores; worker processes share the cores."""
    threads = args.threads or (max(1, available_cores() // args.jobs) if args.recursive else None)
    return {"limits": None if args.no_limits else arguments.DEFAULT_LIMITS, "threads": threads}


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
