"""Plan a run over many files: list the files in folders, and name a job for each file to be processed.

Finished outputs are recorded in a manifest, a file beside them with a line of JSON for each.  A line holds the size and
time of a source when it was read, and of its output when it was complete.  If neither has changed, a later run skips
the source; otherwise it processes the source again.  A line never causes a file to be overwritten."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from vaecodec.atomic import TEMPORARY
from vaecodec.container import MAGIC, SUFFIX
from vaecodec.errors import CodecError
from vaecodec.files.outputs import compressed_name, decompressed_name, name_without_suffix
from vaecodec.files.planning import Selection
from vaecodec.progress import Console

MANIFEST_NAME = ".vaecodec-manifest.jsonl"


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
        with suppress(FileNotFoundError), open(os.path.join(folder, MANIFEST_NAME), "rb") as file:
            for line in file:
                if entry := _parse_entry(line):
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

    def other_settings(self, path: str, stat: os.stat_result, how: str) -> Entry | None:
        """Return the entry of an output that was made of a source in this state, but in another way."""
        entry = self.entries.get(_relative(self.folder, path))
        if entry is None or entry.how == how or (entry.size, entry.mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            return None
        return entry if os.path.isfile(os.path.join(self.folder, entry.output)) else None

    def output_of(self, path: str) -> str:
        """Return the path of the output of a source."""
        return os.path.join(self.folder, self.entries[_relative(self.folder, path)].output)

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


def append_entry(folder: str, entry: Entry) -> None:
    """Append an entry to the manifest in `folder`; raises OSError."""
    # One write, so that lines of several processes do not mix; a line that a crash cut off is ended first.
    with open(os.path.join(folder, MANIFEST_NAME), "ab+", buffering=0) as file:
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


def _parse_entry(line: bytes) -> Entry | None:
    """Parse an entry; None for a line that is cut off, damaged, or of a later version."""
    try:
        entry = Entry(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = (str, int, int, str, str, int, int, int)
    return entry if all(type(value) is kind for value, kind in zip(entry, kinds, strict=True)) else None


FolderId = tuple[int, int]  # device and inode: the same for every path to a folder


class Job(NamedTuple):
    """One file to process; its output goes to `folder`, or beside the file if that is None."""

    path: str
    folder: str | None = None
    overwrite: bool = False
    whole_name: bool = False
    stat: os.stat_result | None = None  # of the file when the job was planned
    manifest: str | None = None  # the folder of the manifest that records the output


class Listing(NamedTuple):
    """Files of one folder, the folder that their outputs go to, and the manifest of earlier runs."""

    paths: list[str]
    folder: str
    in_place: bool
    manifest: Manifest | None


class FolderWalk:
    """Find the files of a run whose outputs go below `output`, or beside their sources if that is None.

    The console reports files and folders that are skipped or cannot be read.
    """

    def __init__(
        self,
        console: Console,
        output: str | None = None,
        selection: Selection = Selection(),  # noqa: B008  (it cannot be changed)
        makes_folders: bool = True,
    ) -> None:
        self._console, self._output, self._selection, self._makes_folders = console, output, selection, makes_folders
        self._sources: dict[FolderId | str, str] = {}  # by output folder

    def listings(self, inputs: list[str]) -> Iterator[Listing]:
        """List the named files, and those in the named folders, each output folder once; raises OSError."""
        files = [path for path in inputs if not os.path.isdir(path)]
        folders = [path for path in inputs if os.path.isdir(path)]
        if self._output is None:
            yield from (Listing([path], os.path.dirname(path), True, None) for path in files)
            for path in folders:
                try:
                    yield from self._below(path, path, Manifest(path))
                except OSError as exc:  # the manifest cannot be read
                    self._console.fail(path, exc)
            return
        if self._makes_folders:
            os.makedirs(self._output, exist_ok=True)
        shared = Manifest(self._output)
        if files:
            self._sources[_folder_key(self._output)] = "the files named"
            yield Listing(files, self._output, False, shared)
        for path in folders:
            name = os.path.basename(os.path.normpath(path))
            target = self._output if name in ("", os.curdir, os.pardir) else os.path.join(self._output, name)
            yield from self._below(path, target, shared)

    def _below(self, path: str, target: str, manifest: Manifest) -> Iterator[Listing]:
        """List the files in a folder, then those in its folders; report a folder that fails and go on."""
        root = path
        waiting: list[tuple[str, str, tuple[FolderId, ...]]] = [(path, target, ())]
        while waiting:
            path, target, parents = waiting.pop()
            try:
                here = _folder_id(path)
                if here in parents:  # possible with mounts
                    raise CodecError("contains itself")
                if parents and self._output is not None and here == _folder_key(self._output):
                    continue
                files, folders = self._entries(path, root)
                if self._output is not None and self._makes_folders and not os.path.isdir(target):
                    os.mkdir(target, os.stat(path).st_mode & 0o777 | 0o700)
                first = self._sources.get(_folder_key(target))
                if first and os.path.isdir(first) and os.path.samefile(first, path):
                    continue  # named twice
                if first:
                    raise CodecError(f"{target} already holds the outputs of {first}")
                self._sources[_folder_key(target)] = path
            except (CodecError, OSError) as exc:
                self._console.fail(path, exc)
                continue
            yield Listing(files, target, self._output is None, manifest)
            inner = [(os.path.join(path, name), os.path.join(target, name), (*parents, here)) for name in folders]
            waiting += reversed(inner)

    def _entries(self, path: str, root: str) -> tuple[list[str], list[str]]:
        """Return paths of the selected files in a folder below `root`, and names of the folders in it.

        Links are not followed.
        """
        files, folders = [], []
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                inside = os.path.relpath(entry.path, root)
                if entry.is_dir(follow_symlinks=False):
                    if self._selection.takes_folder(inside):
                        folders.append(entry.name)
                elif not self._selection.takes_file(inside):
                    continue
                elif entry.is_symlink():
                    self._console.warn(entry.path, "symbolic link, skipped")
                elif not entry.is_file():
                    self._console.warn(entry.path, "neither a file nor a folder, skipped")
                elif entry.name != MANIFEST_NAME and not TEMPORARY.fullmatch(entry.name):
                    files.append(entry.path)
        return files, folders


def compress_jobs(listing: Listing, overwrite: bool) -> Iterator[Job]:
    """Plan a job for each file, except .vae files beside their sources; raises OSError.

    Images whose outputs would share a name (photo.jpg and photo.png) are named like any other file: photo.jpg.vae.
    Sources that an earlier run has removed count too, or a resumed run would name the remaining files differently.
    """
    paths = [path for path in listing.paths if not (listing.in_place and is_vae(path))]
    sources = {*map(os.path.abspath, paths)}
    if listing.manifest:
        for folder in {os.path.dirname(path) for path in sources}:
            sources |= {os.path.join(folder, name) for name in listing.manifest.sources_in(folder)}
    stems = _stems(sources)
    names, existing = Counter(map(os.path.basename, paths)), _names_in(listing.folder)
    for path in paths:
        whole_name = stems[_key(os.path.splitext(path)[0])] > 1
        outputs = {os.path.basename(compressed_name(path, is_image)) for is_image in (not whole_name, False)}
        is_unique = names[os.path.basename(path)] == 1
        may_overwrite = overwrite and is_unique and bool(outputs & existing)
        yield Job(path, None if listing.in_place else listing.folder, may_overwrite, whole_name)


def _stems(paths: Iterable[str]) -> Counter[str]:
    """Count the names that outputs of files in one folder may have, without .vae."""
    return Counter(name for path in paths for name in {_key(path), _key(os.path.splitext(path)[0])})


def whole_names(paths: list[str], folder: str | None) -> set[str]:
    """Return the files whose outputs in `folder`, or beside them, would share a name: photo.jpg and photo.png.

    As in a run over folders, these are named like any other file: photo.jpg.vae.
    """
    groups: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        groups.setdefault("" if folder is not None else os.path.realpath(os.path.dirname(path)), []).append(path)
    stems = {group: _stems(members) for group, members in groups.items()}
    return {
        path
        for group, members in groups.items()
        for path in members
        if stems[group][_key(os.path.splitext(path)[0])] > 1
    }


def decompress_jobs(listing: Listing, overwrite: bool) -> Iterator[Job]:
    """Plan a job for each file with the suffix .vae, and for each that was named and is missing; raises OSError."""
    paths = [path for path in listing.paths if _is_output(path)]
    outputs = {
        path: {os.path.basename(name(path)) for name in (name_without_suffix, decompressed_name)} for path in paths
    }
    names, existing = Counter(_key(name) for both in outputs.values() for name in both), _names_in(listing.folder)
    for path in paths:
        is_unique = max(names[_key(name)] for name in outputs[path]) == 1
        may_overwrite = overwrite and is_unique and bool(outputs[path] & existing)
        yield Job(path, None if listing.in_place else listing.folder, may_overwrite)


def verify_jobs(listing: Listing) -> Iterator[Job]:
    """Plan a job for each file with the suffix .vae, and for each that was named and is missing."""
    return (Job(path) for path in listing.paths if _is_output(path))


def _is_output(path: str) -> bool:
    """Whether to decode a file: by its suffix, or because it is missing, which is reported."""
    return path.lower().endswith(SUFFIX) or not os.path.lexists(path)


def is_vae(path: str) -> bool:
    """Tell whether a file is a .vae file, by its suffix and its first bytes."""
    if not path.lower().endswith(SUFFIX):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:  # reported when the file is compressed
        return False


def _key(path: str) -> str:
    """Return a base name as a file system that ignores case compares it."""
    return os.path.basename(path).casefold()


def _names_in(folder: str) -> set[str]:
    """Return the names that exist before the run: files that appear later are never overwritten."""
    with suppress(FileNotFoundError):  # a folder that a run without writing does not make
        return set(os.listdir(folder or os.curdir))
    return set()


def _folder_key(path: str) -> FolderId | str:
    """Return the identity of a folder, or the full path of one that does not exist."""
    return _folder_id(path) if os.path.isdir(path) else os.path.realpath(path)


def _folder_id(path: str) -> FolderId:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino
