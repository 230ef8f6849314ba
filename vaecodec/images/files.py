"""Image files <-> samples, u8 or u16 [H, W] or [H, W, 2, 3 or 4], and the metadata that goes with them.

    file -> Pillow -> upright -> grey or RGB, with or without alpha -> (samples, {"icc": ..., "exif": ..., ...})

Palettes and CMYK become RGB, 1 bit becomes grey of 8.  What there are no samples for (floats, Lab, drawings, more
than 8 bits where Pillow shows 8) is refused here, never cut in silence.
Pillow is imported where it is used: naming a file's format must not load it.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vaecodec.container.picture import SUFFIX
from vaecodec.errors import CodecError, LimitError
from vaecodec.images import avif, deep, metadata, planes, png
from vaecodec.notices import collected

if TYPE_CHECKING:
    from PIL import Image

GREY_MODES = ("1", "L", "LA", "La")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
LARGEST_TILE = 1 << 22  # pixels of a tile of a smaller image
DRAWINGS = ("EPS", "WMF")  # rendering these runs other programs on what may be a hostile file

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

UPRIGHT: dict[int, Any] = {  # by EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def read_image(
    source: str | os.PathLike[str] | bytes | np.ndarray | Image.Image,
    name: str | None = None,
    left_out: list[str] | None = None,
) -> tuple[np.ndarray, dict[str, bytes]]:
    """(samples, metadata) of a path, of an encoded image in bytes, of an array or of a Pillow image.

    Samples are u8 or u16: [H, W] grey, [H, W, 2] grey + alpha, [H, W, 3] RGB, [H, W, 4] RGBA, alpha straight.
    Metadata has those of "icc", "exif" (from its TIFF header on), "xmp" and "dpi" that there are.  EXIF orientation
    is applied and its tag dropped.  A CMYK profile is applied and dropped: the pixels are then sRGB.
    `name` is what errors call a source that is not a path.  Messages on what is left out are appended to `left_out`, or
    are issued as warnings without it.  Raises CodecError on anything that is not a whole image
    of at most 16 bits a sample, LimitError beyond Pillow's limit on pixels.
    """
    from PIL import Image

    if isinstance(source, (str, os.PathLike)):
        name = name or os.fspath(source)
    elif not isinstance(source, (bytes, np.ndarray, Image.Image)):
        raise TypeError(f"an image is a path, bytes, an array or a Pillow image, not {type(source).__name__}")
    name = name or "image"
    if isinstance(source, np.ndarray):
        return _array_samples(source, name), {}
    with collected(left_out) as messages:
        return _read(source, name, messages)


def _read(
    source: str | os.PathLike[str] | bytes | Image.Image, name: str, left_out: list[str]
) -> tuple[np.ndarray, dict[str, bytes]]:
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(source, Image.Image):
            return _convert(source, b"", name, left_out)
        if not isinstance(source, bytes):
            with open(source, "rb") as file:
                source = file.read()
        with Image.open(io.BytesIO(source)) as image:
            if image.format == "PNG":
                with Image.open(io.BytesIO(source)) as again:
                    again.verify()  # the CRCs of pixel data, which loading does not check
            try:
                check_coded_size(image, source)
            except CodecError as exc:
                raise CodecError(f"{name}: {exc}") from exc
            return _convert(image, source, name, left_out)
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


def read_rgb(source: str | os.PathLike[str] | bytes, name: str | None = None) -> np.ndarray:
    """u8[H, W, 3] of an opaque image of 8 bits, grey in all three channels; raises CodecError on others."""
    name = name or ("image" if isinstance(source, bytes) else os.fspath(source))
    samples, _ = read_image(source, name)
    if samples.dtype != np.uint8:
        raise CodecError(f"{name}: more than 8 bits a sample; convert it to 8 bits first")
    rgb, alpha = planes.split(samples)
    if alpha is not None and alpha.min() < 255:
        raise CodecError(f"{name}: has transparent pixels; flatten it onto a background first")
    return rgb


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
    with collected(left_out) as messages:
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
        options = {**SAVE_OPTIONS.get(format, {}), **metadata.save_options(format, kept, name, left_out)}
        if samples.dtype == np.uint16 and format == "PNG":
            data = deep.png(samples, options)
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
    alpha = planes.alpha_of(samples)
    if alpha is not None and format not in WITH_ALPHA:
        if alpha.min() < np.iinfo(samples.dtype).max:
            raise CodecError(f"{name}: {format} cannot hold transparency; write a PNG and flatten that")
        samples = samples[..., 0] if planes.channels_of(samples) == 2 else np.ascontiguousarray(samples[..., :3])
    if samples.dtype == np.uint16 and format != "PNG" and (samples.ndim > 2 or format not in DEEP):
        raise CodecError(f"{name}: {format} cannot hold 16 bits a sample; write a PNG")
    return samples


def _array_samples(array: np.ndarray, name: str) -> np.ndarray:
    """An array as samples; [H, W, 1] is [H, W]."""
    if array.dtype not in (np.uint8, np.uint16):
        raise CodecError(f"{name}: pixels are {array.dtype}, expected uint8 in [0, 255] or uint16 in [0, 65535]")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)) or not array.size:
        raise CodecError(f"{name}: shape {array.shape}, expected [H, W] or [H, W, 1 to 4], none of them 0")
    array = array[..., 0] if array.shape[2:] == (1,) else array
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def check_coded_size(image: Image.Image, data: bytes) -> None:
    """Raise CodecError where a frame or a tile, which is decoded as a whole, is larger than the image says.

    The decoders of WebP, JPEG 2000, JPEG and PNG compare sizes before they allocate memory.
    """
    if image.format == "AVIF" and data:
        avif.check_image(data, *image.size)
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(TILE_WIDTH, 1) * tags.get(TILE_LENGTH, 1)
    if tile > max(image.width * image.height, LARGEST_TILE):
        raise CodecError(f"a tile of {tile} pixels in an image of {image.width} x {image.height}")


def _convert(image: Image.Image, data: bytes, name: str, left_out: list[str]) -> tuple[np.ndarray, dict[str, bytes]]:
    """(samples, metadata) of an open image and its file; raises CodecError on what does not fit, Pillow's on damage."""
    if image.format in DRAWINGS:
        raise CodecError(f"{name}: {image.format} is a drawing; render it to pixels first, as a PNG")
    bits, raw = deep.bits_of(image, data), deep.raw_mode(image)
    if getattr(image, "is_animated", False):
        left_out.append(f"{name}: more than one frame; only the first is kept")
    elif image.format == "PNG" and png.has_frames(io.BytesIO(data)):
        left_out.append(f"{name}: its animation is damaged; only the default image is kept")
    samples = _deep_samples(image, data) if bits == 16 else None
    if bits > 8 and samples is None:
        raise CodecError(f"{name}: more than 8 bits a sample that cannot be read whole; save it as a 16-bit PNG")
    if samples is None and image.mode not in (*GREY_MODES, *COLOUR_MODES):
        raise CodecError(f"{name}: colour mode {image.mode}; convert it to 8-bit RGB first")
    by_loading = getattr(image, "tag_v2", {}).get(metadata.ORIENTATION, 1)
    image.load()
    turned, left, exif = metadata.upright(image, name, left_out)
    if _exif_is_cut(image, left != 1, data):
        left_out.append(f"{name}: some of its EXIF data is damaged and left out")
    if samples is None:
        samples, icc = _samples(turned, raw, name, left_out)
    else:
        samples, icc = _keyed(UPRIGHT[left](samples), image.info.get("transparency")), image.info.get("icc_profile")
    on_side = max(by_loading, left) > 4
    return np.ascontiguousarray(samples), metadata.collect(turned, icc, exif, on_side, name, left_out)


def _exif_is_cut(image: Image.Image, turned: bool, data: bytes) -> bool:
    """Whether Pillow, which writes the EXIF of TIFFs and of turned images anew, has skipped some of its values."""
    tiff = data if image.format == "TIFF" else image.info.get("exif") if turned else b""
    if not isinstance(tiff, bytes) or not tiff:
        return False
    return not metadata.directories_fit(io.BytesIO(tiff.removeprefix(metadata.EXIF_PREFIX)))


def _deep_samples(image: Image.Image, data: bytes) -> np.ndarray | None:
    """All 16 bits of an open image, not turned; None where Pillow cannot give them."""
    from PIL import Image

    file = getattr(image, "fp", None)
    if not data and file is not None:  # the caller's image, which is left as it is
        position = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(position)
    if not data:
        return deep.read(image, image)  # type: ignore[arg-type]
    with Image.open(io.BytesIO(data)) as one, Image.open(io.BytesIO(data)) as again:
        return deep.read(one, again)


def _samples(image: Image.Image, raw: str, name: str, left_out: list[str]) -> tuple[np.ndarray, bytes | None]:
    """(u8 samples, ICC profile that they are in, None for sRGB) of a loaded image, whose file had `raw` samples."""
    key, grey = image.info.get("transparency"), image.mode in GREY_MODES or _is_grey(image)
    if image.mode in ALPHA_MODES or (image.mode == "P" and key is not None):
        straight = image.convert("LA") if image.mode == "La" else image  # the only way that Pillow has
        samples = np.asarray(straight.convert("RGBA"))[..., 2 * grey :]
        if image.mode == "P" and samples[..., -1].min() == 255:  # no pixel has the colours that are transparent
            samples = samples[..., :-1]
        samples = samples[..., 0] if samples.shape[2] == 1 else samples
    elif grey:
        if isinstance(key, int):
            key *= {"L;2": 85, "L;4": 17}.get(raw, 1)  # Pillow spreads these samples over 8 bits, but not the key
        samples = _keyed(np.asarray(image.convert("L")), key)
    else:
        rgb, icc = _to_rgb(image, name, left_out)
        return _keyed(np.asarray(rgb), key), icc
    return samples, _fitting_profile(image, (b"GRAY", b"RGB ") if grey else (b"RGB ",), name, left_out)


def _is_grey(image: Image.Image) -> bool:
    """Whether a palette holds shades of grey alone: what there is in place of grey in a GIF."""
    if image.mode != "P":
        return False
    colours = np.reshape(image.getpalette("RGB") or [], (-1, 3))
    return len(colours) > 0 and (colours == colours[:, :1]).all()


def _keyed(samples: np.ndarray, key: Any) -> np.ndarray:
    """Opaque samples with an alpha of 0 where they are of the colour `key`, if there is one and any pixel has it."""
    if not isinstance(key, (int, tuple)):
        return samples
    colours = samples[..., None] if samples.ndim == 2 else samples
    seen = (colours != np.asarray(key, np.int64)).any(axis=-1)
    alpha = (seen * np.iinfo(samples.dtype).max).astype(samples.dtype)
    return samples if seen.all() else np.dstack([samples, alpha])


def _fitting_profile(image: Image.Image, spaces: tuple[bytes, ...], name: str, left_out: list[str]) -> bytes | None:
    """The image's ICC profile if it is of one of the colour spaces (ICC.1:2022, 7.2.6)."""
    icc = image.info.get("icc_profile")
    if icc and icc[16:20] not in spaces:
        left_out.append(f"{name}: its colour profile cannot be applied and is left out")
        return None
    return icc or None


def _to_rgb(image: Image.Image, name: str, left_out: list[str]) -> tuple[Image.Image, bytes | None]:
    """(RGB image, ICC profile that its values are in, None for sRGB); CMYK, and grey, through their profile."""
    from PIL import ImageCms

    icc = image.info.get("icc_profile")
    if icc and icc[16:20] == {"CMYK": b"CMYK", "L": b"GRAY"}.get(image.mode):
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            rgb = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, ImportError, OSError):
            rgb = None
        if rgb is not None:
            return rgb, None
    spaces = (b"RGB ",) if image.mode != "CMYK" else ()
    return image.convert("RGB"), _fitting_profile(image, spaces, name, left_out)
