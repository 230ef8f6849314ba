"""Compress files to .vae files and back: encode images, store any other file, verify, and remove sources."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from vaecodec import arguments
from vaecodec.arguments import DEFAULT_LIMITS, DEFAULT_MODEL, Limits, is_url, write_url
from vaecodec.atomic import PATH_TYPES, Path, check_target, name_of, write_atomic
from vaecodec.codec import modes
from vaecodec.codec.mode_decision import Target
from vaecodec.container import stored
from vaecodec.container.info import is_image_set
from vaecodec.errors import CodecError
from vaecodec.files import Source
from vaecodec.files.outputs import (
    ChooseTarget,
    Output,
    Resources,
    decode_image,
    encode_image,
    encode_source,
    not_removed_message,
    refuse_large,
    restore_file,
    store_file,
)
from vaecodec.images.writing import format_of
from vaecodec.progress import Progress, warn

if TYPE_CHECKING:
    from vaecodec.arguments import ImageLike


def compress_file(
    src: Path | BinaryIO,
    dst: Path | BinaryIO | None = None,
    quality: float | None = None,
    *,
    model: Path = DEFAULT_MODEL,
    overwrite: bool = False,
    strip: bool = False,
    remove: bool = False,
    only_images: bool = False,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    progress: Progress | None = None,
    whole_name: bool = False,
    adopt: bool = False,
    taken: Mapping[str, str] | None = None,
    target_size: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    effort: int = 1,
    frame: int | None = None,
    lossless: bool = False,
    max_error: int | None = None,
    roi: ImageLike | None = None,
    tune: str | None = None,
) -> dict[str, Any]:
    """Compress a file to a .vae file; return a report with sizes in bytes and the time in seconds.

    An image is encoded.  Any other file, and with a warning an image that cannot be encoded or a file of several pages
    or frames, is stored unchanged with its name, permissions and time.

    Args:
        src: a path, a URL (extra `fsspec`), or a binary file.
        dst: file or folder, URL, or a binary file; None is the folder of `src`.  In a folder, and below a URL that ends
            with a slash, photo.jpg becomes photo.vae, and notes.txt becomes notes.txt.vae.
        quality: 1..100, 75 without a target; or give one of the targets, `lossless` or `max_error`, as for
            vaecodec.encode.
        model: an installed model's name, or a .vcm file.
        overwrite: replace `dst` if it exists.
        strip: leave the metadata out.
        remove: delete `src` once `dst` has been read back and verified.
        only_images: raise SkippedError or CodecError on files that would be stored.
        limits: None lifts the limits on the size of images.
        threads: cores to use; without, all.
        progress: called with the number of tiles that are done, and of all tiles.
        whole_name: name an image's output like that of any other file, photo.jpg.vae.
        adopt: accept an existing `dst` that holds the same bytes.
        frame: encode only this page or frame of an image, from 1.
        roi: how much the squared error counts at each pixel, as for vaecodec.encode; a path or an array.
        tune: "eye" or "psnr", as for vaecodec.encode.
        taken: outputs of this run by real path, and their inputs; an output is never overwritten by another input.

    Raises:
        LimitError: the image exceeds `limits`.
        TargetError: no quality meets the target.
        CodecError: the file cannot be compressed, or `src` cannot be removed safely.
        FileNotFoundError: there is no `src`, or no folder for `dst`.
        FileExistsError: `dst` exists, and `overwrite` is False.  On this and any other error `dst` is unchanged,
            unless the error is that `src` is not removed.
        ValueError, TypeError: an argument is wrong.
    """
    target = Target.from_arguments(target_size, target_bpp, target_psnr, quality, lossless, max_error)
    if roi is not None and isinstance(target, Target) and target.is_bound:
        raise ValueError("roi excludes lossless and max_error")
    effort, model = arguments.check_effort(effort), arguments.check_model(model)
    tune = arguments.check_tune(tune, target_psnr)
    _check_files(src, dst)
    for name, flag in (("strip", strip), ("only_images", only_images), ("whole_name", whole_name)):
        arguments.check_flag(name, flag)
    resources = _check_resources(limits, threads, progress)
    if frame is not None and arguments.check_integer("frame", frame) and remove:
        raise ValueError("frame and remove exclude each other: the other frames would be lost")

    def encode(source: Source) -> bytes:
        return encode_source(source, target, model, strip, resources, effort, frame, roi, tune)

    def make_output(source: Source, choose_target: ChooseTarget) -> Output:
        output = encode_image(source, choose_target, encode, model, only_images, whole_name, resources, frame)
        return output or store_file(source, choose_target)

    return convert_file(src, dst, make_output, remove, overwrite, adopt, taken)


def decompress_file(
    src: Path | BinaryIO,
    dst: Path | BinaryIO | None = None,
    *,
    model: Path | None = None,
    overwrite: bool = False,
    window: tuple[int, int, int, int] | None = None,
    remove: bool = False,
    reduce: int = 1,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    progress: Progress | None = None,
    adopt: bool = False,
    taken: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Decompress a .vae file to an image in the format of `dst`'s suffix, or to the file stored in it.

    Args:
        dst: file or folder; None is the folder of `src`.  In a folder, an image becomes a PNG and a stored file gets
            its name back.
        model: None is the shipped model that made the file.
        window: (top, left, height, width) in pixels.
        reduce: 2, 4, 8 or 16 gives a preview at that fraction of the sides.

    The other arguments, the report and the errors are those of compress_file.
    """
    window, reduce = arguments.check_window(window), arguments.check_reduction(reduce)
    model_name = arguments.check_optional_model(model)
    _check_files(src, dst)
    resources = _check_resources(limits, threads, progress)

    def make_output(source: Source, choose_target: ChooseTarget) -> Output:
        if not stored.is_stored(source.head()):
            name = "-" if dst is None or _is_folder(dst) else name_of(dst)
            return decode_image(source, choose_target, model_name, window, reduce, format_of(name), resources)
        if window or reduce != 1:
            option = "window" if window else "preview"
            raise CodecError(f"{source.name}: holds a file that is not an image, which has no {option}")
        return restore_file(source, choose_target, is_named=dst is not None and not _is_folder(dst))

    return convert_file(src, dst, make_output, remove, overwrite, adopt, taken)


def verify_file(
    src: Path | BinaryIO,
    *,
    model: Path | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Decode every symbol or byte of a .vae file without writing; return its kind and its size in bytes.

    Raises FormatError, ModelError or LimitError; the arguments are those of decompress_file.
    """
    model = arguments.check_optional_model(model)
    _check_files(src, "")
    limits, threads, progress = _check_resources(limits, threads, progress)
    with Source(src) as source:
        if stored.is_stored(source.head()):
            stored.read(source.rewind(), None)
            return {"kind": "file", "bytes": source.size()}
        refuse_large(source, None, limits)
        data = source.read()
        if is_image_set(data[:16]):
            from vaecodec.generative import image_sets

            image_sets.decode(data, model, limits)
            return {"kind": "set", "bytes": len(data)}
        modes.verify(data, model, limits, threads, progress)
        return {"kind": "picture", "bytes": len(data)}


def convert_file(
    src: Path | BinaryIO,
    dst: Path | BinaryIO | None,
    make_output: Callable[[Source, ChooseTarget], Output],
    remove: bool = False,
    overwrite: bool = False,
    adopt: bool = False,
    taken: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Make the output of a source, write it atomically, check it if the source is to be removed, and report.

    The arguments and errors are those of compress_file.
    """
    start = time.perf_counter()
    for name, flag in (("remove", remove), ("overwrite", overwrite), ("adopt", adopt)):
        arguments.check_flag(name, flag)
    if remove and (is_url(src) or is_url(dst)):
        raise CodecError(f"{name_of(src)}: not compressed, because a file is removed only between local files")
    if dst is None and is_url(src):
        raise CodecError(f"{name_of(src)}: the output of a URL needs a name")
    folder: str | None = None
    if dst is None:
        folder = os.path.dirname(_path_of(src))
    elif isinstance(dst, PATH_TYPES) and os.path.isdir(dst):
        folder = os.fspath(dst)
    elif is_url(dst) and name_of(dst).endswith("/"):
        folder = name_of(dst)

    def choose_target(name: str, may_replace: bool = True) -> None:
        nonlocal dst, overwrite
        if folder is not None:
            dst, overwrite = os.path.join(folder, name), overwrite and may_replace
        assert dst is not None
        check_target(src, dst, overwrite or adopt, taken)

    if folder is None:
        choose_target("")  # before the source is read
    with Source(src) as source:
        output = make_output(source, choose_target)
        source.check_size()
        assert dst is not None
        if is_url(dst):
            write_url(name_of(dst), _bytes_of(output.data))
        elif isinstance(dst, PATH_TYPES):
            write_atomic(dst, output.data, overwrite, adopt, output.attributes)
        else:
            if callable(output.data):
                output.data(dst)
            else:
                dst.write(output.data)
            dst.flush()
        warn([*source.remarks, *source.left_out], stacklevel=3)
        report = {"output": name_of(dst), **output.report(), "seconds": time.perf_counter() - start}
        if remove:
            if not os.path.isfile(_path_of(dst)):
                raise CodecError(not_removed_message(source, name_of(dst)))
            output.check(_path_of(dst))
            source.remove(dst)
    return report


def _bytes_of(data: bytes | Callable[[BinaryIO], None]) -> bytes:
    """The bytes of an output, which may be a function that writes them."""
    if not callable(data):
        return data
    file = io.BytesIO()
    data(file)
    return file.getvalue()


def _check_files(src: Any, dst: Any) -> None:
    """Raise TypeError unless `src` can be read and `dst` can be written to."""
    if not hasattr(src, "read"):
        arguments.check_path("src", src, "a path or a binary file")
    if dst is not None and not hasattr(dst, "write"):
        arguments.check_path("dst", dst, "a path, a binary file or None")
    if dst is None and hasattr(src, "read"):
        raise ValueError("dst is None, expected a path or a binary file, since src has no folder")


def _check_resources(limits: Any, threads: Any, progress: Any) -> Resources:
    arguments.check_limits(limits)
    arguments.check_callable("progress", progress)
    return Resources(limits, arguments.check_threads(threads), progress)


def _is_folder(dst: Path | BinaryIO) -> bool:
    return isinstance(dst, PATH_TYPES) and os.path.isdir(dst)


def _path_of(file: Path | BinaryIO) -> str:
    """Return the path of a file; raises TypeError on a stream."""
    if isinstance(file, PATH_TYPES):
        return os.fspath(file)
    raise TypeError(f"expected a path, not {type(file).__name__}")
