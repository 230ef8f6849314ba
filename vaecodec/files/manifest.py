"""Record the finished outputs of runs over folders: a file beside them with a line of JSON for each.

A line holds the size and time of a source when it was read, and of its output when it was complete.  If neither has
changed, a later run skips the source; otherwise it processes the source again.  A line never causes a file to be
overwritten.  Standard library only.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

NAME = ".vaecodec-manifest.jsonl"


class Entry(NamedTuple):
    """One finished output; `source` and `output` are relative to the manifest's folder if they lie in it."""

    source: str
    size: int
    mtime_ns: int
    how: str  # the command and its settings
    output: str
    output_bytes: int
    output_mtime_ns: int
    crc32: int  # of the output


class Manifest:
    """The manifest of an output folder, as read; `entries` has the last line of each source."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        with suppress(FileNotFoundError), open(os.path.join(folder, NAME), "rb") as file:
            for line in file:
                if entry := _parse(line):
                    self.entries[entry.source] = entry
        self._outputs = {entry.output: entry for entry in self.entries.values()}

    def has(self, path: str, stat: os.stat_result, how: str) -> bool:
        """Tell whether a source in this state was processed in this way, and its output is unchanged."""
        entry = self.entries.get(_relative(self.folder, path))
        if entry is None or (entry.size, entry.mtime_ns, entry.how) != (stat.st_size, stat.st_mtime_ns, how):
            return False
        try:
            output = os.stat(os.path.join(self.folder, entry.output))
        except OSError:
            return False
        return (output.st_size, output.st_mtime_ns) == (entry.output_bytes, entry.output_mtime_ns)

    def of_output(self, path: str) -> Entry | None:
        """Return the entry of an output."""
        return self._outputs.get(_relative(self.folder, path))

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Base names of sources, by folder."""
        names: dict[str, list[str]] = {}
        for name in self.entries:
            names.setdefault(os.path.dirname(name) or os.curdir, []).append(os.path.basename(name))
        return names

    def sources_in(self, path: str) -> list[str]:
        """Return the base names of recorded sources in a folder, including those that have been removed."""
        return self._names.get(_relative(self.folder, path), [])

    def missing(self) -> list[str]:
        """Return paths of outputs that are gone, except those that are recorded as sources, which a run removes."""
        outputs = [entry.output for entry in self.entries.values() if entry.output not in self.entries]
        return [path for path in (os.path.join(self.folder, name) for name in outputs) if not os.path.lexists(path)]


def entry_of(folder: str, path: str, stat: os.stat_result, how: str, output: str, crc: int) -> Entry:
    """Make the entry of an output for the manifest in `folder`; `stat` is of the source before it was read.

    Raises OSError.
    """
    after = os.stat(output)
    source, target = (stat.st_size, stat.st_mtime_ns), (after.st_size, after.st_mtime_ns)
    return Entry(_relative(folder, path), *source, how, _relative(folder, output), *target, crc)


def append(folder: str, entry: Entry) -> None:
    """Append an entry to the manifest in `folder`; raises OSError."""
    # One write, so that lines of several processes do not mix; a line that a crash cut off is ended first.
    with open(os.path.join(folder, NAME), "ab+", buffering=0) as file:
        start = b""
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            start = b"" if file.read(1) == b"\n" else b"\n"
        file.write(start + json.dumps(entry._asdict()).encode() + b"\n")


def _relative(folder: str, path: str) -> str:
    """Return the name of a file in the manifest of a folder: relative if it lies in the folder, else its full path."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    relative = os.path.relpath(path, folder)
    return path if relative.split(os.sep)[0] == os.pardir else relative


def _parse(line: bytes) -> Entry | None:
    """Parse an entry; None for a line that is cut off, damaged, or of a later version."""
    try:
        entry = Entry(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = (str, int, int, str, str, int, int, int)
    return entry if all(type(value) is kind for value, kind in zip(entry, kinds, strict=True)) else None
