"""What a file is made of: opened so that it can be read twice, and removed only when nothing of it would be lost."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from typing import BinaryIO, cast

from vaecodec.atomic import PATH_TYPES, Attributes, Path, attributes_of, name_of
from vaecodec.errors import CodecError

IN_MEMORY = 1 << 26  # bytes of what cannot be read twice, a pipe; more goes to a temporary file


class Source:
    """A path or a binary stream, open within `with`; `file` is at its start and can be sought in.

    `left_out` has a message for everything in it that its output lacks; `remarks` has messages on other things.
    """

    file: BinaryIO

    def __init__(self, src: Path | BinaryIO) -> None:
        self._src, self.name = src, name_of(src)
        self.path = os.fspath(src) if isinstance(src, PATH_TYPES) else None
        self.attributes = Attributes()
        self.left_out: list[str] = []
        self.remarks: list[str] = []

    def __enter__(self) -> Source:
        with ExitStack() as stack:
            if isinstance(self._src, PATH_TYPES):
                file: BinaryIO = stack.enter_context(open(self._src, "rb"))
                self._before = os.fstat(file.fileno())
                self.attributes = attributes_of(self._before)
            else:
                file = self._src
            if not file.seekable() or file.tell():
                whole = stack.enter_context(tempfile.SpooledTemporaryFile(IN_MEMORY))
                shutil.copyfileobj(file, whole)
                whole.seek(0)
                file = cast(BinaryIO, whole)
            self.file, self._stack = file, stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self) -> BinaryIO:
        """The file, at its start."""
        self.file.seek(0)
        return self.file

    def head(self) -> bytes:
        """Its first 16 bytes, or all there are."""
        return self.begin().read(16)

    def read(self) -> bytes:
        """All of it."""
        return self.begin().read()

    def size(self) -> int:
        """Bytes of it."""
        return self.file.seek(0, os.SEEK_END)

    def remove(self, dst: Path | BinaryIO) -> None:
        """Deletes it, once it is in `dst`; raises CodecError where it has changed or where something was left out."""
        assert self.path is not None
        now = os.stat(self.path)
        if any(getattr(now, key) != getattr(self._before, key) for key in ("st_ino", "st_size", "st_mtime_ns")):
            raise CodecError(f"{self.name}: is kept, as it has changed since it was read")
        if self.left_out:
            raise CodecError(f"{self.name}: is kept, as not all of it is in {name_of(dst)}")
        os.remove(self.path)


class Counted:
    """A file to write to that counts the bytes."""

    def __init__(self) -> None:
        self.bytes = 0

    def to(self, file: BinaryIO) -> Counted:
        """From now on what is written goes to `file`."""
        self._file, self.bytes = file, 0
        return self

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return self._file.write(data)


class Same:
    """A file to write to that holds all of it already, within `with`; raises CodecError where it does not."""

    def __init__(self, file: BinaryIO, message: str) -> None:
        self._file, self._message = file, message

    def __enter__(self) -> Same:
        return self

    def write(self, data: bytes) -> int:
        if self._file.read(len(data)) != data:
            raise CodecError(self._message)
        return len(data)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._file.read(1):
            raise CodecError(self._message)
