"""Run jobs over many files: skip finished ones, collect outcomes from worker processes, and report failures.

The death of a worker process costs only the item it worked on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import sys
import threading
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, resource_tracker
from typing import Any, NamedTuple, TypeVar

from vaecodec.codec.rate_control import Target
from vaecodec.errors import CodecError, SkippedError
from vaecodec.files import folders
from vaecodec.files.compression import compress_file, decompress_file, verify_file
from vaecodec.files.folders import Entry, Job, Listing, Manifest
from vaecodec.progress import Console, about, explain, shown_warnings


class Outcome(NamedTuple):
    """The result of a job: a report, an error, or the reason why the file is skipped."""

    report: dict[str, Any] = {}  # noqa: RUF012
    error: str = ""
    skipped: str = ""
    warnings: tuple[str, ...] = ()
    crc: int = 0  # CRC-32 of the output, or of the verified file
    entry: Entry | None = None  # for the manifest


# Jobs with their outcomes; None if the process died.
Outcomes = Generator[tuple[Job, Outcome | None], None, None]


@dataclass(frozen=True)
class JobRunner:
    """Run a job in a worker process and turn every exception into an Outcome.

    A finished output is appended to the manifest at once, so that a crash loses at most the jobs that are running.
    With `is_remote` the caller appends it: appending from several machines is not safe on network file systems.
    """

    work: Callable[..., dict[str, Any]]
    options: dict[str, Any]
    how: str = ""  # for the manifest
    is_remote: bool = False

    def __call__(self, job: Job) -> Outcome:
        warnings: list[str] = []
        try:
            with shown_warnings(job.path, warnings.append):
                report = self.work(job, **self.options)
                crc, entry = _crc_of_file(report.get("output", job.path)), None
                if self.how and job.manifest and job.stat:
                    entry = folders.entry_of(job.manifest, job.path, job.stat, self.how, report["output"], crc)
                    if not self.is_remote:
                        folders.append_entry(job.manifest, entry)
            return Outcome(report, warnings=tuple(warnings), crc=crc, entry=entry)
        except SkippedError as exc:
            return Outcome(skipped=about(job.path, exc), warnings=tuple(warnings))
        except (CodecError, OSError, MemoryError) as exc:
            return Outcome(error=explain(job.path, exc), warnings=tuple(warnings))
        except Exception as exc:  # a defect, which must not stop the other files
            return Outcome(error=f"unexpected {type(exc).__name__}: {exc}", warnings=tuple(warnings))


def compress_job(job: Job, **options: Any) -> dict[str, Any]:
    """Compress the file of a job; accept an existing output with the same bytes."""
    return compress_file(
        job.path, job.folder, overwrite=job.overwrite, whole_name=job.whole_name, adopt=True, **options
    )


def decompress_job(job: Job, **options: Any) -> dict[str, Any]:
    """Decompress the file of a job; accept an existing output with the same bytes."""
    return decompress_file(job.path, job.folder, overwrite=job.overwrite, adopt=True, **options)


def verify_job(job: Job, **options: Any) -> dict[str, Any]:
    """Verify the file of a job."""
    return verify_file(job.path, **options)


def compress_settings(quality: float | Target, effort: int, strip: bool, only_images: bool) -> str:
    """Describe the settings of compression for a manifest, without the command and the model's id."""
    settings = str(quality) if isinstance(quality, Target) else f"{quality:g}"
    return settings + f" effort {effort}" * (effort > 1) + " strip" * strip + " only-images" * only_images


def format_report(command: str, name: str, report: dict[str, Any], verbose: bool = False) -> tuple[dict[str, Any], str]:
    """Format the report on one file: the record for --json and a line of text."""
    vae_bytes, file_bytes = report["bytes"], report.get("image_bytes", report.get("file_bytes"))
    before, after = (file_bytes, vae_bytes) if command == "compress" else (vae_bytes, file_bytes)
    rate = f"{report['bpp']:.3f} bpp" if "bpp" in report else "stored"
    text = f"{name}: {before} -> {after} bytes, {rate}, {report['seconds']:.2f} s"
    return {"input": name, **report}, text + (f" ({report['output']})" if verbose else "")


class Run:
    """One run of a command over files and folders, and its counts; `how` describes its settings for manifests."""

    def __init__(self, console: Console, how: str = "", repeat: bool = False) -> None:
        self._console, self._how, self._repeat = console, how, repeat or not how
        self.manifests: dict[str, Manifest] = {}  # by folder
        self.done = self.unchanged = self.skipped = 0

    def jobs(self, listings: Iterator[Listing], plan: Callable[[Listing], Iterator[Job]]) -> Iterator[Job]:
        """Yield the jobs of a plan, without those that a manifest records as done, unless the run repeats them."""
        for listing in listings:
            manifest = listing.manifest
            if manifest is not None:
                self.manifests[manifest.folder] = manifest
            try:
                planned = list(plan(listing))
            except OSError as exc:
                self._console.fail(listing.folder, exc)
                continue
            for job in planned:
                try:
                    info = os.stat(job.path)
                    if not stat.S_ISREG(info.st_mode):
                        raise CodecError("neither a file nor a folder")
                except (CodecError, OSError) as exc:
                    self._console.fail(job.path, exc)
                    continue
                if not self._repeat and manifest is not None and manifest.has(job.path, info, self._how):
                    self.unchanged += 1
                    self._console.detail(f"{job.path}: unchanged")
                    continue
                yield job._replace(stat=info, manifest=manifest.folder if manifest else None)

    def successes(self, outcomes: Outcomes) -> Iterator[tuple[Job, Outcome]]:
        """Yield the jobs that succeed; report the others, and all warnings, on the console."""
        with closing(outcomes):
            for job, outcome in outcomes:
                outcome = outcome or Outcome(error="the worker process was killed")
                for warning in outcome.warnings:
                    self._console.note(f"{job.path}: warning: {warning}")
                if outcome.report:
                    self._console.working(f"{self.done}: {job.path}")
                    yield job, outcome
                elif outcome.skipped:
                    self.skipped += 1
                    self._console.skip(job.path, outcome.skipped)
                else:
                    self._console.fail(job.path, CodecError(outcome.error))

    def report(self, record: dict[str, Any], text: str) -> None:
        """Count and report a job that has succeeded."""
        self.done += 1
        self._console.say(record, text)

    def finish(self) -> int:
        """Report the counts and repeat all failures; return the exit status."""
        failed, counts = self._console.failed, f"{self.done} done"
        for count, name in ((self.unchanged, "unchanged"), (self.skipped, "skipped")):
            counts += f", {count} {name}" if count else ""
        self._console.note(f"{counts}, {len(failed)} failed" + (":" if failed else ""))
        for line in failed:
            self._console.error(line)
        return int(bool(failed))


def _crc_of_file(path: str) -> int:
    """Compute the CRC-32 of a file."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


Item = TypeVar("Item")
TERMINATED = 143  # exit status after SIGTERM


def map_unordered(
    work: Callable[[Any], Any], items: Iterable[Item], processes: int
) -> Generator[tuple[Item, Any], None, None]:
    """Yield (item, work(item)) in order of completion; the result is None if the item's worker died twice.

    Items are taken from the iterable no faster than they are processed.  `work` must be picklable and should catch
    its exceptions.
    """
    waiting = iter(items)
    running: dict[Future[Any], Item] = {}
    with WorkerPool(processes) as pool:
        while True:
            for item in islice(waiting, 2 * processes - len(running)):
                running[pool.submit(work, item)] = item
            if not running:
                return
            lost = []
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    lost.append(item)
                else:
                    yield item, result
            if lost:  # one of these items may have killed the worker: each is tried again in a worker of its own
                lost += running.values()
                running.clear()
                pool.restart()
                for item in lost:
                    yield item, _run_alone(work, item)


def _run_alone(work: Callable[[Item], Any], item: Item) -> Any:
    with WorkerPool(1) as pool:
        try:
            return pool.submit(work, item).result()
        except BrokenProcessPool:
            return None


class WorkerPool:
    """Worker processes, spawned: forked ones would share the threads' state of BLAS or TensorFlow."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self.restart()

    def restart(self) -> None:
        """Replace the workers, after one has died."""
        self._pool = ProcessPoolExecutor(self._processes, multiprocessing.get_context("spawn"), _start_worker)

    def submit(self, work: Callable[[Item], Any], item: Item) -> Future[Any]:
        """Schedule work(item), and start a worker if none is idle."""
        try:
            with _interrupts_blocked():
                return self._pool.submit(_run, work, item)
        except BrokenProcessPool as exc:
            future: Future[Any] = Future()
            future.set_exception(exc)
            return future

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Wait for the workers; after an exception terminate them, so that they remove their temporary files."""
        if kind is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT while workers are started; they inherit the mask.

    Control-C reaches all processes of a terminal.  A worker would print a traceback until it has a handler.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which unblocks SIGINT when it starts its process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """Prepare a new worker: it ends with its parent or on SIGTERM, ignores Control-C, and prints nothing."""
    # First: SIGTERM may come where Python only prints the exception of its handler.  And libtiff prints.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and terminates its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _run(work: Callable[[Item], Any], item: Item) -> Any:
    try:
        return work(item)
    except SystemExit:  # on SIGTERM; `work` has removed its temporary files
        os._exit(TERMINATED)
