"""Files <-> .vae files: a picture is coded as one, any other file is kept as it is.

source -> made: bytes and a name -> target, written at once -> read back -> source removed, if asked for
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from vaecodec.atomic import PATH_TYPES, Path, check_target, name_of, write_atomic
from vaecodec.codec import modes
from vaecodec.codec.rate_control import Target
from vaecodec.container import stored
from vaecodec.errors import CodecError
from vaecodec.files.outputs import (
    ChooseTarget,
    Output,
    Resources,
    code_picture,
    code_source,
    decode_picture,
    not_removed_message,
    refuse_large,
    restore_file,
    store_file,
)
from vaecodec.files.sources import Source
from vaecodec.generative import image_sets
from vaecodec.images.writing import format_of
from vaecodec.limits import DEFAULT, Limits
from vaecodec.progress import Progress, warn
from vaecodec.rdo.refinement import check_effort


def compress_file(
    src: Path | BinaryIO,
    dst: Path | BinaryIO | None = None,
    quality: float = 50.0,
    model: str = "small",
    overwrite: bool = False,
    strip: bool = False,
    remove: bool = False,
    only_images: bool = False,
    limits: Limits | None = DEFAULT,
    threads: int | None = None,
    progress: Progress | None = None,
    whole_name: bool = False,
    adopt: bool = False,
    taken: Mapping[str, str] | None = None,
    target_size: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    effort: int = 1,
) -> dict[str, Any]:
    """Any file -> .vae file; returns what became of it, with sizes in bytes and seconds.

    `dst` may be a folder, and is that of `src` where None; the file in it is named by compressed_name, a picture's
    like any other if `whole_name`.  A picture is coded as one (`quality` in 1..100, or a target in its place, and
    `effort` as in vaecodec.encode; `strip` leaves the metadata out).
    Any other file is stored as it is, with its name, permissions and time; so is, with a warning, a picture that
    cannot be coded.  `only_images` raises SkippedError and CodecError instead.  `remove` deletes `src`, once `dst` has
    been read back and verified.  A large picture is read in strips, where its format allows; `progress` is told of
    the tiles that are done, and of all.  Raises LimitError on a picture beyond `limits` (None: there are none),
    TargetError on a target out of reach, CodecError on what cannot be coded, FileExistsError where `dst` exists and
    may not be overwritten, and other OSErrors; then `dst` is as it was before.
    """
    wanted = Target.given(target_size, target_bpp, target_psnr, quality)
    check_effort(effort)

    resources = Resources(limits, threads, progress)

    def code(source: Source) -> bytes:
        return code_source(source, wanted, model, strip, resources, effort)

    def make(source: Source, choose_target: ChooseTarget) -> Output:
        made = code_picture(source, choose_target, code, model, only_images, whole_name, resources)
        return made or store_file(source, choose_target)

    return convert(src, dst, make, remove, overwrite, adopt, taken)


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
    adopt: bool = False,
    taken: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """.vae file -> the file stored in it, or a picture in the format of `dst`'s suffix; the inverse.

    `dst` may be a folder, and is that of `src` where None: there a stored file gets its name back, and a picture
    becomes a PNG.  `window` is (top, left, height, width) in pixels; `reduce` gives a preview at that fraction of the
    sides; `model` None is the shipped model that made the file.  A large PNG or PPM is written in strips.  Raises as
    compress_file does.
    """

    def make(source: Source, choose_target: ChooseTarget) -> Output:
        if not stored.is_stored(source.head()):
            given = None if dst is None or _folder(dst) else name_of(dst)
            resources = Resources(limits, threads, progress)
            return decode_picture(source, choose_target, model, window, reduce, format_of(given or "-"), resources)
        if window or reduce != 1:
            what = "window" if window else "preview"
            raise CodecError(f"{source.name}: holds a file that is not a picture, which has no {what}")
        return restore_file(source, choose_target, dst is not None and _folder(dst) is None)

    return convert(src, dst, make, remove, overwrite, adopt, taken)


def verify_file(
    src: Path | BinaryIO,
    model: str | None = None,
    limits: Limits | None = DEFAULT,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Decodes a .vae file and checks every symbol or byte, without writing; returns its kind and its bytes.

    Raises FormatError, ModelError or LimitError.
    """
    with Source(src) as source:
        if stored.is_stored(source.head()):
            stored.read(source.begin(), None)
            return {"kind": "file", "bytes": source.size()}
        refuse_large(source, None, limits)
        data = source.read()
        if image_sets.is_set(data[:16]):
            image_sets.decode(data, model, limits)
            return {"kind": "set", "bytes": len(data)}
        modes.verify(data, model, limits, threads, progress)
        return {"kind": "picture", "bytes": len(data)}


def convert(
    src: Path | BinaryIO,
    dst: Path | BinaryIO | None,
    make: Callable[[Source, ChooseTarget], Output],
    remove: bool = False,
    overwrite: bool = False,
    adopt: bool = False,
    taken: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Source -> target, whatever is made on the way; returns the report.  Raises as compress_file does."""
    began = time.perf_counter()
    folder = os.path.dirname(_path(src)) if dst is None else _folder(dst)

    def choose_target(name: str, may_replace: bool = True) -> None:
        """Settles the target, and raises where it cannot be."""
        nonlocal dst, overwrite
        if folder is not None:
            dst, overwrite = os.path.join(folder, name), overwrite and may_replace
        assert dst is not None
        check_target(src, dst, overwrite or adopt, taken)

    if folder is None:
        choose_target("")  # before the source is read
    with Source(src) as source:
        made = make(source, choose_target)
        assert dst is not None
        if isinstance(dst, PATH_TYPES):
            write_atomic(dst, made.data, overwrite, adopt, made.attributes)
        else:
            _write(dst, made.data)
        warn([*source.remarks, *source.left_out], stacklevel=3)
        report = {"output": name_of(dst), **made.record(), "seconds": time.perf_counter() - began}
        if remove:
            if not os.path.isfile(_path(dst)):
                raise CodecError(not_removed_message(source, name_of(dst)))
            made.check(_path(dst))
            source.remove(dst)
    return report


def _folder(dst: Path | BinaryIO) -> str | None:
    """`dst` where it is a folder to put the output in."""
    return os.fspath(dst) if isinstance(dst, PATH_TYPES) and os.path.isdir(dst) else None


def _path(file: Path | BinaryIO) -> str:
    """The path of what has to have one; raises TypeError on a stream."""
    if isinstance(file, PATH_TYPES):
        return os.fspath(file)
    raise TypeError(f"expected a path, not {type(file).__name__}")


def _write(dst: BinaryIO, data: bytes | Callable[[BinaryIO], Any]) -> None:
    if callable(data):
        data(dst)
    else:
        dst.write(data)
    dst.flush()
