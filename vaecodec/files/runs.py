"""Run jobs over many files: skip finished ones, collect outcomes from worker processes, and report failures."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from vaecodec.codec.rate_control import Target
from vaecodec.console import Console, about, explain, shown_warnings
from vaecodec.errors import CodecError, SkippedError
from vaecodec.files import manifest
from vaecodec.files.compression import compress_file, decompress_file, verify_file
from vaecodec.files.folders import Job, Listing
from vaecodec.files.manifest import Entry, Manifest


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
                    entry = manifest.entry_of(job.manifest, job.path, job.stat, self.how, report["output"], crc)
                    if not self.is_remote:
                        manifest.append(job.manifest, entry)
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
