"""Open input files so that they can be read twice, and remove them once their outputs hold all of them."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from contextlib import ExitStack
from typing import BinaryIO, cast

from vaecodec.arguments import is_url, read_url
from vaecodec.atomic import PATH_TYPES, Attributes, Path, attributes_of, name_of
from vaecodec.errors import CodecError

MAX_IN_MEMORY = 1 << 26  # bytes of a pipe that are held in memory; a longer one goes to a temporary file


class Source:
    """A path, URL or binary stream, open within `with`; `file` is seekable and at its start.

    `left_out` has a message for everything in the source that its output lacks; `remarks` has other messages.
    """

    file: BinaryIO

    def __init__(self, src: Path | BinaryIO) -> None:
        self._src, self.name = src, name_of(src)
        self.path = os.fspath(src) if isinstance(src, PATH_TYPES) and not is_url(src) else None
        self.attributes = Attributes()
        self.left_out: list[str] = []
        self.remarks: list[str] = []

    def __enter__(self) -> Source:
        with ExitStack() as stack:
            if is_url(self._src):
                file: BinaryIO = io.BytesIO(read_url(self.name))
            elif isinstance(self._src, PATH_TYPES):
                file = stack.enter_context(open(self._src, "rb"))
                self._opened = os.fstat(file.fileno())
                self.attributes = attributes_of(self._opened)
            else:
                file = self._src
            if not file.seekable() or file.tell():
                copy = stack.enter_context(tempfile.SpooledTemporaryFile(MAX_IN_MEMORY))
                shutil.copyfileobj(file, copy)
                copy.seek(0)
                file = cast(BinaryIO, copy)
            self.file, self._stack = file, stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rewind(self) -> BinaryIO:
        """Return the file, at its start."""
        self.file.seek(0)
        return self.file

    def head(self) -> bytes:
        """Read the first 16 bytes, or all of a shorter file."""
        return self.rewind().read(16)

    def read(self) -> bytes:
        """Read the whole file."""
        return self.rewind().read()

    def size(self) -> int:
        """Return the size of the file in bytes."""
        return self.file.seek(0, os.SEEK_END)

    def check_size(self) -> None:
        """Raise CodecError if the file has become smaller since it was opened."""
        if self.path is not None and os.stat(self.path).st_size < self._opened.st_size:
            raise CodecError(f"{self.name}: became smaller while it was read")

    def remove(self, dst: Path | BinaryIO) -> None:
        """Delete the source; raises CodecError if it has changed or if `dst` does not hold all of it."""
        assert self.path is not None
        current = os.stat(self.path)
        if any(getattr(current, key) != getattr(self._opened, key) for key in ("st_ino", "st_size", "st_mtime_ns")):
            raise CodecError(f"{self.name}: not removed, because it has changed since it was read")
        if self.left_out:
            raise CodecError(f"{self.name}: not removed, because {name_of(dst)} does not hold all of it")
        os.remove(self.path)


class ByteCounter:
    """A file to write to that counts the bytes it passes on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.bytes = file, 0

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return self._file.write(data)


class Comparison:
    """A file to write to, within `with`: raises CodecError unless exactly the bytes of another file are written."""

    def __init__(self, file: BinaryIO, message: str) -> None:
        self._file, self._message = file, message

    def __enter__(self) -> Comparison:
        return self

    def write(self, data: bytes) -> int:
        if self._file.read(len(data)) != data:
            raise CodecError(self._message)
        return len(data)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._file.read(1):
            raise CodecError(self._message)
