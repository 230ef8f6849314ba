"""The commands compress, decompress and verify: on files one by one, or with -r on folders by a pool of processes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

from vaecodec import limits
from vaecodec.codec.rate_control import Target
from vaecodec.console import Console, hushed
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
    verify_job,
)
from vaecodec.files.streams import STREAM, check_folders, check_no_stream, check_stdin, check_streams
from vaecodec.files.workers import map_unordered
from vaecodec.progress import Progress
from vaecodec.threads import available_cores

Work = Callable[..., dict[str, Any]]


def compress(args: argparse.Namespace, console: Console) -> int:
    """Files -> .vae files."""
    options = {"quality": args.quality, "model": args.model, "strip": args.strip}
    options |= {"remove": args.rm, "only_images": args.only_images, **_means(args)}
    options |= {name: getattr(args, name) for name in ("target_size", "target_bpp", "target_psnr", "effort")}
    if not args.recursive:
        return _one_by_one(args, console, compress_file, options)
    wanted = Target.from_arguments(args.target_size, args.target_bpp, args.target_psnr, args.quality)
    settings = compress_settings(wanted, args.effort, args.strip, args.only_images)
    return _folders(args, console, compress_job, options, partial(compress_jobs, overwrite=args.force), settings)


def decompress(args: argparse.Namespace, console: Console) -> int:
    """.vae files -> files."""
    options = {"model": args.model, "remove": args.rm, "reduce": args.reduce, **_means(args)}
    if not args.recursive:
        return _one_by_one(args, console, decompress_file, options | {"window": args.window})
    settings = f"reduce {args.reduce}" * (args.reduce > 1)
    return _folders(args, console, decompress_job, options, partial(decompress_jobs, overwrite=args.force), settings)


def verify(args: argparse.Namespace, console: Console) -> int:
    """Decodes every symbol and byte of .vae files and checks it."""
    if args.recursive:
        check_no_stream(args)
        return _verify_folders(args, console)

    def work(name: str) -> tuple[dict[str, Any], str]:
        if name == STREAM:
            check_stdin(args)
        source = sys.stdin.buffer if name == STREAM else name
        record = verify_file(source, args.model, **_means(args), progress=_tiles(console, name))
        return {"input": name, "ok": True, **record}, f"{name}: ok, {record['bytes']} bytes"

    with hushed(args.verbose):
        for name in args.inputs:
            console.attempt(name, partial(work, name))
    return int(console.failures > 0)


def _means(args: argparse.Namespace) -> dict[str, Any]:
    """What all that codes takes: limits and cores, of which processes have a part each."""
    threads = args.threads or (max(1, available_cores() // args.jobs) if args.recursive else None)
    return {"limits": None if args.no_limits else limits.DEFAULT, "threads": threads}


def bar(done: int, total: int) -> str:
    """How far something has come: a bar, and its share in %."""
    return f"[{'#' * (20 * done // total):20}] {100 * done // total} %"


def _tiles(console: Console, name: str) -> Progress:
    """Whom to tell of the tiles of one file, or of their iterations."""
    return lambda done, total: console.working(f"{name}: {bar(done, total)}")


def _one_by_one(args: argparse.Namespace, console: Console, convert: Work, options: dict[str, Any]) -> int:
    """Takes each input to its output, whatever becomes of the others."""
    to_stdout = check_streams(args)
    taken: dict[str, str] = {}

    def one(name: str) -> tuple[dict[str, Any], str]:
        if args.command == "compress" and not args.force and is_vae(name):
            raise CodecError("is a .vae file already (-f compresses it again)")
        src: str | BinaryIO = sys.stdin.buffer if name == STREAM else name
        dst: str | BinaryIO | None = sys.stdout.buffer if to_stdout else args.output
        try:
            report = convert(src, dst, overwrite=args.force, taken=taken, progress=_tiles(console, name), **options)
        except ValueError as exc:
            if options.get("window") is None:
                raise
            raise CodecError(str(exc)) from exc  # only the file knows whether the window lies within it
        taken[os.path.realpath(report["output"])] = name
        return format_report(args.command, name, report, args.verbose)

    with hushed(args.verbose):
        if args.model is None or _model_id(console, args.model):
            for name in args.inputs:
                console.attempt(name, partial(one, name))
    return int(console.failures > 0)


def _folders(
    args: argparse.Namespace,
    console: Console,
    work: Work,
    options: dict[str, Any],
    plan: Callable[[Listing], Iterator[Job]],
    settings: str,
) -> int:
    """Takes every file in the folders to its output, in the same place or in the same place below --output-dir."""
    check_folders(args)
    model = _model_id(console, args.model) if args.model else ""
    if model is None:
        return 1
    how = " ".join((args.command, model, settings)).strip()
    # What is to be removed is done again, for then it is verified; to have done it before costs only time.
    run = Run(console, how, repeat=args.rm)
    try:
        jobs = run.jobs(FolderWalk(console, args.output_dir).listings(args.inputs), plan)
        for job, outcome in run.successes(map_unordered(JobRunner(work, options, how), jobs, args.jobs)):
            run.report(*format_report(args.command, job.path, outcome.report, args.verbose))
    except BrokenPipeError:  # whoever reads our stdout has left
        raise
    except OSError as exc:
        console.fail(args.output_dir or args.inputs[0], exc)
    return run.finish()


def _verify_folders(args: argparse.Namespace, console: Console) -> int:
    """Checks every .vae file in the folders, and against the manifest of the run that wrote them."""
    run = Run(console)
    jobs = run.jobs(FolderWalk(console).listings(args.inputs), verify_jobs)
    attempt = JobRunner(verify_job, {"model": args.model, **_means(args)})
    for job, outcome in run.successes(map_unordered(attempt, jobs, args.jobs)):
        entry = run.manifests[job.manifest].of_output(job.path) if job.manifest else None
        if entry is not None and entry.crc32 != outcome.crc:
            console.fail(job.path, CodecError("is whole, but not what was written there"))
        else:
            bytes = outcome.report["bytes"]
            run.report({"input": job.path, "ok": True, **outcome.report}, f"{job.path}: ok, {bytes} bytes")
    for manifest in run.manifests.values():
        for path in manifest.missing():
            console.fail(path, CodecError("is missing"))
    return run.finish()


def _model_id(console: Console, model: str) -> str | None:
    """The id of a model, None where it cannot be had; which is said once, not for each file."""
    from vaecodec.model.file import load_model

    try:
        found = load_model(model)
    except (CodecError, OSError) as exc:
        console.fail(model, exc)
        return None
    console.detail(f"model {found.name} {found.id}")
    return found.id
