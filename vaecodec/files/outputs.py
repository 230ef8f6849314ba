"""Make the output of a source: the .vae file of an image or of any other file, and both ways back.

The names of outputs are chosen here too: photo.jpg <-> photo.vae, notes.txt <-> notes.txt.vae.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, cast

import numpy as np

from vaecodec.arguments import DEFAULT_LIMITS, DEFAULT_TUNE, NO_LIMITS, Limits, pillow_limits
from vaecodec.atomic import Attributes, Path
from vaecodec.codec import exact, load, modes
from vaecodec.codec.mode_decision import Target
from vaecodec.container import SUFFIX, image_file, stored
from vaecodec.container.image_file import read_preamble
from vaecodec.errors import CodecError, FormatError, LimitError, ModelError, SkippedError, TargetError
from vaecodec.files import ByteCounter, Comparison, Source
from vaecodec.images import is_image, trailing_bytes
from vaecodec.images.channels import check_frame, describe_frames
from vaecodec.images.reading import read_image, read_weights
from vaecodec.images.strips import Strips, Window, is_large, open_strips
from vaecodec.images.writing import write_strips
from vaecodec.progress import Progress

if TYPE_CHECKING:
    from vaecodec.arguments import ImageLike

OWN_PREFIX = ".vaecodec-"  # of manifests and temporary files


class Resources(NamedTuple):
    """The size limits, the cores to use (None: all), and the function to report progress to."""

    limits: Limits | None = DEFAULT_LIMITS
    threads: int | None = None
    progress: Progress | None = None


class Output(NamedTuple):
    """An output before it is written: its bytes, or a function that writes them to a file."""

    data: bytes | Callable[[BinaryIO], Any]
    attributes: Attributes
    check: Callable[[str], None]  # raises CodecError unless the file at a path holds the source
    report: Callable[[], dict[str, Any]]  # sizes, known once the output is written


class ImageContent(NamedTuple):
    """The samples and metadata of an image file, and a message for everything in it that is left out."""

    samples: np.ndarray  # as modes.encode takes them
    metadata: dict[str, bytes]
    left_out: tuple[str, ...]


class ChooseTarget(Protocol):
    """Take an output's base name before the work begins; raises OSError or CodecError if it cannot be written.

    A caller that has named the output ignores the base name.  `may_replace` False forbids replacing a file.
    """

    def __call__(self, name: str, may_replace: bool = True) -> None: ...


# Encodes the image in a source and appends to its `left_out`; raises CodecError if it cannot.
Encode = Callable[[Source], bytes]


def compressed_name(src: Path, is_image: bool = True) -> str:
    """Name an output: photo.jpg -> photo.vae, and for files that are no images, notes.txt -> notes.txt.vae."""
    src = os.fspath(src)
    return (os.path.splitext(src)[0] if is_image else src) + SUFFIX


def decompressed_name(src: Path) -> str:
    """Name an image output: photo.vae -> photo.png; another suffix stays, as in photo.bin -> photo.bin.png."""
    stem, suffix = os.path.splitext(os.fspath(src))
    if suffix.lower() != SUFFIX:
        return stem + suffix + ".png"
    return stem if stem.lower().endswith(".png") else stem + ".png"


def name_without_suffix(src: Path) -> str:
    """Name the output of a stored file: notes.txt.vae -> notes.txt, and notes -> notes.out."""
    stem, suffix = os.path.splitext(os.fspath(src))
    return stem if suffix.lower() == SUFFIX else stem + suffix + ".out"


def restored_name(src: Path, header: stored.Stored) -> str:
    """Return the base name of a stored file, or the name of `src` without its suffix if none is stored.

    Raises CodecError on the name of a manifest or temporary file, which a later run would trust, on a hidden name
    that the name of `src` does not show, and on a name that leads to another folder on this system.
    """
    bare = os.path.basename(name_without_suffix(src))
    name = header.text or bare
    if name.casefold().startswith(OWN_PREFIX) or (name.startswith(".") and name != bare):
        raise CodecError(f"{os.fspath(src)}: the stored name {name} may be harmful here; choose another with -o")
    if os.path.basename(name) != name or os.path.splitdrive(name)[0]:
        raise CodecError(f"{os.fspath(src)}: the stored name {name} is invalid here; choose another with -o")
    return name


def encode_image(
    source: Source,
    choose_target: ChooseTarget,
    encode: Encode,
    model: str,
    only_images: bool,
    whole_name: bool,
    resources: Resources,
    frame: int | None = None,
) -> Output | None:
    """Encode an image as a .vae file; return None if the source is no image or, with a remark, cannot be encoded.

    Several pages or frames cannot be encoded, unless `frame` chooses one.  With `only_images` these raise SkippedError
    and CodecError.
    """
    if not is_image(source.rewind(), source.name):
        if only_images:
            raise SkippedError(f"{source.name}: not an image")
        return None
    several = describe_frames(source.rewind()) if frame is None else ""
    if frame is not None:
        check_frame(source.rewind(), frame, source.name)
    if not several:
        choose_target(os.path.basename(compressed_name(source.name, is_image=not whole_name)))
    try:
        if several:
            raise CodecError(f"holds {several}")
        with pillow_limits(resources.limits or NO_LIMITS):
            data = encode(source)
    except CodecError as exc:
        if only_images or isinstance(exc, (LimitError, ModelError, TargetError)):
            raise
        source.left_out.clear()  # the stored file is complete
        hint = " (--frame 1 or --all-frames encodes)" * bool(several)
        source.remarks.append(f"{source.name}: {str(exc).removeprefix(f'{source.name}: ')}; stored unchanged{hint}")
        return None

    def check(path: str) -> None:
        modes.verify(data, model, *resources)
        _check_bytes(source, path, data)

    return Output(data, source.attributes, check, lambda: _image_report(data, source.size()))


def encode_source(
    source: Source,
    quality: float | Target,
    model: str,
    strip: bool,
    resources: Resources,
    effort: int = 1,
    frame: int | None = None,
    roi: ImageLike | None = None,
    tune: str = DEFAULT_TUNE,
) -> bytes:
    """Encode the image in a source, or one of its pages or frames; read a large one in strips, if its format allows."""
    if isinstance(quality, Target) and quality.is_bound:
        samples, metadata, left_out = read_source_image(source, frame)
        source.left_out += left_out
        return exact.encode(samples, int(quality.value), None if strip else metadata, *resources[1:], effort=effort)
    codec, progress = load(model, threads=resources.threads), resources.progress
    opened = None
    if source.path and frame is None and roi is None:
        opened = open_strips(source.path, source.name, source.left_out)
    if opened is None:
        samples, metadata, left_out = read_source_image(source, frame)
        source.left_out += left_out
        weights = None if roi is None else read_weights(roi, samples.shape[:2])
        return modes.encode(codec, samples, quality, None if strip else metadata, progress, effort, weights, tune)
    (first, metadata), unread = opened, [opened]

    def open_rows() -> Strips:
        strips = unread.pop() if unread else open_strips(source.path or "", source.name, [])
        assert strips is not None
        return strips[0]

    how = None if strip else metadata, progress, effort, tune
    data = modes.encode_rows(codec, open_rows, first.grey, quality, *how)
    source.left_out += _trailing_message(source, trailing_bytes(source.file))
    return data


def read_source_image(source: Source, frame: int | None = None) -> ImageContent:
    """Read the whole image in a source, or one of its pages or frames; raises CodecError if it cannot be read."""
    data = source.read()
    left_out: list[str] = []
    samples, metadata = read_image(data, source.name, left_out, frame)
    return ImageContent(samples, metadata, (*left_out, *_trailing_message(source, trailing_bytes(io.BytesIO(data)))))


def _trailing_message(source: Source, count: int) -> list[str]:
    return [f"{source.name}: {count} bytes after the end of the image are left out"] if count else []


def decode_image(
    source: Source,
    choose_target: ChooseTarget,
    model: str | None,
    window: Window | None,
    reduce: int,
    format: str,
    resources: Resources,
) -> Output:
    """Decode the .vae file of an image to an image file; write a large one in strips."""
    choose_target(os.path.basename(decompressed_name(source.name)))
    refuse_large(source, window, resources.limits)
    data = source.read()
    image_file.check_is_image(image_file.contents(data).header)

    def write(file: BinaryIO, left_out: list[str]) -> None:
        shape, strips = modes.decode_strips(data, window, reduce, model, *resources)
        notes: list[str] = []
        write_strips(shape, strips, file, image_file.metadata(data), format, notes)
        left_out += [f"{source.name}: {note.removeprefix('image: ')}" for note in notes]

    shape, _ = modes.decode_strips(data, window, reduce, model, *resources)
    if not is_large(*shape[:2]):
        file = io.BytesIO()
        write(file, source.left_out)
        image = file.getvalue()
        return Output(
            image,
            source.attributes,
            lambda path: _check_bytes(source, path, image),
            lambda: _image_report(data, len(image)),
        )
    image_bytes = 0

    def write_counted(file: BinaryIO) -> None:
        nonlocal image_bytes
        counter = ByteCounter(file)
        write(cast(BinaryIO, counter), source.left_out)
        image_bytes = counter.bytes

    def check(path: str) -> None:  # the image is never whole in memory, so it is made again
        with open(path, "rb") as written, Comparison(written, not_removed_message(source, path)) as comparison:
            write(cast(BinaryIO, comparison), [])

    return Output(write_counted, source.attributes, check, lambda: _image_report(data, image_bytes))


def refuse_large(source: Source, window: Window | None, limits: Limits | None) -> None:
    """Raise LimitError on the .vae file of an image that is too large, before the file is read whole."""
    with suppress(FormatError):  # which the decoder reports
        head = read_preamble(source.rewind()).header
        (limits or NO_LIMITS).refuse(*(window[:1:-1] if window else (head.width, head.height)))


def store_file(source: Source, choose_target: ChooseTarget) -> Output:
    """Store any file unchanged in a .vae file."""
    choose_target(os.path.basename(compressed_name(source.name, is_image=False)))
    header = stored.Stored(os.fsencode("" if source.name == "-" else os.path.basename(source.name)), source.attributes)
    content: stored.Content | None = None

    def write(file: BinaryIO) -> None:
        nonlocal content
        content = stored.write(source.rewind(), file, header)

    def check(path: str) -> None:
        message = not_removed_message(source, path)
        with open(path, "rb") as written, Comparison(source.rewind(), message) as comparison:
            stored.read(written, cast(BinaryIO, comparison))

    return Output(write, source.attributes, check, lambda: _stored_report(content))


def restore_file(source: Source, choose_target: ChooseTarget, is_named: bool = False) -> Output:
    """Restore a stored file under its stored name, or under the caller's name for the output if `is_named`."""
    header = stored.Reader(source.rewind()).about
    bare = os.path.basename(name_without_suffix(source.name))
    name = bare if is_named else restored_name(source.name, header)
    # The user has not seen a stored name, so it may add a file, but not replace one.
    choose_target(name, name == bare)
    content: stored.Content | None = None

    def write(file: BinaryIO) -> None:
        nonlocal content
        content = stored.read(source.rewind(), file)[1]

    def check(path: str) -> None:
        with open(path, "rb") as written, Comparison(written, not_removed_message(source, path)) as comparison:
            stored.read(source.rewind(), cast(BinaryIO, comparison))

    return Output(write, header.attributes, check, lambda: _stored_report(content))


def _check_bytes(source: Source, path: str, data: bytes) -> None:
    """Raise CodecError unless the file at `path` has exactly these bytes."""
    with open(path, "rb") as file:
        if file.read(len(data) + 1) != data:
            raise CodecError(not_removed_message(source, path))


def not_removed_message(source: Source, dst: str) -> str:
    """Return the error message for an output that does not hold its source."""
    return f"{source.name}: not removed, because {dst} does not hold the data that was written to it"


def _image_report(data: bytes, image_bytes: int) -> dict[str, Any]:
    """Report width and height, bytes and bpp of an image's .vae file, and bytes of the image file."""
    info = image_file.info(data)
    report = {key: info[key] for key in ("width", "height", "bytes", "bpp")}
    return {"kind": "picture", **report, "image_bytes": image_bytes}


def _stored_report(content: stored.Content | None) -> dict[str, Any]:
    """Report bytes of the .vae file and of the file in it."""
    assert content is not None
    return {"kind": "file", "bytes": content.bytes, "file_bytes": content.size}
