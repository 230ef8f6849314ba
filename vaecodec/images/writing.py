"""Write images to files."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from vaecodec.container.chunks import SUFFIX
from vaecodec.errors import CodecError
from vaecodec.images.channels import alpha_channel, count_channels
from vaecodec.images.metadata import EXIF_PREFIX, INCH, RESOLUTION, TIFF_XMP
from vaecodec.images.reading import _to_rgb
from vaecodec.images.strips import chunk, gather, read_layout
from vaecodec.progress import collect_messages

# Written once and kept, so as near to the pixels as the format goes.
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},  # a third of the time of the usual 6, and files of photographs 1.6 % larger
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
WITH_ALPHA = ("PNG", "WEBP", "AVIF", "TIFF", "JPEG2000", "TGA", "ICO", "DDS")
WITHOUT_GREY = ("WEBP", "AVIF")
DEEP = ("PNG", "TIFF", "PPM", "JPEG2000")  # colour of 16 bits: PNG alone
METADATA_IN = {
    **{format: {"icc", "exif", "xmp", "dpi"} for format in ("PNG", "JPEG", "TIFF")},
    **{format: {"icc", "exif", "xmp"} for format in ("WEBP", "AVIF")},
    "BMP": {"dpi"},
}
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of a PNG, by channels (ISO/IEC 15948, 11.2.1)
BLOCK = 1 << 24  # bytes of pixels written at a time


def write_image(
    samples: np.ndarray,
    destination: str | os.PathLike[str] | BinaryIO,
    kept: dict[str, bytes] | None = None,
    format: str | None = None,
    left_out: list[str] | None = None,
) -> None:
    """Writes samples and metadata as `format`, else by the path's suffix, else as PNG; the inverse of read_image.

    Raises CodecError where the format is unknown or cannot hold the samples or the metadata.  A path is written in
    place; files.decompress_file is the way that a crash cannot leave half a file of.  `left_out` as in read_image.
    """
    name = os.fspath(destination) if isinstance(destination, (str, os.PathLike)) else "image"
    format = format or format_of(name)
    samples = _fit(samples, format, name)
    with collect_messages(left_out) as messages:
        _write(samples, destination, kept or {}, format, name, messages)


def _write(
    samples: np.ndarray,
    destination: str | os.PathLike[str] | BinaryIO,
    kept: dict[str, bytes],
    format: str,
    name: str,
    left_out: list[str],
) -> None:
    from PIL import Image

    try:
        options = {**SAVE_OPTIONS.get(format, {}), **save_options(format, kept, name, left_out)}
        if samples.dtype == np.uint16 and format == "PNG":
            data = encode_png16(samples, options)
            if isinstance(destination, (str, os.PathLike)):
                with open(destination, "wb") as file:
                    file.write(data)
            else:
                destination.write(data)
            return
        image = Image.fromarray(samples)
        if image.mode == "L" and format in WITHOUT_GREY and "icc_profile" in options:
            image.info["icc_profile"] = options.pop("icc_profile")
            image, options["icc_profile"] = _to_rgb(image, name, left_out)
        image.save(destination, format, **options)
    except OSError as exc:
        raise CodecError(f"{name}: {exc.strerror or exc}") from exc
    except Exception as exc:  # as in reading: Pillow's writers raise what they meet
        raise CodecError(f"{name}: cannot be written as {format} ({exc})") from exc


def format_of(path: str | os.PathLike[str]) -> str:
    """Pillow's name of the format that a path's suffix stands for, PNG where it has none; raises CodecError."""
    from PIL import Image

    suffix = os.path.splitext(path)[1].lower() or ".png"
    Image.preinit()  # the usual formats; to load all of Pillow's takes as long as to decode an image
    format = Image.EXTENSION.get(suffix) or Image.registered_extensions().get(suffix)
    if format not in Image.SAVE or suffix == SUFFIX:  # which vaecodec.integrations.pillow may have made one of Pillow's
        raise CodecError(f"{os.fspath(path)}: no image format to write has the suffix {suffix}; try .png")
    return format


def _fit(samples: np.ndarray, format: str, name: str) -> np.ndarray:
    """The samples as the format takes them; raises CodecError where that would lose something."""
    alpha = alpha_channel(samples)
    if alpha is not None and format not in WITH_ALPHA:
        if alpha.min() < np.iinfo(samples.dtype).max:
            raise CodecError(f"{name}: {format} cannot hold transparency; write a PNG and flatten that")
        samples = samples[..., 0] if count_channels(samples) == 2 else np.ascontiguousarray(samples[..., :3])
    if samples.dtype == np.uint16 and format != "PNG" and (samples.ndim > 2 or format not in DEEP):
        raise CodecError(f"{name}: {format} cannot hold 16 bits a sample; write a PNG")
    return samples


def save_options(format: str, metadata: dict[str, bytes], name: str, left_out: list[str]) -> dict[str, Any]:
    """Pillow's options to save metadata with; appends to `left_out` what the format has no place for."""
    from PIL import Image, PngImagePlugin

    missing = sorted(set(metadata) - METADATA_IN.get(format, set()))
    if missing:
        left_out.append(f"{name}: {format} has no place for {', '.join(missing)}")
        metadata = {kind: value for kind, value in metadata.items() if kind not in missing}
    options: dict[str, Any] = {}
    if "icc" in metadata:
        options["icc_profile"] = metadata["icc"]
    if "dpi" in metadata and len(metadata["dpi"]) == RESOLUTION.size:
        options["dpi"] = tuple(value * INCH for value in RESOLUTION.unpack(metadata["dpi"]))
    if "exif" in metadata:
        options["exif"] = EXIF_PREFIX + metadata["exif"]
    if "xmp" in metadata and format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", metadata["xmp"])
    elif "xmp" in metadata and format == "TIFF":
        options["exif"] = tags = Image.Exif()
        if "exif" in metadata:
            tags.load(metadata["exif"])
        tags[TIFF_XMP] = metadata["xmp"]
    elif "xmp" in metadata:
        options["xmp"] = metadata["xmp"]
    return options


def encode_png16(samples: np.ndarray, options: dict[str, Any] | None = None) -> bytes:
    """u16[H, W] or u16[H, W, 2, 3 or 4] -> a PNG, bytes; `options` are those of Pillow, for metadata."""
    from PIL import Image

    height, width = samples.shape[:2]
    channels = samples.size // (height * width)
    frame = io.BytesIO()
    Image.new("L", (1, 1)).save(frame, "PNG", **(options or {}))
    chunks = frame.getvalue()
    out, at = [chunks[:8]], 8
    while at < len(chunks):
        (length,) = struct.unpack_from(">I", chunks, at)
        tag, payload = chunks[at + 4 : at + 8], chunks[at + 8 : at + 8 + length]
        at += 12 + length
        if tag == b"IHDR":
            payload = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
        elif tag == b"IDAT":
            payload = _compressed(samples.reshape(height, -1), 2 * channels)
        out += [struct.pack(">I", len(payload)), tag, payload, struct.pack(">I", zlib.crc32(tag + payload))]
    return b"".join(out)


def _compressed(samples: np.ndarray, step: int) -> bytes:
    """The rows u16[H, W * channels], each with the filter of the least sum (ISO/IEC 15948, 9 and 12.7), deflated."""
    deflate, parts = zlib.compressobj(6), []
    above = np.zeros(2 * samples.shape[1], np.int16)
    for line in samples:
        row = line.astype(">u2").view(np.uint8).astype(np.int16)
        left, corner = (np.concatenate([np.zeros(step, np.int16), whole[:-step]]) for whole in (row, above))
        guess = left + above - corner
        to_left, to_above, to_corner = (abs(guess - near) for near in (left, above, corner))
        paeth = np.where(to_above <= to_corner, above, corner)
        paeth = np.where((to_left <= to_above) & (to_left <= to_corner), left, paeth)
        guesses = np.stack([np.zeros_like(row), left, above, (left + above) >> 1, paeth])
        filtered = (row - guesses).astype(np.uint8)
        best = int(np.abs(filtered.view(np.int8).astype(np.int16)).sum(axis=1).argmin())
        parts.append(deflate.compress(bytes([best]) + filtered[best].tobytes()))
        above = row
    return b"".join([*parts, deflate.flush()])


def write_rows(file: BinaryIO, like: bytes, height: int, strips: Iterator[np.ndarray]) -> None:
    """Writes a PNG of the rows u8[n, W, 3] of `strips`, `height` in all, with the metadata of `like`, a PNG as wide."""
    layout = read_layout(io.BytesIO(like))
    empty = layout.build(height, b"")
    file.write(empty[: empty.index(b"IDAT") - 4])
    # As Pillow compresses, so that the file has the same size.
    deflate = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    context: list[np.ndarray] = []
    for strip in strips:
        size = max(1, BLOCK // strip[0].nbytes)
        for top in range(0, len(strip), size):
            block = strip[top : top + size]
            rows = _filtered(np.concatenate([*context, block]))
            known = len(rows) // (len(block) + len(context)) * len(context)
            file.write(chunk(b"IDAT", deflate.compress(memoryview(rows)[known:])))
            context = [block[-1:].copy()]
    file.write(chunk(b"IDAT", deflate.flush()) + layout.after + chunk(b"IEND", b""))


def _filtered(rows: np.ndarray) -> bytes:
    """The rows with PNG's filters applied, each behind the byte that names its filter."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rows).save(file, "PNG", compress_level=0)
    data = file.getbuffer()
    return zlib.decompress(b"".join(data[at : at + length] for at, length in read_layout(file).data))


def write_strips(
    shape: tuple[int, ...],
    strips: Iterator[np.ndarray],
    file: BinaryIO,
    kept: dict[str, bytes],
    format: str,
    left_out: list[str] | None = None,
) -> None:
    """Writes the rows of `strips`, [n, W] or [n, W, C], `shape` in all, as write_image would.

    PNG, and PPM without alpha, as they come, if they come one by one: `file` is only ever written to.  `left_out` as in
    write_image.
    """
    first = next(strips)
    strips, row, whole = chain([first], strips), io.BytesIO(), io.BytesIO()
    in_parts = first.shape != shape
    if in_parts and format == "PNG":
        write_image(np.zeros_like(first[:1]), row, kept, format, left_out)
        write_rows(file, row.getvalue(), shape[0], strips)
    elif in_parts and format == "PPM" and shape[2:] in ((), (3,)):
        write_image(np.zeros_like(first[:1]), row, kept, format, left_out)  # for what there is no place for
        file.write(b"P%d\n%d %d\n255\n" % (6 if shape[2:] else 5, shape[1], shape[0]))
        for strip in strips:
            file.write(np.ascontiguousarray(strip).data.cast("B"))
    else:
        write_image(gather(shape, strips), whole, kept, format, left_out)
        file.write(whole.getbuffer())
