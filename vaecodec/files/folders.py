"""Folders -> the files in them, and for each what is to be done: the plan of a run over many files.

inputs -> listings, folder by folder -> jobs
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from vaecodec.atomic import TEMPORARY
from vaecodec.console import Console
from vaecodec.container.chunks import MAGIC
from vaecodec.errors import CodecError
from vaecodec.files.manifest import NAME, Manifest
from vaecodec.files.names import SUFFIX, bare_name, compressed_name, decompressed_name

Identity = tuple[int, int]  # of a folder, whatever path leads to it


class Job(NamedTuple):
    """One file to be worked on; its output goes to `folder`, or beside it where that is None.

    `found` is how the file looked when the work was planned, `manifest` the folder of the manifest that it goes into.
    """

    path: str
    folder: str | None = None
    overwrite: bool = False
    whole_name: bool = False
    found: os.stat_result | None = None
    manifest: str | None = None


class Listing(NamedTuple):
    """Some files of one folder, the folder that their outputs go to, and what has been done there before."""

    paths: list[str]
    folder: str
    in_place: bool
    manifest: Manifest | None


class Walk:
    """Finds the files of a run below `output`, or beside the sources where that is None; the console is told of
    what cannot or will not be taken.
    """

    def __init__(self, console: Console, output: str | None = None) -> None:
        self._console, self._output = console, output
        self._sources: dict[Identity, str] = {}  # output folder -> the folder that it is the image of

    def listings(self, inputs: list[str]) -> Iterator[Listing]:
        """The files named, and those in the folders named; no two folders into one.  Raises OSError."""
        named = [path for path in inputs if not os.path.isdir(path)]
        if self._output is not None:
            os.makedirs(self._output, exist_ok=True)
            manifest = Manifest(self._output)
            if named:
                self._sources[_identity(self._output)] = "the files named"
                yield Listing(named, self._output, False, manifest)
        else:
            yield from (Listing([path], os.path.dirname(path), True, None) for path in named)
        for path in inputs:
            if not os.path.isdir(path):
                continue
            if self._output is None:
                try:
                    yield from self._below(path, path, Manifest(path))
                except OSError as exc:  # of its manifest
                    self._console.fail(path, exc)
            else:
                name = os.path.basename(os.path.normpath(path))
                target = self._output if name in ("", os.curdir, os.pardir) else os.path.join(self._output, name)
                yield from self._below(path, target, manifest)

    def _below(self, path: str, target: str, manifest: Manifest) -> Iterator[Listing]:
        """The files in a folder, then those in the folders in it; what fails is reported, and the rest is done."""
        waiting: list[tuple[str, str, tuple[Identity, ...]]] = [(path, target, ())]
        while waiting:
            path, target, above = waiting.pop()
            try:
                here = _identity(path)
                if here in above:  # as a mount can make it
                    raise CodecError("contains itself")
                if above and self._output is not None and here == _identity(self._output):
                    continue
                files, folders = self._entries(path)
                if self._output is not None and not os.path.isdir(target):
                    os.mkdir(target, os.stat(path).st_mode & 0o777 | 0o700)
                first = self._sources.get(_identity(target))
                if first and os.path.isdir(first) and os.path.samefile(first, path):
                    continue  # named twice
                if first:
                    raise CodecError(f"{target} takes what is made of {first} already")
                self._sources[_identity(target)] = path
            except (CodecError, OSError) as exc:
                self._console.fail(path, exc)
                continue
            yield Listing(files, target, self._output is None, manifest)
            inner = [(os.path.join(path, name), os.path.join(target, name), (*above, here)) for name in folders]
            waiting += reversed(inner)

    def _entries(self, path: str) -> tuple[list[str], list[str]]:
        """Paths of the files in a folder, and names of the folders in it; links are not followed."""
        files, folders = [], []
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_symlink():
                    self._console.note(f"{entry.path}: warning: a symbolic link, left alone")
                elif entry.is_dir():
                    folders.append(entry.name)
                elif not entry.is_file():
                    self._console.note(f"{entry.path}: warning: neither a file nor a folder, left alone")
                elif entry.name != NAME and not TEMPORARY.fullmatch(entry.name):
                    files.append(entry.path)
        return files, folders


def to_compress(listing: Listing, force: bool) -> Iterator[Job]:
    """All files but those that are .vae files beside their sources already.

    A picture that would get another's name (photo.jpg and photo.png) is named like any other file: photo.jpg.vae.
    A source that an earlier run has taken away counts too, or what is left would be named in another way when that
    run resumes.  Raises OSError.
    """
    paths = [path for path in listing.paths if not (listing.in_place and is_vae(path))]
    beside = {*map(os.path.abspath, paths)}
    if listing.manifest:
        for place in {os.path.dirname(path) for path in beside}:
            beside |= {os.path.join(place, name) for name in listing.manifest.sources_in(place)}
    stems = Counter(name for path in beside for name in {_key(path), _key(os.path.splitext(path)[0])})
    names, there = Counter(map(os.path.basename, paths)), _names_in(listing.folder)
    folder = None if listing.in_place else listing.folder
    for path in paths:
        whole = stems[_key(os.path.splitext(path)[0])] > 1
        possible = {os.path.basename(compressed_name(path, picture)) for picture in (not whole, False)}
        once = names[os.path.basename(path)] == 1
        yield Job(path, folder, force and once and bool(possible & there), whole)


def to_decompress(listing: Listing, force: bool) -> Iterator[Job]:
    """The files named, and those of the suffix .vae.  Raises OSError."""
    paths = [path for path in listing.paths if path.lower().endswith(SUFFIX)]
    outputs = {path: {os.path.basename(name(path)) for name in (bare_name, decompressed_name)} for path in paths}
    names = Counter(name.casefold() for one in outputs.values() for name in one)
    there = _names_in(listing.folder)
    folder = None if listing.in_place else listing.folder
    for path in paths:
        once = max(names[name.casefold()] for name in outputs[path]) == 1
        yield Job(path, folder, force and once and bool(outputs[path] & there))


def to_verify(listing: Listing) -> Iterator[Job]:
    """The files of the suffix .vae.  Raises OSError."""
    return (Job(path) for path in listing.paths if path.lower().endswith(SUFFIX))


def is_vae(path: str) -> bool:
    """Whether a file is a .vae file, by its name and by its first bytes."""
    if not path.lower().endswith(SUFFIX):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:  # whoever wants to read it will say so
        return False


def _key(path: str) -> str:
    """A base name as a file system may compare it."""
    return os.path.basename(path).casefold()


def _names_in(folder: str) -> set[str]:
    """What is there already, by the very names: outputs that appear later are never overwritten."""
    return set(os.listdir(folder or os.curdir))


def _identity(folder: str) -> Identity:
    found = os.stat(folder)
    return found.st_dev, found.st_ino
