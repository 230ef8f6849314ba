"""Compress folders with Ray Data, on one machine or on several that share a file system.

files --read: tasks, CPUs--> images --Analyse: actors, GPUs or CPUs--> latents --Finish: actors, CPUs--> files

Jobs, names of outputs and the manifest are those of `vaecodec compress -r`, and each resumes a run of the other.
Operators pass on tables of rows: the number of a job and a pickled Task or Outcome.  If one fails on a job, Finish
compresses the file as the command does.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

from vaecodec.arguments import DEFAULT_LIMITS, DEFAULT_MODEL, Limits, check_tune
from vaecodec.codec.mode_decision import Target
from vaecodec.errors import CodecError
from vaecodec.files.folders import FolderWalk, Job, append_entry, compress_jobs
from vaecodec.files.runs import (
    Outcome,
    Outcomes,
    Run,
    compress_settings,
    format_report,
    settings_text,
    sizes_of_report,
)
from vaecodec.model import SUFFIX
from vaecodec.model.file import load_model
from vaecodec.progress import Console, explain
from vaecodec.rdo.prices import check_effort

try:
    import ray
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
    from ray.util.annotations import RayDeprecationWarning

    from vaecodec.integrations.ray_tasks import Analyse, Finish, Settings, read, rows_of, run_alone, table_of
except ImportError as exc:
    message = f"vaecodec.integrations.ray needs Ray: pip install 'vaecodec[ray]' ({exc})"
    raise ImportError(message, name=exc.name) from exc

# CPUs of a task or actor: each operator has one per core, and an idle one leaves the core to the others.
READ_CPUS, ANALYSE_CPUS, FINISH_CPUS = 0.1, 0.4, 0.5
RETRIES = 2  # of the work of a process that died; a job that is lost after that has one more try, alone
START_TRIES = 3
BATCH_OPTIONS: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}  # whole tables
GROUP_FILES, GROUP_BYTES = 16, 1 << 23  # limits of the files that one task reads


class Summary(NamedTuple):
    """The counts of a run, and a message for each file that failed."""

    done: int
    unchanged: int  # done by an earlier run
    skipped: int
    failed: list[str]


def compress(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str] | None = None,
    quality: float | None = None,
    model: str = DEFAULT_MODEL,
    overwrite: bool = False,
    strip: bool = False,
    remove: bool = False,
    only_images: bool = False,
    limits: Limits | None = DEFAULT_LIMITS,
    target_size: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    lossless: bool = False,
    max_error: int | None = None,
    effort: int = 1,
    tune: str | None = None,
    device: str = "cpu",
    analysers: int | None = None,
    finishers: int | None = None,
    verbose: bool = False,
) -> Summary:
    """Compress files and folders to .vae files below `output_dir`, or beside their sources if that is None.

    The options are those of compress_file; the same call again resumes a run.  Ray is started on this machine unless
    it runs already; on a cluster all paths must be the same files on every machine.

    Args:
        device: for the transforms, "cpu", "gpu" or "tensorflow" as in vaecodec.load; with the last two, rounding
            differences may change bytes.
        analysers: the largest number of actors for the analysis (default: one per GPU, or per core).
        finishers: the largest number of actors for entropy coding (default: one per core).
        verbose: print a line for each file, not only for those that fail.

    Raises:
        ImportError: Ray is not installed.
        ModelError: the model cannot be loaded.
        CodecError: Ray gives up, or has no such device.
        ValueError: an option is out of range.
        OSError: `output_dir` cannot be written to.
    """
    target = Target.from_arguments(target_size, target_bpp, target_psnr, quality, lossless, max_error)
    check_effort(effort)
    tune = check_tune(tune, target_psnr)
    options: dict[str, Any] = {"quality": quality, "lossless": lossless, "max_error": max_error}
    options |= {"effort": effort, "tune": tune}
    options |= {"target_size": target_size, "target_bpp": target_bpp, "target_psnr": target_psnr, "model": model}
    options |= {"strip": strip, "remove": remove, "only_images": only_images, "limits": limits, "threads": 1}
    model_id = load_model(model).id
    options["model"] = os.path.abspath(model) if model.endswith(SUFFIX) else model
    how = settings_text("compress", model_id, *compress_settings(target, effort, tune, strip, only_images))
    settings = Settings(target, options, model_id, how)
    paths = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs

    console = Console(quiet=not verbose)
    run = Run(console, how, repeat=remove)
    walk = FolderWalk(console, None if output_dir is None else os.fspath(output_dir))
    plan = partial(compress_jobs, overwrite=overwrite)
    jobs = list(run.jobs(walk.listings([os.fspath(path) for path in paths]), plan))
    for job, outcome in run.successes(_map_jobs(jobs, settings, device, analysers, finishers)):
        sizes = sizes_of_report("compress", outcome.report)
        run.report(*format_report("compress", job.path, outcome.report), sizes, outcome.warnings)
    run.finish()
    tally = run.tally
    return Summary(
        tally.done, tally.unchanged, tally.skipped, [line.removeprefix("vaecodec: ") for line in console.failed]
    )


def start(**options: Any) -> None:
    """Connect to a cluster as Ray does (RAY_ADDRESS), or start Ray here until this process ends.

    `options` are those of ray.init.  Raises CodecError if Ray does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    tries = 0
    while not ray.is_initialized():
        try:
            ray.init(**{"logging_level": logging.ERROR, **options})
        except Exception as exc:  # Ray gives itself 30 s, which a busy machine may exceed, and raises no special class
            ray.shutdown()
            tries += 1
            if tries == START_TRIES:
                raise CodecError(f"Ray does not start: {exc}") from exc


def _map_jobs(
    jobs: list[Job], settings: Settings, device: str, analysers: int | None, finishers: int | None
) -> Outcomes:
    """Yield jobs with their outcomes in order of completion; None if the process of a job died at every try."""
    if not jobs:
        return
    start()
    waiting = {number: _with_full_paths(job) for number, job in enumerate(jobs)}
    with _quiet_data_context():
        try:
            for number, outcome in _run_pipeline(waiting, settings, device, analysers, finishers):
                if waiting.pop(number, None):
                    yield jobs[number], _record(jobs[number], outcome)
            lost = {number: _run_alone.remote(job, settings) for number, job in waiting.items()}
            for number, reference in lost.items():
                result: Outcome | None = None
                with suppress(ray.exceptions.RayError):
                    result = ray.get(reference)
                yield jobs[number], _record(jobs[number], result)
        except ray.exceptions.RayError as exc:
            lines = str(exc).strip().splitlines()
            raise CodecError(f"Ray gave up: {lines[-1] if lines else type(exc).__name__}") from exc


def _run_pipeline(
    jobs: dict[int, Job], settings: Settings, device: str, analysers: int | None, finishers: int | None
) -> Iterator[tuple[int, Outcome]]:
    """Yield (number of a job, outcome), without the jobs that were lost with a process."""
    cluster = ray.cluster_resources()
    cores, gpus = max(1, int(cluster.get("CPU", 1))), int(cluster.get("GPU", 0))
    if device == "gpu" and not gpus:
        raise CodecError("device is 'gpu', but Ray has no GPU")
    analysers = analysers or (gpus if device == "gpu" else cores)
    data: ray.data.Dataset = ray.data.from_arrow([table_of([(0, group)]) for group in _group_jobs(jobs, cores)])
    actor_options = {"ray_remote_args_fn": lambda: {"max_task_retries": RETRIES}, **BATCH_OPTIONS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # ray_remote_args_fn alone bounds retries
        data = data.map_batches(
            partial(read, settings=settings),
            compute=TaskPoolStrategy(),
            num_cpus=READ_CPUS,
            ray_remote_args_fn=lambda: {"max_retries": RETRIES},
            **BATCH_OPTIONS,
        )
        if not isinstance(settings.quality, Target) and settings.options["effort"] == 1:
            data = data.map_batches(
                Analyse,
                fn_constructor_args=(settings, device),
                compute=_actor_pool(analysers),
                num_cpus=ANALYSE_CPUS,
                num_gpus=int(device == "gpu"),
                **actor_options,
            )
        data = data.map_batches(
            Finish,
            fn_constructor_args=(settings,),
            compute=_actor_pool(finishers or cores),
            num_cpus=FINISH_CPUS,
            **actor_options,
        )
    for table in data.iter_batches(**BATCH_OPTIONS):
        yield from rows_of(table)


def _actor_pool(size: int) -> ActorPoolStrategy:
    # A short queue per actor, as the queue of an actor that dies must be processed again.
    return ActorPoolStrategy(min_size=1, max_size=size, max_tasks_in_flight_per_actor=2)


@contextmanager
def _quiet_data_context() -> Iterator[None]:
    """Run Ray Data without progress bars and reports, and tolerate processes that die."""
    context, logger = DataContext.get_current().copy(), logging.getLogger("ray.data")
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    context.max_consecutive_actor_init_deaths = RETRIES
    context.execution_no_progress_timeout_s = -1  # a single file may take hours
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with DataContext.current(context):
            yield
    finally:
        logger.setLevel(level)


def _with_full_paths(job: Job) -> Job:
    """Return a job for processes with other working folders."""
    folder, manifest = (None if path is None else os.path.abspath(path) for path in (job.folder, job.manifest))
    return job._replace(path=os.path.abspath(job.path), folder=folder, manifest=manifest)


def _group_jobs(jobs: dict[int, Job], cores: int) -> Iterator[list[tuple[int, Job]]]:
    """Group the files that one task reads: few if they are large, or if there are few in all."""
    most, group_bytes = min(GROUP_FILES, -(-len(jobs) // (4 * cores))), 0
    group: list[tuple[int, Job]] = []
    for number, job in jobs.items():
        size = job.stat.st_size if job.stat else 0
        if group and (len(group) == most or group_bytes + size > GROUP_BYTES):
            yield group
            group, group_bytes = [], 0
        group.append((number, job))
        group_bytes += size
    if group:
        yield group


def _record(job: Job, outcome: Outcome | None) -> Outcome | None:
    """Append a finished output to the manifest; return the outcome."""
    if outcome is not None and outcome.entry is not None and job.manifest is not None:
        try:
            append_entry(job.manifest, outcome.entry)
        except OSError as exc:
            return Outcome(error=explain(job.path, exc), warnings=outcome.warnings)
    return outcome


_run_alone = ray.remote(max_retries=0)(run_alone)  # in a process of its own
