"""Read image files into arrays of samples and metadata.

    file -> Pillow -> EXIF orientation applied -> grey or RGB, with or without alpha -> samples, metadata

Samples are u8 or u16: [H, W] grey, [H, W, 2] grey and alpha, [H, W, 3] RGB, [H, W, 4] RGBA.  Palettes and CMYK become
RGB, bilevel images become 8-bit grey.  Images that samples cannot represent (float, Lab, vector graphics, more than
8 bits where Pillow delivers 8) are refused.  Metadata is a dict with some of these keys:

    "icc"   the ICC profile
    "exif"  EXIF data without orientation, from the TIFF header on
    "xmp"   the XMP packet
    "dpi"   RESOLUTION: horizontal and vertical pixels per metre

The weights of an image's pixels, a map of what matters in it, are read from an image file, too.
"""

from __future__ import annotations

import io
import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from vaecodec.arguments import to_bytes
from vaecodec.config import IMAGE_CHANNELS
from vaecodec.errors import CodecError, LimitError
from vaecodec.images import EXIF_PREFIX, INCH, RESOLUTION, check_avif
from vaecodec.images.channels import (
    SUB_DIRECTORIES,
    check_array,
    has_png_frames,
    is_array,
    key_to_alpha,
    tiff_directories_fit,
    to_array,
    to_numpy,
)
from vaecodec.images.colours import bit_depth, raw_mode, read_16_bit, split_alpha
from vaecodec.progress import collect_messages

if TYPE_CHECKING:
    from PIL import Image

    from vaecodec.arguments import ImageLike


EXPECTED = "a path, an encoded image, an array or a Pillow image"
GREY_MODES = ("1", "L", "LA", "La")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
VECTOR_FORMATS = ("EPS", "WMF")  # Pillow renders them with other programs, which a hostile file may exploit
SRGB_GAMMA = 0.45455  # of a PNG without a profile

# TIFF tags: TIFF 6.0, section 15; EXIF 2.32, section 4.6
ORIENTATION, TILE_WIDTH, TILE_LENGTH = 274, 322, 323
# Tags that describe the image and not the file: description, make, model, software, date, artist, computer, copyright.
DESCRIPTIVE_TAGS = (270, 271, 272, 305, 306, 315, 316, 33432, *SUB_DIRECTORIES)
MAX_TILE = 1 << 22  # pixels of a tile in an image smaller than that


def read_image(
    source: ImageLike,
    name: str | None = None,
    left_out: list[str] | None = None,
    frame: int | None = None,
) -> tuple[np.ndarray, dict[str, bytes]]:
    """Read the samples and metadata of an image; the module's docstring describes both.

    EXIF orientation is applied.  A CMYK profile is applied and dropped: the samples are then sRGB.

    Args:
        source: A path, an encoded image (bytes or a binary file), samples u8 or u16 (an array, or what NumPy converts
            to one), or a Pillow image.
        name: What messages call the source; its path by default.
        frame: Which of several pages or frames to read, from 1; None is the first, with a message on the others.
        left_out: Receives messages on what samples and metadata omit; without it they become warnings.

    Raises:
        CodecError: The source is not an undamaged image of at most 16 bits a sample.
        LimitError: The image exceeds Pillow's limit on pixels.
        OSError: The file at the path cannot be read.
        TypeError: The source is none of these.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, (str, os.PathLike)):
        name = name or os.fspath(source)
    if not isinstance(source, Image.Image):
        contents: Any = source
        source = to_numpy(contents) if is_array(contents) else to_bytes(contents, "image", EXPECTED)
    name, notes = name or "image", list[str]()
    with collect_messages(left_out) as messages:
        try:
            if isinstance(source, np.ndarray):
                return _check_samples(source), {}
            if isinstance(source, Image.Image):
                return _convert(source, b"", notes)
            with Image.open(io.BytesIO(source)) as image:
                if image.format == "PNG":
                    with Image.open(io.BytesIO(source)) as copy:
                        copy.verify()  # the CRCs of pixel data, which loading does not check
                check_coded_size(image, source)
                image.seek((frame or 1) - 1)
                return _convert(image, source, notes, frame)
        except CodecError as exc:
            raise CodecError(f"{name}: {exc}") from exc
        except UnidentifiedImageError as exc:
            raise CodecError(f"{name}: not an image that Pillow can read") from exc
        except Image.DecompressionBombError as exc:
            raise LimitError(f"{name}: {exc}") from exc
        except OSError as exc:
            raise CodecError(f"{name}: {exc.strerror or exc}") from exc
        except Exception as exc:  # on damaged files Pillow raises nearly anything, from struct.error to KeyError
            raise CodecError(f"{name}: cannot be read as an image ({type(exc).__name__}: {exc})") from exc
        finally:
            messages += [f"{name}: {note}" for note in notes]


def read_rgb(source: str | os.PathLike[str] | bytes, name: str | None = None) -> np.ndarray:
    """Read an opaque 8-bit image as u8[H, W, 3], grey in all three channels; raise CodecError on others."""
    name = name or ("image" if isinstance(source, bytes) else os.fspath(source))
    samples = read_image(source, name)[0]
    if samples.dtype != np.uint8:
        raise CodecError(f"{name}: more than 8 bits a sample; convert it to 8 bits first")
    rgb, alpha = split_alpha(samples)
    if alpha is not None and alpha.min() < 255:
        raise CodecError(f"{name}: has transparent pixels; flatten it onto a background first")
    return rgb


def read_samples(channels: int, image: Any) -> tuple[np.ndarray, dict[str, bytes]]:
    """Read what a model of `channels` codes: an image, or an array u8[H, W, channels] without metadata."""
    if channels in IMAGE_CHANNELS:
        return read_image(image)
    check_array(channels, image)
    return image, {}


def _check_samples(array: np.ndarray) -> np.ndarray:
    """The array in native byte order, [H, W, 1] as [H, W]."""
    if array.dtype not in (np.uint8, np.uint16):
        raise CodecError(f"pixels are {array.dtype}, expected uint8 in [0, 255] or uint16 in [0, 65535]")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)) or not array.size:
        raise CodecError(f"shape {array.shape}, expected [H, W] or [H, W, 1 to 4], none of them 0")
    array = array[..., 0] if array.shape[2:] == (1,) else array
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def check_coded_size(image: Image.Image, data: bytes) -> None:
    """Raise CodecError where an AVIF frame or a TIFF tile, which are decoded whole, exceeds the size of the image.

    The decoders of WebP, JPEG 2000, JPEG and PNG compare sizes before they allocate memory.
    """
    if image.format == "AVIF" and data:
        check_avif(data, *image.size)
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(TILE_WIDTH, 1) * tags.get(TILE_LENGTH, 1)
    if tile > max(image.width * image.height, MAX_TILE):
        raise CodecError(f"a tile of {tile} pixels in an image of {image.width} x {image.height}")


def _convert(
    image: Image.Image, data: bytes, notes: list[str], frame: int | None = None
) -> tuple[np.ndarray, dict[str, bytes]]:
    """(samples, metadata) of an open image and its file; `notes` receives messages on what is left out."""
    if image.format in VECTOR_FORMATS:
        raise CodecError(f"{image.format} is vector graphics; render it to pixels first, as a PNG")
    bits, raw = bit_depth(image, data), raw_mode(image)
    if frame is None and getattr(image, "is_animated", False):
        notes.append("more than one frame; only the first is kept")
    elif frame is None and image.format == "PNG" and has_png_frames(io.BytesIO(data)):
        notes.append("its animation is damaged; only the default image is kept")
    deep_samples = _reread_16_bit(image, data, frame or 1) if bits == 16 else None
    if bits > 8 and deep_samples is None:
        raise CodecError("more than 8 bits a sample that cannot be read whole; save it as a 16-bit PNG")
    if deep_samples is None and image.mode not in (*GREY_MODES, *COLOUR_MODES):
        raise CodecError(f"colour mode {image.mode}; convert it to 8-bit RGB first")
    orientation_in_tiff = getattr(image, "tag_v2", {}).get(ORIENTATION, 1)  # Pillow applies it as it loads
    image.load()
    upright, orientation, exif = _apply_orientation(image, notes)
    # Pillow writes the EXIF of TIFFs and of turned images anew, and skips values outside the file.
    tiff = data if image.format == "TIFF" else image.info.get("exif") if orientation != 1 else b""
    if isinstance(tiff, bytes) and tiff and not tiff_directories_fit(io.BytesIO(tiff.removeprefix(EXIF_PREFIX))):
        notes.append("some of its EXIF data is damaged and left out")
    if deep_samples is None:
        samples, icc = _convert_8_bit(upright, raw, notes)
    else:
        rows, columns = -1 if orientation in (3, 4, 7, 8) else 1, -1 if orientation in (2, 3, 6, 7) else 1
        deep_samples = deep_samples.swapaxes(0, 1) if orientation > 4 else deep_samples
        samples = key_to_alpha(deep_samples[::rows, ::columns], image.info.get("transparency"))
        icc = image.info.get("icc_profile")
    sides_swapped = max(orientation_in_tiff, orientation) > 4
    return np.ascontiguousarray(samples), _collect_metadata(upright, icc, exif, sides_swapped, notes)


def _convert_8_bit(image: Image.Image, raw: str, notes: list[str]) -> tuple[np.ndarray, bytes | None]:
    """(u8 samples, their ICC profile or None for sRGB) of a loaded image whose file had `raw` samples."""
    key, is_grey = image.info.get("transparency"), image.mode in GREY_MODES
    if image.mode == "P":  # GIF, for one, has grey images only as palettes
        palette = np.reshape(image.getpalette("RGB") or [], (-1, 3))
        is_grey = len(palette) > 0 and bool((palette == palette[:, :1]).all())
    if image.mode in ALPHA_MODES or (image.mode == "P" and key is not None):
        straight = image.convert("LA") if image.mode == "La" else image  # Pillow converts La to LA only
        samples = to_array(straight, lambda strip: np.asarray(strip.convert("RGBA"))[..., 2 * is_grey :])
        if image.mode == "P" and samples[..., -1].min() == 255:  # no pixel has a transparent colour
            samples = samples[..., :-1]
        samples = samples[..., 0] if samples.shape[2] == 1 else samples
    elif is_grey:
        if isinstance(key, int):
            key *= {"L;2": 85, "L;4": 17}.get(raw, 1)  # Pillow scales these samples to 8 bits, but not the key
        samples = key_to_alpha(to_array(image, lambda strip: np.asarray(strip.convert("L"))), key)
    else:
        rgb = _apply_profile(image)
        samples = key_to_alpha(to_array(rgb or image, lambda strip: np.asarray(strip.convert("RGB"))), key)
        return samples, None if rgb else _rgb_profile_in(image, notes)
    return samples, _profile_in(image, (b"GRAY", b"RGB ") if is_grey else (b"RGB ",), notes)


def _profile_in(image: Image.Image, spaces: tuple[bytes, ...], notes: list[str]) -> bytes | None:
    """The image's ICC profile if it is of one of the colour spaces (ICC.1:2022, 7.2.6)."""
    icc = image.info.get("icc_profile")
    if icc and icc[16:20] not in spaces:
        notes.append("its colour profile cannot be applied and is left out")
        return None
    return icc or None


def convert_to_rgb(image: Image.Image, notes: list[str]) -> tuple[Image.Image, bytes | None]:
    """(RGB image, its ICC profile or None for sRGB); profiles of CMYK and grey images are applied."""
    rgb = _apply_profile(image)
    return (rgb, None) if rgb else (image.convert("RGB"), _rgb_profile_in(image, notes))


def _apply_profile(image: Image.Image) -> Image.Image | None:
    """Convert a CMYK or grey image to RGB with its ICC profile; None if it has none that can be applied."""
    from PIL import ImageCms

    icc = image.info.get("icc_profile")
    if not icc or icc[16:20] != {"CMYK": b"CMYK", "L": b"GRAY"}.get(image.mode):
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, ImportError, OSError):
        return None


def _rgb_profile_in(image: Image.Image, notes: list[str]) -> bytes | None:
    """The profile of an image that was converted to RGB without it; one of CMYK fits no more."""
    return _profile_in(image, (b"RGB ",) if image.mode != "CMYK" else (), notes)


def _reread_16_bit(image: Image.Image, data: bytes, frame: int) -> np.ndarray | None:
    """Call read_16_bit on the image's file, opened anew."""
    from PIL import Image

    file = getattr(image, "fp", None)
    if not data and file is not None:  # the caller's image, which must stay as it is
        position = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(position)
    if not data:
        return read_16_bit(image, image)  # type: ignore[arg-type]
    with Image.open(io.BytesIO(data)) as high, Image.open(io.BytesIO(data)) as low:
        high.seek(frame - 1)
        low.seek(frame - 1)
        return read_16_bit(high, low)


def _apply_orientation(image: Image.Image, notes: list[str]) -> tuple[Image.Image, int, bytes | None]:
    """(image turned as its EXIF says, orientation, 1 for TIFFs as Pillow has turned them, EXIF without it)."""
    from PIL import Image, ImageOps

    try:
        tags = image.getexif()
        orientation = tags.get(ORIENTATION, 1)
        upright = ImageOps.exif_transpose(image) if orientation in range(2, 9) else image  # it would copy the pixels
        exif = upright.info.get("exif")
        if exif is None and "Raw profile type exif" in upright.info:  # PNGs of before 2017
            exif = upright.getexif().tobytes()
        elif exif is None and hasattr(image, "tag_v2"):
            descriptive = Image.Exif()
            for tag in DESCRIPTIVE_TAGS:
                if tag in tags:
                    descriptive[tag] = tags.get_ifd(tag) if tag in SUB_DIRECTORIES else tags[tag]
            exif = descriptive.tobytes() if len(descriptive) else None
        return upright, orientation if orientation in range(1, 9) else 1, exif and exif.removeprefix(EXIF_PREFIX)
    except Exception:  # Pillow parses EXIF without checks: any error means damage
        notes.append("its EXIF data is damaged and left out")
        return image, 1, None


def _collect_metadata(
    image: Image.Image, icc: bytes | None, exif: bytes | None, sides_swapped: bool, notes: list[str]
) -> dict[str, bytes]:
    """The metadata that an image has; `sides_swapped` if orientation swapped its width and height."""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    metadata = {"icc": icc, "exif": exif, "xmp": xmp.encode() if isinstance(xmp, str) else xmp}
    try:
        x, y = (round(float(value) / INCH) for value in image.info["dpi"])
        metadata["dpi"] = RESOLUTION.pack(*((y, x) if sides_swapped else (x, y))) if min(x, y) > 0 else None
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError, struct.error):
        pass  # no resolution, or one that makes no sense
    gamma = image.info.get("gamma")
    if gamma and not icc and "srgb" not in image.info and abs(gamma - SRGB_GAMMA) > 0.005:
        notes.append(f"its gamma of {gamma:g} is left out")
    return {key: value for key, value in metadata.items() if isinstance(value, bytes) and value}


def read_weights(source: ImageLike, shape: tuple[int, int]) -> np.ndarray:
    """Weights f32[H, W], 0..1, of an image of (H, W) pixels.

    Args:
        source: an array [H, W] of floats 0..1, or a grey image as read_image takes it, where white is 1.
        shape: (H, W).

    Raises:
        OSError: the source cannot be read.
        TypeError: it is neither an array nor what read_image takes.
        ValueError: it is no image, or has another size, or colours, or a number beyond 0..1.
    """
    if isinstance(source, np.ndarray) and source.dtype.kind in "fb":
        weights = source.astype(np.float32)
    else:
        try:
            samples, _ = read_image(source)
        except CodecError as exc:
            raise ValueError(f"roi is no image: {exc}") from exc
        except TypeError as exc:
            raise TypeError(f"roi{str(exc).removeprefix('image')}") from exc
        if samples.ndim == 3 and samples.shape[2] >= 3 and (samples[..., :3] == samples[..., :1]).all():
            samples = samples[..., 0]
        if samples.ndim != 2:
            raise ValueError("roi is not a grey image")
        weights = samples.astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)
    if weights.shape != shape:
        raise ValueError(f"roi is {list(weights.shape)}, expected {list(shape)}: the image's rows and columns")
    if not ((weights >= 0) & (weights <= 1)).all():
        raise ValueError("roi has numbers beyond 0..1")
    return weights
