"""What a file becomes: a picture is coded as one, any other file is kept as it is; and both ways back.

source -> Output: bytes, or what writes them, and how to tell later that they are all there
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from vaecodec.atomic import Attributes
from vaecodec.codec import modes
from vaecodec.codec.codec import load
from vaecodec.codec.rate_control import Target
from vaecodec.container import image_file, stored
from vaecodec.container.image_file import read_preamble
from vaecodec.errors import CodecError, FormatError, LimitError, ModelError, SkippedError, TargetError
from vaecodec.files.names import bare_name, compressed_name, decompressed_name, restored_name
from vaecodec.files.sources import Counted, Same, Source
from vaecodec.images.reading import is_image, read_image, trailing_bytes
from vaecodec.images.strips import Strips, Window, is_large, open_strips
from vaecodec.images.writing import write_strips
from vaecodec.limits import DEFAULT, NONE, Limits, for_pillow
from vaecodec.progress import Progress

# Makes the .vae file of a picture and adds to the source's `left_out`; raises CodecError on what cannot be coded.
Code = Callable[[Source], bytes]
# Is told the base name that an output gets where the caller left it open, and raises where it cannot be written.
ChooseTarget = Callable[..., None]


class Resources(NamedTuple):
    """How large a picture may be, the cores to use (None: all), and whom to tell of tiles."""

    limits: Limits | None = DEFAULT
    threads: int | None = None
    progress: Progress | None = None


class Output(NamedTuple):
    """An output before it is written; `record` gives what to report of it, once it is."""

    data: bytes | Callable[[BinaryIO], Any]
    attributes: Attributes
    check: Callable[[str], None]  # raises CodecError unless the file at a path holds it
    record: Callable[[], dict[str, Any]]


class Picture(NamedTuple):
    """What there is to code of a picture, and a message for everything in its file that is left out."""

    samples: np.ndarray  # as modes.encode takes them
    metadata: dict[str, bytes]
    left_out: tuple[str, ...]


def code_picture(
    source: Source,
    choose_target: ChooseTarget,
    code: Code,
    model: str,
    only_images: bool,
    whole_name: bool,
    resources: Resources,
) -> Output | None:
    """Picture -> .vae file; None for what is no picture or, with a warning, cannot be coded as one."""
    if not is_image(source.begin(), source.name):
        if only_images:
            raise SkippedError(f"{source.name}: not a picture")
        return None
    choose_target(os.path.basename(compressed_name(source.name, picture=not whole_name)))
    try:
        with for_pillow(resources.limits or NONE):
            data = code(source)
    except CodecError as exc:
        if only_images or isinstance(exc, (LimitError, ModelError, TargetError)):
            raise
        why = str(exc).removeprefix(f"{source.name}: ")
        source.left_out.clear()  # the stored file will be whole
        source.remarks.append(f"{source.name}: {why}; stored as it is")
        return None

    def check(path: str) -> None:
        modes.verify(data, model, *resources)
        _check_equal(source, path, data)

    return Output(data, source.attributes, check, lambda: _record(data, source.size()))


def code_source(
    source: Source, quality: float | Target, model: str, strip: bool, resources: Resources, effort: int = 1
) -> bytes:
    """The .vae file of a picture, which is read in strips where it is large and that can be done."""
    codec, progress = load(model, threads=resources.threads), resources.progress
    path = source.path or ""
    large = open_strips(path, source.name, source.left_out) if path else None
    if large is None:
        samples, metadata, left_out = read_picture(source)
        source.left_out += left_out
        data = modes.encode(codec, samples, quality, None if strip else metadata, progress, effort)
    else:
        (first, metadata), unread = large, [large]

        def open_rows() -> Strips:
            again = unread.pop() if unread else open_strips(path, source.name, [])
            assert again is not None
            return again[0]

        data = modes.encode_rows(codec, open_rows, first.grey, quality, None if strip else metadata, progress, effort)
        with mmap(source.file.fileno(), 0, access=ACCESS_READ) as whole:
            source.left_out += after_end(source, trailing_bytes(whole))
    return data


def read_picture(source: Source) -> Picture:
    """All of a picture.  Raises CodecError on what cannot be read."""
    image = source.read()
    left_out: list[str] = []
    samples, metadata = read_image(image, source.name, left_out)
    return Picture(samples, metadata, (*left_out, *after_end(source, trailing_bytes(image))))


def after_end(source: Source, count: int) -> list[str]:
    """The message on bytes that follow a picture in its file, if there are any."""
    return [f"{source.name}: {count} bytes after the end of the picture are left out"] if count else []


def decode_picture(
    source: Source,
    choose_target: ChooseTarget,
    model: str | None,
    window: Window | None,
    reduce: int,
    format: str,
    resources: Resources,
) -> Output:
    """.vae file of a picture -> image file; in strips where it is large."""
    choose_target(os.path.basename(decompressed_name(source.name)))
    refuse_large(source, window, resources.limits)
    data = source.read()
    image_file.check_is_image(image_file.contents(data).header)

    def write(file: BinaryIO, left_out: list[str]) -> None:
        shape, strips = modes.decode_strips(data, window, reduce, model, *resources)
        write_strips(shape, strips, file, image_file.metadata(data), format, left_out)

    shape, _ = modes.decode_strips(data, window, reduce, model, *resources)
    if is_large(*shape[:2]):
        return _written_in_strips(source, data, write)
    file = io.BytesIO()
    write(file, source.left_out)
    image = file.getvalue()

    def check(path: str) -> None:
        _check_equal(source, path, image)

    return Output(image, source.attributes, check, lambda: _record(data, len(image)))


def refuse_large(source: Source, window: Window | None, limits: Limits | None) -> None:
    """Raises LimitError on a .vae file of a picture that is too large, before the file is read whole."""
    with suppress(FormatError):  # of which the decoder says more
        head = read_preamble(source.begin()).header
        (limits or NONE).refuse(*(window[:1:-1] if window else (head.width, head.height)))


def _written_in_strips(source: Source, data: bytes, write: Callable[[BinaryIO, list[str]], None]) -> Output:
    """An image file that is never whole in memory: to check it is to make it again."""
    counted = Counted()

    def count(file: BinaryIO) -> None:
        write(cast(BinaryIO, counted.to(file)), source.left_out)

    def check(path: str) -> None:
        with open(path, "rb") as written, Same(written, not_removed_message(source, path)) as same:
            write(cast(BinaryIO, same), [])

    return Output(count, source.attributes, check, lambda: _record(data, counted.bytes))


def store_file(source: Source, choose_target: ChooseTarget) -> Output:
    """Any file -> .vae file."""
    choose_target(os.path.basename(compressed_name(source.name, picture=False)))
    about = stored.Stored(os.fsencode(os.path.basename(source.path or "")), source.attributes)
    content: list[stored.Content] = []

    def write(file: BinaryIO) -> None:
        content[:] = [stored.write(source.begin(), file, about)]

    def check(path: str) -> None:
        with open(path, "rb") as written, Same(source.begin(), not_removed_message(source, path)) as same:
            stored.read(written, cast(BinaryIO, same))

    return Output(write, source.attributes, check, lambda: _stored_record(content[0]))


def restore_file(source: Source, choose_target: ChooseTarget, named: bool = False) -> Output:
    """.vae file of a stored file -> that file, under its stored name unless the caller has `named` the output."""
    about = stored.Reader(source.begin()).about
    bare = os.path.basename(bare_name(source.name))
    name = bare if named else restored_name(source.name, about)
    # A name that nobody has seen on the command line may add a file, but not replace one.
    choose_target(name, name == bare)
    content: list[stored.Content] = []

    def write(file: BinaryIO) -> None:
        content[:] = [stored.read(source.begin(), file)[1]]

    def check(path: str) -> None:
        with open(path, "rb") as written, Same(written, not_removed_message(source, path)) as same:
            stored.read(source.begin(), cast(BinaryIO, same))

    return Output(write, about.attributes, check, lambda: _stored_record(content[0]))


def _check_equal(source: Source, path: str, data: bytes) -> None:
    """Raises CodecError unless the file at `path` has exactly these bytes."""
    with open(path, "rb") as file:
        if file.read(len(data) + 1) != data:
            raise CodecError(not_removed_message(source, path))


def not_removed_message(source: Source, dst: str) -> str:
    """What to say of a source that is not removed."""
    return f"{source.name}: is kept, as {dst} does not hold what was written to it"


def _record(data: bytes, image_bytes: int) -> dict[str, Any]:
    """Of a picture: width and height, bytes and bpp of its .vae file, bytes of the image file."""
    info = image_file.info(data)
    report = {key: info[key] for key in ("width", "height", "bytes", "bpp")}
    return {"kind": "picture", **report, "image_bytes": image_bytes}


def _stored_record(content: stored.Content) -> dict[str, Any]:
    """Of any other file: bytes of its .vae file and its own."""
    return {"kind": "file", "bytes": content.bytes, "file_bytes": content.size}
