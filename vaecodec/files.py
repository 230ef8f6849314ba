"""Image files <-> .vae files, and how a file is written so that a crash cannot spoil it."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import vaecodec
from vaecodec import container
from vaecodec.codec import Progress, codec_for, gather
from vaecodec.errors import CodecError
from vaecodec.images import format_of, read_image, write_image
from vaecodec.limits import DEFAULT, NONE, Limits, for_pillow
from vaecodec.strips import LARGE, open_large, write_strips

SUFFIX = ".vae"
Path = str | os.PathLike[str]
PATH_TYPES = (str, os.PathLike)  # `Path`, as isinstance takes it


def compress_file(
    src: Path | BinaryIO,
    dst: Path | BinaryIO | None = None,
    quality: float = 50.0,
    model: str = "small",
    overwrite: bool = False,
    strip: bool = False,
    remove: bool = False,
    limits: Limits | None = DEFAULT,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Image file -> .vae file, beside it where `dst` is None; returns sizes, bpp and seconds (see `_report`).

    `quality` is in 1..100; `strip` leaves the metadata out; `remove` deletes `src`, once `dst` has been read back
    and verified.  A large picture is read in strips, where its format allows; `progress` is told of the tiles that
    are done, and of all.  Raises CodecError on what is not an image, FileExistsError where `dst` exists and may not be
    overwritten, and other OSErrors; then `dst` is as it was before.
    """
    dst = compressed_name(_path(src)) if dst is None else dst
    check_target(src, dst, overwrite)
    codec = vaecodec.load(model, threads=threads)
    began = time.perf_counter()
    pixels: Any
    with for_pillow(limits or NONE):
        large = open_large(src) if isinstance(src, PATH_TYPES) else None
        if large is not None:
            (pixels, metadata), size = large, os.path.getsize(_path(src))
        else:
            image = _read(src)
            (pixels, metadata), size = read_image(image, name_of(src)), len(image)
            del image
        data = codec.encode(pixels, quality, metadata=None if strip else metadata, progress=progress)
    _write(dst, data, overwrite)
    report = _report(dst, data, size, began)
    if remove:
        codec.verify(data, limits)
        _remove(src, dst, data)
    return report


def decompress_file(
    src: Path | BinaryIO,
    dst: Path | BinaryIO | None = None,
    model: str | None = None,
    overwrite: bool = False,
    window: tuple[int, int, int, int] | None = None,
    remove: bool = False,
    reduce: int = 1,
    limits: Limits | None = DEFAULT,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """.vae file -> image file in the format of its suffix, a PNG beside it where `dst` is None; the inverse.

    `window` is (top, left, height, width) in pixels; `reduce` gives a preview at that fraction of the sides; `model`
    None is the shipped model that made the file.  A large PNG or PPM is written in strips.  Raises as compress_file
    does.
    """
    dst = decompressed_name(_path(src)) if dst is None else dst
    check_target(src, dst, overwrite)
    format = format_of(dst) if isinstance(dst, PATH_TYPES) else "PNG"
    data = _read(src)
    codec = codec_for(data, model, threads=threads)
    began = time.perf_counter()
    shape, strips = codec.decode_strips(data, window, reduce, limits, progress)
    metadata, image = container.metadata(data), io.BytesIO()
    if shape[0] * shape[1] >= LARGE and isinstance(dst, PATH_TYPES) and not remove:
        write_atomic(dst, lambda file: write_strips(shape, strips, file, metadata, format), overwrite)
        return _report(dst, data, os.path.getsize(dst), began)
    write_image(gather(shape, strips), image, metadata, format)
    _write(dst, image.getvalue(), overwrite)
    report = _report(dst, data, len(image.getvalue()), began)
    if remove:
        _remove(src, dst, image.getvalue())
    return report


def compressed_name(src: Path) -> str:
    """photo.jpg -> photo.vae"""
    return os.path.splitext(os.fspath(src))[0] + SUFFIX


def decompressed_name(src: Path) -> str:
    """photo.vae -> photo.png; another suffix stays, so that the name says where it came from."""
    stem, suffix = os.path.splitext(os.fspath(src))
    return (stem if suffix.lower() == SUFFIX else stem + suffix) + ".png"


def name_of(file: Path | BinaryIO) -> str:
    """What messages call a file."""
    return os.fspath(file) if isinstance(file, PATH_TYPES) else "-"


def check_target(src: Path | BinaryIO, dst: Path | BinaryIO, overwrite: bool) -> None:
    """Raises now what would otherwise be raised after the work: `dst` is `src`, exists, or has no folder."""
    if not isinstance(dst, PATH_TYPES):
        return
    if isinstance(src, PATH_TYPES) and os.path.exists(src) and os.path.exists(dst) and os.path.samefile(src, dst):
        raise CodecError(f"{name_of(src)}: input and output are the same file")
    folder = os.path.dirname(os.path.realpath(dst))
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "No such folder", folder)
    if not overwrite and os.path.lexists(dst) and not _is_device(dst):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(dst))


def write_atomic(path: Path, data: bytes | Callable[[BinaryIO], Any], overwrite: bool = False) -> None:
    """Writes all of `data` (or what it writes, called with a binary file) to `path`, or leaves `path` as it was.

    On return it is on the disk.  A link is followed; a device or pipe is written straight to.  Raises
    FileExistsError unless `overwrite`, also where another writer came first only just now.
    """
    write = data if callable(data) else lambda file: file.write(data)
    if _is_device(path):
        with open(path, "wb") as file:
            write(file)
        return
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".vaecodec-{secrets.token_hex(8)}.tmp")
    # O_EXCL follows no link that someone planted; the mode leaves the permissions to the umask.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, path)
        else:
            _rename_to_new(temporary, path)
        _sync_folder(folder)
    except OSError as exc:  # in the name that the caller knows; writing to a full disk has none
        raise OSError(exc.errno, exc.strerror or str(exc), path) from exc
    finally:
        if os.path.lexists(temporary):
            os.remove(temporary)


def _rename_to_new(temporary: str, path: str) -> None:
    """Moves a file to a name that nobody has; raises FileExistsError where somebody does."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: claim the name, then replace the claim
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(temporary, path)


def _sync_folder(folder: str) -> None:
    """Puts a folder's names on the disk, where the system can: without it a crash may lose the new name."""
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
    """Whether `path` is there to be written to, not to be replaced: /dev/null, a terminal, a named pipe."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _path(file: Path | BinaryIO) -> str:
    """The path of what has to have one; raises TypeError on a stream."""
    if isinstance(file, PATH_TYPES):
        return os.fspath(file)
    raise TypeError(f"expected a path, not {type(file).__name__}")


def _read(src: Path | BinaryIO) -> bytes:
    if not isinstance(src, PATH_TYPES):
        return src.read()
    with open(src, "rb") as file:
        return file.read()


def _write(dst: Path | BinaryIO, data: bytes, overwrite: bool) -> None:
    if isinstance(dst, PATH_TYPES):
        write_atomic(dst, data, overwrite)
    else:
        dst.write(data)
        dst.flush()


def _remove(src: Path | BinaryIO, dst: Path | BinaryIO, written: bytes) -> None:
    """Deletes `src` if `dst` is a file and holds what was written to it; raises CodecError if not."""
    if not os.path.isfile(_path(dst)) or _read(dst) != written:
        raise CodecError(f"{name_of(src)}: is kept, as {name_of(dst)} does not hold what was written to it")
    os.remove(_path(src))


def _report(dst: Path | BinaryIO, data: bytes, image_bytes: int, began: float) -> dict[str, Any]:
    """The .vae file's width and height, its bytes and bpp, the bytes of the image file, and seconds taken."""
    info = container.info(data)
    return {
        "output": name_of(dst),
        "width": info["width"],
        "height": info["height"],
        "bytes": info["bytes"],
        "image_bytes": image_bytes,
        "bpp": info["bpp"],
        "seconds": time.perf_counter() - began,
    }
