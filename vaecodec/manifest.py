"""What a run over folders has done already: a line of JSON for each output, beside them.  Standard library only.

A line says how a source looked when it was read, and how its output looked when it was whole.  As long as both still
do there is nothing to do; otherwise the work is done again.  Nothing is ever overwritten because of a line.
"""

from __future__ import annotations

import json
import os
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
    """The manifest of an output folder, read and appended to; `entries` has the last line of each source."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = os.path.join(folder, NAME)
        self.entries: dict[str, Entry] = {}
        self._outputs: dict[str, Entry] = {}
        try:
            with open(self.path, "rb") as file:
                for line in file:
                    if entry := _parse(line):
                        self.entries[entry.source] = entry
        except FileNotFoundError:
            pass

    def name(self, path: str) -> str:
        """How a file is called in here."""
        inside = os.path.relpath(os.path.realpath(path), os.path.realpath(self.folder))
        return os.path.realpath(path) if inside.split(os.sep)[0] == os.pardir else inside

    def has(self, path: str, found: os.stat_result, how: str) -> bool:
        """Whether a source that looks like this was done in this way, and its output is as it was then."""
        entry = self.entries.get(self.name(path))
        if entry is None or (entry.size, entry.mtime_ns, entry.how) != (found.st_size, found.st_mtime_ns, how):
            return False
        try:
            output = os.stat(os.path.join(self.folder, entry.output))
        except OSError:
            return False
        return (output.st_size, output.st_mtime_ns) == (entry.output_bytes, entry.output_mtime_ns)

    def add(self, path: str, found: os.stat_result, how: str, output: str, written: os.stat_result, crc: int) -> None:
        """Appends a line, which a killed run leaves whole or as one that is not read.  Raises OSError."""
        key, times = self.name(path), (written.st_size, written.st_mtime_ns)
        entry = Entry(key, found.st_size, found.st_mtime_ns, how, self.name(output), *times, crc)
        # Appended in one write, so that the lines of two runs at once do not mix; and first an end to what was cut off.
        with open(self.path, "ab+", buffering=0) as file:
            begin = b""
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                begin = b"" if file.read(1) == b"\n" else b"\n"
            file.write(begin + json.dumps(entry._asdict()).encode() + b"\n")
        self.entries[key] = entry

    def of_output(self, path: str) -> Entry | None:
        """The entry that an output belongs to."""
        if len(self._outputs) != len(self.entries):
            self._outputs = {entry.output: entry for entry in self.entries.values()}
        return self._outputs.get(self.name(path))

    def missing(self) -> list[str]:
        """Paths of outputs that are gone, but for those that another line takes as its source, and took it away."""
        gone = [entry.output for entry in self.entries.values() if entry.output not in self.entries]
        return [path for path in (os.path.join(self.folder, name) for name in gone) if not os.path.lexists(path)]


def _parse(line: bytes) -> Entry | None:
    """An entry, or None for what is none: cut off, damaged, or of a later version."""
    try:
        fields = json.loads(line)
        entry = Entry(**fields)
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = (str, int, int, str, str, int, int, int)
    return entry if all(type(value) is kind for value, kind in zip(entry, kinds, strict=True)) else None
