"""A run over many files: jobs, what becomes of them in other processes, and all failures at the end."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from vaecodec.console import Console, about, explain, shown_warnings
from vaecodec.errors import CodecError, SkippedError
from vaecodec.files.folders import Job, Listing
from vaecodec.files.manifest import Entry, Manifest, append, entry_of


class Outcome(NamedTuple):
    """What became of a job: a report, or an error, or a reason to leave the file alone."""

    report: dict[str, Any] = {}  # noqa: RUF012
    error: str = ""
    skipped: str = ""
    warnings: tuple[str, ...] = ()
    crc: int = 0  # CRC-32 of the output, or of what was verified
    entry: Entry | None = None  # for the manifest


Pairs = Generator[tuple[Job, Outcome | None], None, None]


@dataclass(frozen=True)
class Attempt:
    """Work on a job, for another process: whatever happens comes back as an Outcome.

    What is done goes into the manifest here, at once, so that a crash loses at most what each process is at; unless
    this is another machine, from which a file that several append to may not be safe.
    """

    work: Callable[..., dict[str, Any]]
    options: dict[str, Any]
    how: str = ""  # for the manifest
    elsewhere: bool = False

    def __call__(self, job: Job) -> Outcome:
        said: list[str] = []
        with shown_warnings(job.path, said.append):
            try:
                report = self.work(job, **self.options)
                crc, entry = _crc(report.get("output", job.path)), None
                if self.how and job.manifest and job.found:
                    entry = entry_of(job.manifest, job.path, job.found, self.how, report["output"], crc)
                    if not self.elsewhere:
                        append(job.manifest, entry)
                return Outcome(report, warnings=tuple(said), crc=crc, entry=entry)
            except SkippedError as exc:
                return Outcome(skipped=about(job.path, exc), warnings=tuple(said))
            except (CodecError, OSError, MemoryError) as exc:
                return Outcome(error=explain(job.path, exc), warnings=tuple(said))
            except Exception as exc:  # a bug, which must not be the end of the other files
                return Outcome(error=f"unexpected {type(exc).__name__}: {exc}", warnings=tuple(said))


class Run:
    """One run of a command over files and folders, and its tally."""

    def __init__(self, console: Console, how: str = "", again: bool = False) -> None:
        self._console, self._how, self._again = console, how, again or not how
        self.manifests: dict[str, Manifest] = {}  # by their folders
        self.done = self.unchanged = self.skipped = 0

    def jobs(self, listings: Iterator[Listing], plan: Callable[[Listing], Iterator[Job]]) -> Iterator[Job]:
        """All jobs of `plan`, but those that a manifest knows to be done, unless `again`."""
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
                    found = os.stat(job.path)
                    if not stat.S_ISREG(found.st_mode):
                        raise CodecError("neither a file nor a folder")
                except (CodecError, OSError) as exc:
                    self._console.fail(job.path, exc)
                    continue
                if not self._again and manifest is not None and manifest.has(job.path, found, self._how):
                    self.unchanged += 1
                    self._console.detail(f"{job.path}: done before")
                    continue
                yield job._replace(found=found, manifest=manifest.folder if manifest else None)

    def outcomes(self, pairs: Pairs) -> Iterator[tuple[Job, Outcome]]:
        """What becomes of each job that goes well, of all with None for those whose process was killed; the console
        is told of the others.
        """
        with closing(pairs):
            for job, outcome in pairs:
                outcome = outcome or Outcome(error="the process that worked on it was killed")
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

    def say(self, record: dict[str, Any], text: str) -> None:
        """Counts a job that went well to its end."""
        self.done += 1
        self._console.say(record, text)

    def end(self) -> int:
        """Says how it went, with all that failed, and returns the exit code."""
        console, counts = self._console, f"{self.done} done"
        for number, what in ((self.unchanged, "done before"), (self.skipped, "left alone")):
            counts += f", {number} {what}" if number else ""
        failed = console.failed
        console.note(f"{counts}, {len(failed)} failed" + (":" if failed else ""))
        for line in failed:
            console.error(line)
        return int(bool(failed))


def _crc(path: str) -> int:
    """CRC-32 of a file."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc
