"""Image files <-> u8[H, W, 3] and the metadata that goes with them.

    file -> Pillow -> upright -> opaque -> RGB -> (pixels, {"icc": ..., "exif": ..., "xmp": ...})

What the codec cannot hold (transparency, more than 8 bits a sample) is refused here, never dropped in silence.
Pillow is imported where it is used: naming a file's metadata must not load it.
"""

from __future__ import annotations

import io
import os
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vaecodec.errors import CodecError, LimitError

if TYPE_CHECKING:
    from PIL import Image

GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV")
DRAWINGS = ("EPS", "WMF")  # rendering these runs other programs on what may be a hostile file

EXIF_PREFIX = b"Exif\0\0"  # JPEG's, which Pillow shows for some formats and not for others; never stored

# A TIFF keeps its layout and its EXIF in one directory.  These tags describe the picture and not the file:
# description, make, model, resolution, software, date, artist, computer, copyright, EXIF and GPS directories.
TIFF_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, 34665, 34853)
TIFF_DIRECTORIES = (34665, 34853)
TIFF_XMP = 700

# Written once and kept, so as near to the pixels as the format goes.
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
METADATA_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")


def read_image(
    source: str | os.PathLike[str] | bytes | np.ndarray | Image.Image, name: str | None = None
) -> tuple[np.ndarray, dict[str, bytes]]:
    """(u8[H, W, 3], metadata) of a path, of an encoded image in bytes, of an array or of a Pillow image.

    Metadata has those of "icc", "exif" (from its TIFF header on) and "xmp" that there are.  EXIF orientation is
    applied and its tag dropped.  A grey or CMYK profile is applied and dropped: the pixels are then sRGB.
    `name` is what errors call a source that is not a path.  Raises CodecError on anything that is not a whole
    opaque image of at most 8 bits a sample (in JPEG 2000 and AVIF files Pillow does not tell the depth).
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, (str, os.PathLike)):
        name = name or os.fspath(source)
    elif not isinstance(source, (bytes, np.ndarray, Image.Image)):
        raise TypeError(f"an image is a path, bytes, an array or a Pillow image, not {type(source).__name__}")
    name = name or "image"
    if isinstance(source, np.ndarray):
        return _array_pixels(source, name), {}
    try:
        if isinstance(source, Image.Image):
            return _convert(source, name)
        if not isinstance(source, bytes):
            with open(source, "rb") as file:
                source = file.read()
        with Image.open(io.BytesIO(source)) as image:
            return _convert(image, name)
    except CodecError:
        raise
    except UnidentifiedImageError as exc:
        raise CodecError(f"{name}: not an image that Pillow can read") from exc
    except Image.DecompressionBombError as exc:
        raise LimitError(f"{name}: {exc}") from exc
    except OSError as exc:
        raise CodecError(f"{name}: {exc.strerror or exc}") from exc
    except Exception as exc:  # on damaged files Pillow's readers raise nearly anything, struct.error to KeyError
        raise CodecError(f"{name}: cannot be read as an image ({type(exc).__name__}: {exc})") from exc


def write_image(
    pixels: np.ndarray,
    destination: str | os.PathLike[str] | BinaryIO,
    metadata: dict[str, bytes] | None = None,
    format: str | None = None,
) -> None:
    """Writes u8[H, W, 3] as `format`, else by the path's suffix, else as PNG; the inverse of read_image.

    Raises CodecError where the format is unknown or cannot hold the pixels or the metadata.  A path is written in
    place; files.decompress_file is the way that a crash cannot leave half a file of.
    """
    from PIL import Image

    name = os.fspath(destination) if isinstance(destination, (str, os.PathLike)) else "image"
    format = format or format_of(name)
    options = dict(SAVE_OPTIONS.get(format, {}))
    if metadata and format not in METADATA_FORMATS:
        warnings.warn(f"{name}: {format} has no place for {', '.join(sorted(metadata))}", stacklevel=2)
        metadata = None
    try:
        options.update(_save_metadata(format, metadata or {}))
        Image.fromarray(pixels).save(destination, format, **options)
    except OSError as exc:
        raise CodecError(f"{name}: {exc.strerror or exc}") from exc
    except Exception as exc:  # as in reading: Pillow's writers raise what they meet
        raise CodecError(f"{name}: cannot be written as {format} ({exc})") from exc


def format_of(path: str | os.PathLike[str]) -> str:
    """Pillow's name of the format that a path's suffix stands for, PNG where it has none; raises CodecError."""
    from PIL import Image

    suffix = os.path.splitext(path)[1].lower() or ".png"
    format = Image.registered_extensions().get(suffix)
    if format not in Image.SAVE:
        raise CodecError(f"{os.fspath(path)}: no image format to write has the suffix {suffix}; try .png")
    return format


def _array_pixels(array: np.ndarray, name: str) -> np.ndarray:
    """u8[H, W, 3] of u8[H, W] or u8[H, W, 1, 2, 3 or 4] (grey, grey + alpha, RGB, RGBA)."""
    from PIL import Image

    if array.dtype != np.uint8:
        raise CodecError(f"{name}: pixels are {array.dtype}, expected uint8 in [0, 255]")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)) or not array.size:
        raise CodecError(f"{name}: shape {array.shape}, expected height x width x 3, none of them 0")
    if array.ndim == 3 and array.shape[2] == 3:
        return np.ascontiguousarray(array)
    return _convert(Image.fromarray(array.squeeze(2) if array.shape[2:] == (1,) else array), name)[0]


def _convert(image: Image.Image, name: str) -> tuple[np.ndarray, dict[str, bytes]]:
    """(pixels, metadata) of an open image; raises CodecError on what does not fit and Pillow's own on damage."""
    if image.format in DRAWINGS:
        raise CodecError(f"{name}: {image.format} is a drawing; render it to pixels first, as a PNG")
    if _is_deep(image):
        raise CodecError(f"{name}: more than 8 bits a sample; convert it to 8 bits first")
    if image.mode not in (*GREY_MODES, *COLOUR_MODES):
        raise CodecError(f"{name}: colour mode {image.mode}; convert it to 8-bit RGB first")
    if getattr(image, "is_animated", False):
        warnings.warn(f"{name}: more than one frame; only the first is kept", stacklevel=3)
    image.load()
    image, exif = _upright(image, name)
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        if np.asarray(with_alpha.getchannel("A")).min() < 255:
            raise CodecError(f"{name}: has transparent pixels; flatten it onto a background first")
        info, image = image.info, with_alpha.convert("L" if image.mode in GREY_MODES else "RGB")
        image.info = info
    rgb, icc = _to_rgb(image, name)
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    found = {"icc": icc, "exif": exif, "xmp": xmp.encode() if isinstance(xmp, str) else xmp}
    return np.array(rgb), {kind: value for kind, value in found.items() if isinstance(value, bytes) and value}


def _is_deep(image: Image.Image) -> bool:
    """Whether samples have more than 8 bits: by the mode, or by the raw mode where Pillow would cut them to 8."""
    if image.mode[0] in "IF":
        return True
    for tile in getattr(image, "tile", ()):
        codec, arguments = tile[0], tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(value, str) and ";16" in value for value in arguments):
            return True
        if codec.startswith("ppm") and arguments[-1] > 255:
            return True
    return False


def _upright(image: Image.Image, name: str) -> tuple[Image.Image, bytes | None]:
    """(image turned as its EXIF says, EXIF without that tag); damaged EXIF is left out with a warning."""
    from PIL import Image, ImageOps

    try:
        tags = image.getexif()
        turned = ImageOps.exif_transpose(image)
        exif = turned.info.get("exif")
        if exif is None and "Raw profile type exif" in turned.info:  # PNGs of before 2017
            exif = turned.getexif().tobytes()
        elif exif is None and hasattr(image, "tag_v2"):
            kept = Image.Exif()
            for tag in TIFF_TAGS:
                if tag in tags:
                    kept[tag] = tags.get_ifd(tag) if tag in TIFF_DIRECTORIES else tags[tag]
            exif = kept.tobytes() if len(kept) else None
        return turned, exif and exif.removeprefix(EXIF_PREFIX)
    except Exception:  # EXIF is read by hand in Pillow: any error means that it is not EXIF
        warnings.warn(f"{name}: its EXIF data is damaged and left out", stacklevel=4)
        return image, None


def _to_rgb(image: Image.Image, name: str) -> tuple[Image.Image, bytes | None]:
    """(RGB image, ICC profile that its values are in, None for sRGB)."""
    from PIL import ImageCms

    icc = image.info.get("icc_profile")
    space = icc[16:20] if icc else b"RGB "  # ICC.1:2022, 7.2.6
    if (space == b"RGB " and image.mode != "CMYK") or not icc:
        return image.convert("RGB"), icc
    if (space == b"GRAY" and image.mode in GREY_MODES) or (space == b"CMYK" and image.mode == "CMYK"):
        source = image.convert("L") if space == b"GRAY" else image
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            rgb = ImageCms.profileToProfile(source, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, ImportError, OSError):
            rgb = None
        if rgb is not None:
            return rgb, None
    warnings.warn(f"{name}: its colour profile cannot be applied and is left out", stacklevel=4)
    return image.convert("RGB"), None


def _save_metadata(format: str, metadata: dict[str, bytes]) -> dict[str, Any]:
    """Pillow's save options for metadata as read_image returns it."""
    from PIL import Image, PngImagePlugin

    options: dict[str, Any] = {}
    if "icc" in metadata:
        options["icc_profile"] = metadata["icc"]
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
