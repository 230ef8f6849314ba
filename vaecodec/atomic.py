"""Write files so that neither a crash, nor a full disk, nor another writer can damage them.

bytes -> .vaecodec-*.tmp beside the target -> mode and time -> the disk -> the target's name, in one step
"""

from __future__ import annotations

import errno
import filecmp
import os
import re
import secrets
import stat
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

from vaecodec.arguments import check_url_target, is_url
from vaecodec.errors import CodecError

Path = str | os.PathLike[str]
PATH_TYPES = (str, os.PathLike)  # `Path`, as isinstance takes it
TEMPORARY = re.compile(r"\.vaecodec-[0-9a-f]{16}\.tmp")  # left behind by a killed writer


class Attributes(NamedTuple):
    """The attributes that a file takes over from its source; None where they are unknown."""

    mode: int | None = None  # permission bits
    mtime_ns: int | None = None  # nanoseconds since 1970-01-01 UTC


def attributes_of(info: os.stat_result) -> Attributes:
    """Permissions and time of a regular file; set-user-id and the like must not pass to another user's file."""
    return Attributes(info.st_mode & 0o777, info.st_mtime_ns) if stat.S_ISREG(info.st_mode) else Attributes()


def name_of(file: Path | BinaryIO) -> str:
    """The name of a file in messages."""
    return os.fspath(file) if isinstance(file, PATH_TYPES) else "-"


def check_target(
    src: Path | BinaryIO, dst: Path | BinaryIO, overwrite: bool, taken: Mapping[str, str] | None = None
) -> None:
    """Raise before the work what would be raised after it: `dst` is `src`, exists, or has no folder.

    `taken` maps the real paths of this run's outputs to their inputs: even with `overwrite`, none of them may be the
    output of another input, which would be lost.
    """
    if is_url(dst):
        check_url_target(name_of(dst), overwrite)
        return
    if not isinstance(dst, PATH_TYPES):
        return
    if isinstance(src, PATH_TYPES) and os.path.exists(src) and os.path.exists(dst) and os.path.samefile(src, dst):
        raise CodecError(f"{name_of(src)}: input and output are the same file")
    first = (taken or {}).get(os.path.realpath(dst), name_of(src))
    if first != name_of(src):
        raise CodecError(f"{name_of(dst)} is the output of {first} already")
    folder = os.path.dirname(os.path.realpath(dst))
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "No such folder", folder)
    if not overwrite and os.path.lexists(dst) and not _is_device(dst):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(dst))


def write_atomic(
    path: Path,
    data: bytes | Callable[[BinaryIO], Any],
    overwrite: bool = False,
    adopt: bool = False,
    attributes: Attributes | None = None,
) -> None:
    """Write all of `data` to `path`, or leave `path` as it was.

    On return the bytes are on the disk, with `attributes` where the file system takes them.  A link is followed; a
    device or pipe is written to directly.

    Args:
        data: bytes, or a function that writes them to a binary file.
        overwrite: replace a file that exists; else raise FileExistsError, even if it appears during the work.
        adopt: accept a file that exists and holds the same bytes.
    """
    write = data if callable(data) else lambda file: file.write(data)
    if _is_device(path):
        with open(path, "wb") as file:
            write(file)
        return
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".vaecodec-{secrets.token_hex(8)}.tmp")
    # Without `attributes`, the umask gives the permissions; else only the owner has access until they are set.
    mode = 0o666 if attributes is None or attributes.mode is None else 0o600
    try:
        descriptor, here = _create(folder, temporary, mode)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            _set_attributes(here, attributes, path)
            os.fsync(descriptor)
            if here != temporary:
                os.link(here, temporary, src_dir_fd=descriptor)  # src_dir_fd makes it follow /proc to the file
        try:
            if overwrite:
                os.replace(temporary, path)
            else:
                _rename_to_new(temporary, path)
        except FileExistsError:
            if not adopt or not os.path.isfile(path) or not filecmp.cmp(temporary, path, shallow=False):
                raise
        _sync_folder(folder)
    except OSError as exc:  # under the caller's name for the file; writing to a full disk gives none
        raise OSError(exc.errno, exc.strerror or str(exc), path) from exc
    finally:
        if os.path.lexists(temporary):
            os.remove(temporary)


def _create(folder: str, name: str, mode: int) -> tuple[int, str]:
    """(descriptor, path) of a new file: without a name where possible, so that a killed writer leaves nothing."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):  # not every file system has it
            descriptor = os.open(folder, os.O_WRONLY | os.O_TMPFILE, mode)
            return descriptor, f"/proc/self/fd/{descriptor}"
    # O_EXCL follows no planted link.
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode), name


def _set_attributes(temporary: str, attributes: Attributes | None, path: str) -> None:
    """Set the known mode and time; warn where the file system does not take them."""
    if attributes is None:
        return
    try:
        if attributes.mode is not None:
            os.chmod(temporary, attributes.mode)
        if attributes.mtime_ns is not None:
            os.utime(temporary, ns=(attributes.mtime_ns, attributes.mtime_ns))
    except (OSError, OverflowError) as exc:
        warnings.warn(f"{path}: its permissions or its time cannot be set ({exc})", stacklevel=4)


def _rename_to_new(temporary: str, path: str) -> None:
    """Move a file to a new name; raise FileExistsError where the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: claim the name, then replace the claim
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(temporary, path)


def _sync_folder(folder: str) -> None:
    """Write a folder's names to the disk, where the system can: else a crash may lose the new name."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # may be written to but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(descriptor)


def _is_device(path: Path) -> bool:
    """Whether `path` must be written to, not replaced: /dev/null, a terminal, a named pipe."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
