"""Run jobs over many files: skip finished ones, collect outcomes from worker processes, and report failures.

The death of a worker process costs only the item it worked on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import sys
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, resource_tracker
from typing import Any, NamedTuple, TypeVar

from vaecodec.arguments import DEFAULT_TUNE
from vaecodec.codec.mode_decision import Target
from vaecodec.container.image_file import Header, read_preamble
from vaecodec.errors import CodecError, SkippedError
from vaecodec.files import folders
from vaecodec.files.compression import compress_file, decompress_file, verify_file
from vaecodec.files.folders import Entry, Job, Listing, Manifest
from vaecodec.files.planning import Workload
from vaecodec.model import name_of_model
from vaecodec.progress import Console, about, explain, format_bytes, format_seconds, shown_warnings


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


def settings_text(command: str, model: str, *settings: str) -> str:
    """Describe a command for a manifest: its name and model, and each setting that is not empty, by commas."""
    return ", ".join(filter(None, (f"{command} {model}".strip(), *settings)))


def compress_settings(
    quality: float | Target, effort: int, tune: str, strip: bool, only_images: bool
) -> tuple[str, ...]:
    """Describe the settings of compression for `settings_text`."""
    rate = str(quality) if isinstance(quality, Target) else f"quality {quality:g}"
    tuned = f"tune {tune}" * (tune != DEFAULT_TUNE)
    return rate, f"effort {effort}" * (effort > 1), tuned, "strip" * strip, "only-images" * only_images


def differing_settings(before: str, now: str) -> str:
    """Say how two texts of `settings_text` differ: "quality 50, not quality 20"."""
    old, new = ([_without_id(part) for part in text.split(", ")] for text in (before, now))
    was = ", ".join(part for part in old if part not in new) or "other defaults"
    return f"{was}, not {', '.join(part for part in new if part not in old) or 'the defaults'}"


def _without_id(part: str) -> str:
    """Replace the id of an installed model by its name."""
    command, _, model_id = part.partition(" ")
    return f"model {name_of_model(model_id) or model_id}" if command in ("compress", "decompress") else part


def sizes_of_report(command: str, report: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes of the input and of the output in the report on a file."""
    vae_bytes, file_bytes = report["bytes"], report.get("image_bytes", report.get("file_bytes", 0))
    return (file_bytes, vae_bytes) if command == "compress" else (vae_bytes, file_bytes)


def format_report(command: str, name: str, report: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Format the report on one file: the record for --json and a line of text."""
    before, after = map(format_bytes, sizes_of_report(command, report))
    rate = f"{report['bpp']:.3f} bits per pixel" if "bpp" in report else "without loss"
    text = f"{name}: {before} -> {report['output']}, {after} ({rate}), {format_seconds(report['seconds'])}"
    return {"input": name, **report}, text


class Tally:
    """What a run has done so far: files, bytes of inputs and outputs, seconds."""

    def __init__(self) -> None:
        self.done = self.unchanged = self.skipped = self.bytes_before = self.bytes_after = 0
        self._start = time.perf_counter()

    def add(self, before: int, after: int) -> None:
        """Count a file that is done."""
        self.done, self.bytes_before, self.bytes_after = (
            self.done + 1,
            self.bytes_before + before,
            self.bytes_after + after,
        )

    def report(self, console: Console, lists_failures: bool = False) -> None:
        """Report the counts, as text and as a record; with a colon if a list of failures follows."""
        failed, seconds = len(console.failed), time.perf_counter() - self._start
        counts = {"unchanged": self.unchanged, "skipped": self.skipped, "warnings": console.warnings}
        shown = {name.rstrip("s") if count == 1 else name: count for name, count in counts.items() if count}
        text = f"{self.done} done" + "".join(f", {count} {name}" for name, count in shown.items())
        text += f", {failed} failed; "
        if self.bytes_after:
            is_smaller = self.bytes_after < self.bytes_before
            share = f" ({100 * self.bytes_after / self.bytes_before:.0f} %)" if is_smaller else ""
            text += f"{format_bytes(self.bytes_before)} -> {format_bytes(self.bytes_after)}{share}, "
        elif self.bytes_before:
            text += f"{format_bytes(self.bytes_before)}, "
        text += format_seconds(seconds) + ":" * (lists_failures and failed > 0)
        sizes = {"bytes_before": self.bytes_before, "bytes_after": self.bytes_after, "seconds": seconds}
        console.say({"done": self.done, **counts, "failed": failed, **sizes}, text, status="summary")


class Run:
    """One run of a command over files and folders, and its counts; `how` describes its settings for manifests."""

    def __init__(self, console: Console, how: str = "", repeat: bool = False, workload: Workload | None = None) -> None:
        self._console, self._how, self._repeat, self._workload = console, how, repeat or not how, workload
        self.manifests: dict[str, Manifest] = {}  # by folder
        self.tally = Tally()

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
                    if manifest is not None:
                        self._check_settings(job, info, manifest)
                except (CodecError, OSError) as exc:
                    self._advance(job)
                    self._console.fail(job.path, exc)
                    continue
                if not self._repeat and manifest is not None and manifest.has(job.path, info, self._how):
                    self._pass_over(job, info, manifest)
                    continue
                yield job._replace(stat=info, manifest=manifest.folder if manifest else None)

    def _pass_over(self, job: Job, info: os.stat_result, manifest: Manifest) -> None:
        """Count and report a file that an earlier run has done."""
        self.tally.unchanged += 1
        if self._workload is not None:
            self._workload.advance(info.st_size, worked=False)
        record = {"input": job.path, "output": manifest.output_of(job.path)}
        text = f"{job.path}: unchanged" if self._console.verbose else ""
        self._console.say(record, text, status="unchanged")

    def _check_settings(self, job: Job, info: os.stat_result, manifest: Manifest) -> None:
        """Raise CodecError where an output was encoded with other settings and would not be replaced.

        Outputs without loss do not depend on the settings: they are made again, and adopted.
        """
        entry = None if job.overwrite or not self._how else manifest.other_settings(job.path, info, self._how)
        if entry is None:
            return
        path = os.path.join(manifest.folder, entry.output)
        is_lossy = False
        with suppress(CodecError), open(path, "rb") as file:
            is_lossy = isinstance(read_preamble(file).header, Header)
        if is_lossy:
            difference = differing_settings(entry.how, self._how)
            raise CodecError(f"{path} exists, made with {difference} (-f makes it anew)")

    def _advance(self, job: Job) -> None:
        if self._workload is not None:
            self._workload.advance(job.stat.st_size if job.stat else 0)
            self._workload.show(self._console, job.path)

    def successes(self, outcomes: Outcomes) -> Iterator[tuple[Job, Outcome]]:
        """Yield the jobs that succeed; report the others, and all warnings, on the console."""
        with closing(outcomes):
            for job, outcome in outcomes:
                outcome = outcome or Outcome(error="the worker process was killed")
                for warning in outcome.warnings:
                    self._console.warn(job.path, warning)
                if outcome.report:
                    yield job, outcome
                elif outcome.skipped:
                    self.tally.skipped += 1
                    self._console.skip(job.path, outcome.skipped)
                else:
                    self._console.fail(job.path, CodecError(outcome.error))
                self._advance(job)

    def report(self, record: dict[str, Any], text: str, sizes: tuple[int, int], warnings: Sequence[str] = ()) -> None:
        """Count and report a job that has succeeded, with the bytes of its input and output."""
        self.tally.add(*sizes)
        self._console.say(record | ({"warnings": list(warnings)} if warnings else {}), text)

    def finish(self) -> int:
        """Report the counts and repeat all failures; return the exit status."""
        failed = self._console.failed
        self._console.clear()
        self.tally.report(self._console, lists_failures=True)
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
