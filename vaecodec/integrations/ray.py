"""`vaecodec compress -r` by Ray Data, on one machine or on many that share a file system.

files --read: tasks, CPUs--> pictures --Analyse: actors, GPUs or CPUs--> latents --Finish: actors, CPUs--> files

What there is to do, names of outputs and the manifest are those of the command: each resumes what the other began.
Only the process that this is called from appends to the manifest; to do so from several machines is not safe on network
file systems.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from vaecodec.codec.rate_control import Target
from vaecodec.console import Console, explain
from vaecodec.container.image_file import quality_index_of
from vaecodec.errors import CodecError
from vaecodec.files.folders import FolderWalk, Job, compress_jobs
from vaecodec.files.manifest import append
from vaecodec.files.runs import Outcome, Outcomes, Run, compress_settings, format_report
from vaecodec.limits import DEFAULT, Limits
from vaecodec.model.file import load_model
from vaecodec.model.library import SUFFIX
from vaecodec.rdo.refinement import check_effort

try:
    import ray
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
    from ray.util.annotations import RayDeprecationWarning

    from vaecodec.integrations import ray_operators as operators
except ImportError as exc:
    raise ImportError(
        f"vaecodec.integrations.ray needs Ray: pip install 'vaecodec[ray]' ({exc})", name=exc.name
    ) from exc

# Shares of a core: there are as many of each as cores, and what has nothing to do leaves it to the others.
READ, ANALYSE, FINISH = 0.1, 0.4, 0.5
TRIES = 2  # more, of what was being done when its process died; then each file has another, alone
STARTS = 3  # of Ray, before it is given up
ARROW: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}  # tables whole, as they come
GROUP, GROUP_BYTES = 16, 1 << 23  # files that go together: at most so many, or of so many bytes


class Summary(NamedTuple):
    """How a run went: numbers of files, and a line for each that failed."""

    done: int
    unchanged: int  # done before
    skipped: int
    failed: list[str]


def compress(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str] | None = None,
    quality: float = 50.0,
    model: str = "small",
    overwrite: bool = False,
    strip: bool = False,
    remove: bool = False,
    only_images: bool = False,
    limits: Limits | None = DEFAULT,
    target_size: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    effort: int = 1,
    device: str = "cpu",
    analysers: int | None = None,
    finishers: int | None = None,
    verbose: bool = False,
) -> Summary:
    """Files and folders -> .vae files below `output_dir`, or beside their sources where that is None.

    Names, bytes, what is stored and what is left alone are those of `vaecodec compress -r`; the options are those of
    compress_file.  `device` is where the transforms run: "cpu", "gpu" or "tensorflow", as for vaecodec.load; with the
    last two, bytes may differ in what a last bit of rounding decides.  At most so many `analysers` and `finishers` work
    at once (default: a GPU each, or a core).  Ray is started on this machine where it runs nowhere; on a cluster all
    paths must be the same files everywhere.  A line on stderr for each file that fails, and with `verbose` for all.
    Raises ImportError without Ray, ModelError, CodecError where Ray gives up or has no such device, ValueError on an
    option out of range, OSError where nothing can be written to `output_dir`.  The same call again resumes.
    """
    wanted = Target.from_arguments(target_size, target_bpp, target_psnr, quality)
    check_effort(effort)
    if not isinstance(wanted, Target):
        quality_index_of(wanted)
    options = {"quality": quality, "model": model, "strip": strip, "remove": remove, "only_images": only_images}
    options |= {"target_size": target_size, "target_bpp": target_bpp, "target_psnr": target_psnr, "effort": effort}
    identity = load_model(model).id
    options["model"] = os.path.abspath(model) if model.endswith(SUFFIX) else model
    how = f"compress {identity} {compress_settings(wanted, effort, strip, only_images)}"
    settings = operators.Settings(wanted, {**options, "limits": limits, "threads": 1}, identity, how)
    paths = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs

    console = Console(quiet=not verbose)
    run = Run(console, how, repeat=remove)
    walk = FolderWalk(console, None if output_dir is None else os.fspath(output_dir))
    jobs = list(
        run.jobs(walk.listings([os.fspath(path) for path in paths]), partial(compress_jobs, overwrite=overwrite))
    )
    for job, outcome in run.successes(_each(jobs, settings, device, analysers, finishers)):
        run.report(*format_report("compress", job.path, outcome.report))
    run.finish()
    return Summary(run.done, run.unchanged, run.skipped, [line.removeprefix("vaecodec: ") for line in console.failed])


def _each(
    jobs: list[Job], settings: operators.Settings, device: str, analysers: int | None, finishers: int | None
) -> Outcomes:
    """(job, what became of it) as they are done, in any order; None for a job whose process died every time."""
    if not jobs:
        return
    start()
    waiting = {number: _everywhere(job) for number, job in enumerate(jobs)}
    with _calm():
        try:
            for number, outcome in _outcomes(waiting, settings, device, analysers, finishers):
                if waiting.pop(number, None):
                    yield jobs[number], _noted(jobs[number], outcome)
            lost = {number: _alone.remote(job, settings) for number, job in waiting.items()}
            for number, found in lost.items():
                yield jobs[number], _noted(jobs[number], _result(found))
        except ray.exceptions.RayError as exc:
            why = str(exc).strip().splitlines()
            raise CodecError(f"Ray gave up: {why[-1] if why else type(exc).__name__}") from exc


def _outcomes(
    jobs: dict[int, Job], settings: operators.Settings, device: str, analysers: int | None, finishers: int | None
) -> Iterator[tuple[int, Outcome]]:
    """(number of a job, what became of it), but for those that were lost with a process."""
    there = ray.cluster_resources()
    cores, gpus = max(1, int(there.get("CPU", 1))), int(there.get("GPU", 0))
    if device == "gpu" and not gpus:
        raise CodecError("device is 'gpu', and Ray knows of no GPU")
    analysers = analysers or (gpus if device == "gpu" else cores)
    data: ray.data.Dataset = ray.data.from_arrow([operators.table_of([(0, group)]) for group in _groups(jobs, cores)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # nothing else bounds how often a task is tried again
        data = data.map_batches(
            partial(operators.read, settings=settings),
            compute=TaskPoolStrategy(),
            num_cpus=READ,
            ray_remote_args_fn=lambda: {"max_retries": TRIES},
            **ARROW,
        )
        if not isinstance(settings.wanted, Target) and settings.options["effort"] == 1:
            data = data.map_batches(
                operators.Analyse,
                fn_constructor_args=(settings, device),
                compute=_pool(analysers),
                num_cpus=ANALYSE,
                num_gpus=int(device == "gpu"),
                ray_remote_args_fn=lambda: {"max_task_retries": TRIES},
                **ARROW,
            )
        data = data.map_batches(
            operators.Finish,
            fn_constructor_args=(settings,),
            compute=_pool(finishers or cores),
            num_cpus=FINISH,
            ray_remote_args_fn=lambda: {"max_task_retries": TRIES},
            **ARROW,
        )
    for table in data.iter_batches(**ARROW):
        yield from operators.rows_of(table)


def _pool(most: int) -> ActorPoolStrategy:
    """Actors that wait for little: what they hold when they die is to be done again."""
    return ActorPoolStrategy(min_size=1, max_size=most, max_tasks_in_flight_per_actor=2)


@ray.remote(max_retries=0)
def _alone(job: Job, settings: operators.Settings) -> Outcome:
    """A job that was lost, in a process that does nothing else meanwhile."""
    return operators.alone(job, settings)


def _result(found: Any) -> Outcome | None:
    try:
        return ray.get(found)
    except ray.exceptions.RayError:
        return None


def _noted(job: Job, outcome: Outcome | None) -> Outcome | None:
    """What became of a job, once it is in the manifest."""
    if outcome is not None and outcome.entry is not None and job.manifest is not None:
        try:
            append(job.manifest, outcome.entry)
        except OSError as exc:
            return Outcome(error=explain(job.path, exc), warnings=outcome.warnings)
    return outcome


def _everywhere(job: Job) -> Job:
    """A job with full paths, as other processes have other working folders."""
    folder, manifest = (None if path is None else os.path.abspath(path) for path in (job.folder, job.manifest))
    return job._replace(path=os.path.abspath(job.path), folder=folder, manifest=manifest)


def _groups(jobs: dict[int, Job], cores: int) -> Iterator[list[tuple[int, Job]]]:
    """What one task reads: few files where they are large, or where there are few."""
    most, size = min(GROUP, -(-len(jobs) // (4 * cores))), 0
    group: list[tuple[int, Job]] = []
    for number, job in jobs.items():
        found = job.stat.st_size if job.stat else 0
        if group and (len(group) == most or size + found > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append((number, job))
        size += found
    if group:
        yield group


def start(**options: Any) -> None:
    """Finds a cluster as Ray does (RAY_ADDRESS), or starts one here, which goes on until this process ends.

    `options` are those of ray.init.  Raises CodecError where Ray does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    tries = 0
    while not ray.is_initialized():
        try:
            ray.init(**{"logging_level": logging.ERROR, **options})
        except Exception as exc:  # it has no better class; a busy machine may take longer than the 30 s it is given
            ray.shutdown()
            tries += 1
            if tries == STARTS:
                raise CodecError(f"Ray does not start: {exc}") from exc


@contextmanager
def _calm() -> Iterator[None]:
    """Ray Data without its bars and reports, and with patience: a process that dies is no reason to end the run."""
    context, logger = DataContext.get_current().copy(), logging.getLogger("ray.data")
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    context.max_consecutive_actor_init_deaths = TRIES
    context.execution_no_progress_timeout_s = -1  # a single file may take hours
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with DataContext.current(context):
            yield
    finally:
        logger.setLevel(level)
