"""What a run over folders has done already: a line of JSON for each output, beside them.  Standard library only.

A line says how a source looked when it was read, and how its output looked when it was whole.  As long as both still
do there is nothing to do; otherwise the work is done again.  Nothing is ever overwritten because of a line.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

NAME = ".vaecodec-manifest.jsonl"


class Entry(NamedTuple):
    """One finished output; `source` and `output` are relative to the manifest's folder where they lie in it."""

    source: str
    size: int
    mtime_ns: int
    how: str  # the command and its settings
    output: str
    output_bytes: int
    output_mtime_ns: int
    crc32: int  # of the output


class Manifest:
    """The manifest of an output folder as it was found; `entries` has the last line of each source."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        with suppress(FileNotFoundError), open(os.path.join(folder, NAME), "rb") as file:
            for line in file:
                if entry := _parse(line):
                    self.entries[entry.source] = entry
        self._outputs = {entry.output: entry for entry in self.entries.values()}

    def has(self, path: str, found: os.stat_result, how: str) -> bool:
        """Whether a source that looks like this was done in this way, and its output is as it was then."""
        entry = self.entries.get(_name(self.folder, path))
        if entry is None or (entry.size, entry.mtime_ns, entry.how) != (found.st_size, found.st_mtime_ns, how):
            return False
        try:
            output = os.stat(os.path.join(self.folder, entry.output))
        except OSError:
            return False
        return (output.st_size, output.st_mtime_ns) == (entry.output_bytes, entry.output_mtime_ns)

    def of_output(self, path: str) -> Entry | None:
        """The entry that an output belongs to."""
        return self._outputs.get(_name(self.folder, path))

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Names of sources, by the folders that they lay in."""
        names: dict[str, list[str]] = {}
        for name in self.entries:
            names.setdefault(os.path.dirname(name) or os.curdir, []).append(os.path.basename(name))
        return names

    def sources_in(self, path: str) -> list[str]:
        """Names of the sources that were done in the folder `path`, those that are gone by now among them."""
        return self._names.get(_name(self.folder, path), [])

    def missing(self) -> list[str]:
        """Paths of outputs that are gone, but for those that another line takes as its source, and took away."""
        gone = [entry.output for entry in self.entries.values() if entry.output not in self.entries]
        return [path for path in (os.path.join(self.folder, name) for name in gone) if not os.path.lexists(path)]


def entry_of(folder: str, path: str, found: os.stat_result, how: str, output: str, crc: int) -> Entry:
    """What was done, for the manifest in `folder`.  Raises OSError.

    `found` is how the source at `path` looked before it was read.
    """
    written = os.stat(output)
    source, target = (found.st_size, found.st_mtime_ns), (written.st_size, written.st_mtime_ns)
    return Entry(_name(folder, path), *source, how, _name(folder, output), *target, crc)


def append(folder: str, entry: Entry) -> None:
    """Adds what was done to the manifest in `folder`.  Raises OSError."""
    # In one write, so that the lines of several processes do not mix, and after an end to what was cut off.
    with open(os.path.join(folder, NAME), "ab+", buffering=0) as file:
        begin = b""
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            begin = b"" if file.read(1) == b"\n" else b"\n"
        file.write(begin + json.dumps(entry._asdict()).encode() + b"\n")


def _name(folder: str, path: str) -> str:
    """How a file is called in the manifest of a folder: from there on if it lies in it, by its full path if not."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    inside = os.path.relpath(path, folder)
    return path if inside.split(os.sep)[0] == os.pardir else inside


def _parse(line: bytes) -> Entry | None:
    """An entry, or None for what is none: cut off, damaged, or of a later version."""
    try:
        fields = json.loads(line)
        entry = Entry(**fields)
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = (str, int, int, str, str, int, int, int)
    return entry if all(type(value) is kind for value, kind in zip(entry, kinds, strict=True)) else None
