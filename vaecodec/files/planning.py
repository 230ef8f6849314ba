"""Plan a run: select its files by globs, count them ahead of the work, and name outputs without writing anything."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from typing import NamedTuple

from vaecodec.atomic import TEMPORARY, check_target
from vaecodec.container import stored
from vaecodec.errors import SkippedError
from vaecodec.files import Source
from vaecodec.files.outputs import compressed_name, decompressed_name, restored_name
from vaecodec.images import is_image
from vaecodec.images.channels import describe_frames
from vaecodec.progress import Console, format_bytes, format_seconds


class Selection(NamedTuple):
    """Globs for what is taken from folders: all without `include`, and nothing that matches `exclude`.

    A glob is compared with the name, and with the path inside of the folder that is named on the command line.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes_file(self, path: str) -> bool:
        """Whether a file, by its path inside of the folder, is taken."""
        return (not self.include or _matches(path, self.include)) and not _matches(path, self.exclude)

    def takes_folder(self, path: str) -> bool:
        """Whether a folder, by its path inside of the folder, is searched."""
        return not _matches(path, self.exclude)


def _matches(path: str, globs: Iterable[str]) -> bool:
    return any(fnmatch(os.path.basename(path), glob) or fnmatch(path, glob.rstrip("/")) for glob in globs)


class Workload:
    """The files and bytes of a run: those that are there, counted in the background, and those that are done."""

    def __init__(self, inputs: list[str], selection: Selection, takes: Callable[[str], bool]) -> None:
        self.total = self.total_bytes = self.done = self.done_bytes = self.worked_bytes = 0
        self.is_complete = False  # whether all files are counted
        self._start = time.monotonic()
        threading.Thread(target=self._count, args=(inputs, selection, takes), daemon=True).start()

    def _count(self, inputs: list[str], selection: Selection, takes: Callable[[str], bool]) -> None:
        for path in inputs:
            for size in _sizes(path, selection, takes):
                self.total, self.total_bytes = self.total + 1, self.total_bytes + size
        self.is_complete = True

    def advance(self, size: int, worked: bool = True) -> None:
        """Count a file that is done; `worked` unless an earlier run has done it."""
        self.done, self.done_bytes = self.done + 1, self.done_bytes + size
        self.worked_bytes += size if worked else 0

    def text(self) -> str:
        """Say how far the run is: 12 of 340 files, 1.2 MB of 35.1 MB, 1.1 MB/s, 31 s left."""
        more = "" if self.is_complete else "+"
        total, total_bytes = max(self.total, self.done), max(self.total_bytes, self.done_bytes)
        text = (
            f"{self.done} of {total}{more} files, {format_bytes(self.done_bytes)} of {format_bytes(total_bytes)}{more}"
        )
        rate = self.worked_bytes / max(time.monotonic() - self._start, 1e-9)
        if rate:
            text += f", {format_bytes(rate)}/s"
            if self.is_complete:
                text += f", {format_seconds(round((total_bytes - self.done_bytes) / rate))} left"
        return text

    def show(self, console: Console, path: str) -> None:
        """Show how far the run is, on a terminal."""
        console.working(f"{self.text()}: {path}")


def _sizes(path: str, selection: Selection, takes: Callable[[str], bool]) -> Iterator[int]:
    """Yield the size of each file that a run would take from a path; what cannot be read is left out."""
    if not os.path.isdir(path):
        with suppress(OSError):
            yield os.stat(path).st_size
        return
    for folder, folders, files in os.walk(path):
        inside = os.path.relpath(folder, path) + os.sep if folder != path else ""
        folders[:] = [name for name in folders if selection.takes_folder(inside + name)]
        for name in files:
            place = os.path.join(folder, name)
            if takes(name) and selection.takes_file(inside + name) and not TEMPORARY.fullmatch(name):
                with suppress(OSError):
                    if not os.path.islink(place):
                        yield os.stat(place).st_size


def planned_output(
    command: str,
    src: str,
    dst: str | None,
    overwrite: bool = False,
    whole_name: bool = False,
    only_images: bool = False,
    frame: int | None = None,
) -> str:
    """Return the path that compress or decompress would write; `dst` None is the folder of `src`.

    Raises SkippedError for a file that would be skipped, and OSError or CodecError where the output could not be
    written.
    """
    with Source(src) as source:
        if command == "compress":
            codes = is_image(source.rewind(), source.name)
            if only_images and not codes:
                raise SkippedError(f"{src}: not an image")
            codes = codes and (frame is not None or not describe_frames(source.rewind()))
            name = compressed_name(src, is_image=codes and not whole_name)
        elif stored.is_stored(source.head()):
            name = restored_name(src, stored.Reader(source.rewind()).about)
        else:
            name = decompressed_name(src)
    if dst is None:
        dst = os.path.join(os.path.dirname(src), os.path.basename(name))
    elif os.path.isdir(dst) or dst.endswith(os.sep):
        dst = os.path.join(dst, os.path.basename(name))
    if os.path.isdir(os.path.dirname(dst) or os.curdir):  # a folder that the run would make holds nothing
        check_target(src, dst, overwrite)
    return dst
