"""Write samples and metadata to image files: the inverse of reading."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from vaecodec.container import SUFFIX
from vaecodec.errors import CodecError
from vaecodec.images import EXIF_PREFIX, INCH, RESOLUTION
from vaecodec.images.channels import alpha_channel, count_channels
from vaecodec.images.reading import convert_to_rgb
from vaecodec.images.strips import gather, png_chunk, read_png_layout
from vaecodec.progress import collect_messages

# Decoded images are written once and kept, so options favour quality.
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},  # a third of the time of the usual 6, and files of photographs 1.6 % larger
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
WITH_ALPHA = ("PNG", "WEBP", "AVIF", "TIFF", "JPEG2000", "TGA", "ICO", "DDS")
WITH_16_BIT_GREY = ("PNG", "TIFF", "PPM", "JPEG2000")  # 16-bit colour: PNG alone
WITHOUT_GREY = ("WEBP", "AVIF")
METADATA_KEYS = {
    **{format: {"icc", "exif", "xmp", "dpi"} for format in ("PNG", "JPEG", "TIFF")},
    **{format: {"icc", "exif", "xmp"} for format in ("WEBP", "AVIF")},
    "BMP": {"dpi"},
}
TIFF_XMP = 700
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels (ISO/IEC 15948, 11.2.1)
PNG_BLOCK = 1 << 24  # bytes of pixels filtered at a time


def write_image(
    samples: np.ndarray,
    destination: str | os.PathLike[str] | BinaryIO,
    metadata: dict[str, bytes] | None = None,
    format: str | None = None,
    left_out: list[str] | None = None,
) -> None:
    """Write samples and metadata as `format`, by default that of the path's suffix, or PNG.

    A path is written in place, not atomically.  `left_out` is that of read_image.  Raises CodecError where the format
    is unknown or cannot hold the samples.
    """
    from PIL import Image

    name = os.fspath(destination) if isinstance(destination, (str, os.PathLike)) else "image"
    format, notes = format or format_of(name), list[str]()
    alpha = alpha_channel(samples)
    if alpha is not None and format not in WITH_ALPHA:
        if alpha.min() < np.iinfo(samples.dtype).max:
            raise CodecError(f"{name}: {format} cannot hold transparency; write a PNG and flatten that")
        samples = samples[..., 0] if count_channels(samples) == 2 else np.ascontiguousarray(samples[..., :3])
    if samples.dtype == np.uint16 and format != "PNG" and (samples.ndim > 2 or format not in WITH_16_BIT_GREY):
        raise CodecError(f"{name}: {format} cannot hold 16 bits a sample; write a PNG")
    with collect_messages(left_out) as messages:
        try:
            options = {**SAVE_OPTIONS.get(format, {}), **_metadata_options(format, metadata or {}, notes)}
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
                image, options["icc_profile"] = convert_to_rgb(image, notes)
            image.save(destination, format, **options)
        except OSError as exc:
            raise CodecError(f"{name}: {exc.strerror or exc}") from exc
        except Exception as exc:  # Pillow's writers raise nearly anything
            raise CodecError(f"{name}: cannot be written as {format} ({exc})") from exc
        finally:
            messages += [f"{name}: {note}" for note in notes]


def format_of(path: str | os.PathLike[str]) -> str:
    """Pillow's name for the format of a path's suffix, PNG without one; raises CodecError on unknown suffixes."""
    from PIL import Image

    suffix = os.path.splitext(path)[1].lower() or ".png"
    Image.preinit()  # the usual formats; to load all of Pillow's takes as long as to decode an image
    format = Image.EXTENSION.get(suffix) or Image.registered_extensions().get(suffix)
    if format not in Image.SAVE or suffix == SUFFIX:  # integrations.pillow registers .vae with Pillow
        raise CodecError(f"{os.fspath(path)}: no image format to write has the suffix {suffix}; try .png")
    return format


def _metadata_options(format: str, metadata: dict[str, bytes], notes: list[str]) -> dict[str, Any]:
    """Pillow's options to save metadata; `notes` receives a message on what the format has no place for."""
    from PIL import Image, PngImagePlugin

    missing = sorted(set(metadata) - METADATA_KEYS.get(format, set()))
    if missing:
        notes.append(f"{format} has no place for {', '.join(missing)}")
        metadata = {key: value for key, value in metadata.items() if key not in missing}
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
    """Encode u16[H, W] or u16[H, W, 2, 3 or 4] as a PNG; `options` are Pillow's, for metadata.

    Pillow writes 16-bit PNGs of grey images only.  Each row has the filter with the least sum of absolute values
    (ISO/IEC 15948, sections 9 and 12.7).
    """
    from PIL import Image

    height, width = samples.shape[:2]
    template = io.BytesIO()
    Image.new("L", (1, 1)).save(template, "PNG", **(options or {}))
    deflate, parts = zlib.compressobj(6), []
    pixel_bytes, above = 2 * count_channels(samples), np.zeros(2 * samples[0].size, np.int16)
    for samples_of_row in samples.reshape(height, -1):
        row = samples_of_row.astype(">u2").view(np.uint8).astype(np.int16)
        left, corner = (np.concatenate([np.zeros(pixel_bytes, np.int16), x[:-pixel_bytes]]) for x in (row, above))
        gradient = left + above - corner
        to_left, to_above, to_corner = (abs(gradient - x) for x in (left, above, corner))
        paeth = np.where(to_above <= to_corner, above, corner)
        paeth = np.where((to_left <= to_above) & (to_left <= to_corner), left, paeth)
        filtered = (row - np.stack([np.zeros_like(row), left, above, (left + above) >> 1, paeth])).astype(np.uint8)
        best = int(np.abs(filtered.view(np.int8).astype(np.int16)).sum(axis=1).argmin())
        parts.append(deflate.compress(bytes([best]) + filtered[best].tobytes()))
        above = row
    ihdr = struct.pack(">IIBBBBB", width, height, 16, PNG_COLOUR_TYPES[count_channels(samples)], 0, 0, 0)
    layout = read_png_layout(template, 1 << 31)._replace(ihdr=ihdr)
    return layout.build(height, b"".join([*parts, deflate.flush()]), layout.after)


def write_strips(
    shape: tuple[int, ...],
    strips: Iterator[np.ndarray],
    file: BinaryIO,
    metadata: dict[str, bytes],
    format: str,
    left_out: list[str] | None = None,
) -> None:
    """Write an image of this shape from strips of its rows, to the effect of write_image.

    PNG, and PPM without alpha, are written strip by strip.  `file` need not be seekable.
    """
    first = next(strips)
    strips, whole = chain([first], strips), io.BytesIO()
    if first.shape == shape or not (format == "PNG" or (format == "PPM" and shape[2:] in ((), (3,)))):
        write_image(gather(shape, strips), whole, metadata, format, left_out)
        file.write(whole.getbuffer())
        return
    write_image(np.zeros_like(first[:1]), whole, metadata, format, left_out)  # one row, with the metadata
    if format == "PPM":
        file.write(b"P%d\n%d %d\n255\n" % (6 if shape[2:] else 5, shape[1], shape[0]))
        for strip in strips:
            file.write(np.ascontiguousarray(strip).data.cast("B"))
        return
    layout = read_png_layout(whole)
    header = layout.build(shape[0], b"")
    file.write(header[: header.index(b"IDAT") - 4])
    deflate = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)  # as Pillow compresses
    context: list[np.ndarray] = []  # the row before the block, from which its first row may be predicted
    for strip in strips:
        block_rows = max(1, PNG_BLOCK // strip[0].nbytes)
        for top in range(0, len(strip), block_rows):
            block = strip[top : top + block_rows]
            rows = _filter_png_rows(np.concatenate([*context, block]))
            context_bytes = len(rows) // (len(block) + len(context)) * len(context)
            file.write(png_chunk(b"IDAT", deflate.compress(memoryview(rows)[context_bytes:])))
            context = [block[-1:].copy()]
    file.write(png_chunk(b"IDAT", deflate.flush()) + layout.after + png_chunk(b"IEND", b""))


def _filter_png_rows(rows: np.ndarray) -> bytes:
    """The rows with Pillow's choice of PNG filters, each after its filter's byte."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rows).save(file, "PNG", compress_level=0)
    data = file.getbuffer()
    return zlib.decompress(b"".join(data[begin : begin + length] for begin, length in read_png_layout(file).data))
