"""Read image files into samples."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
from mmap import mmap
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vaecodec.config import IMAGE_CHANNELS
from vaecodec.errors import CodecError, LimitError
from vaecodec.images import avif
from vaecodec.images.channels import check_array, split_alpha
from vaecodec.images.metadata import EXIF_PREFIX, ORIENTATION, collect, directories_fit, upright
from vaecodec.progress import collect_messages

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

GREY_MODES = ("1", "L", "LA", "La")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
LARGEST_TILE = 1 << 22  # pixels of a tile of a smaller image
DRAWINGS = ("EPS", "WMF")  # rendering these runs other programs on what may be a hostile file
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
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY_16_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
# Formats that hold one picture (or frames of one) and say so in their first bytes.
DETECTED_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "PCX", "SGI", "QOI")
SUFFIXES = {".tga": "TGA"}  # what has no first bytes to tell it by
# TIFF 6.0, section 8, and Supplement 1; DNG 1.7, chapter 4
NEW_SUBFILE_TYPE, REDUCED = 254, 1
SUB_IFDS, DNG_VERSION = 330, 50706
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
CANON_RAW = b"CR"  # in bytes 8 and 9 of what is else a TIFF


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
    with collect_messages(left_out) as messages:
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
    rgb, alpha = split_alpha(samples)
    if alpha is not None and alpha.min() < 255:
        raise CodecError(f"{name}: has transparent pixels; flatten it onto a background first")
    return rgb


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
    bits, raw = bit_depth(image, data), raw_mode(image)
    if getattr(image, "is_animated", False):
        left_out.append(f"{name}: more than one frame; only the first is kept")
    elif image.format == "PNG" and has_frames(io.BytesIO(data)):
        left_out.append(f"{name}: its animation is damaged; only the default image is kept")
    samples = _deep_samples(image, data) if bits == 16 else None
    if bits > 8 and samples is None:
        raise CodecError(f"{name}: more than 8 bits a sample that cannot be read whole; save it as a 16-bit PNG")
    if samples is None and image.mode not in (*GREY_MODES, *COLOUR_MODES):
        raise CodecError(f"{name}: colour mode {image.mode}; convert it to 8-bit RGB first")
    by_loading = getattr(image, "tag_v2", {}).get(ORIENTATION, 1)
    image.load()
    turned, left, exif = upright(image, name, left_out)
    if _exif_is_cut(image, left != 1, data):
        left_out.append(f"{name}: some of its EXIF data is damaged and left out")
    if samples is None:
        samples, icc = _samples(turned, raw, name, left_out)
    else:
        samples, icc = _keyed(UPRIGHT[left](samples), image.info.get("transparency")), image.info.get("icc_profile")
    on_side = max(by_loading, left) > 4
    return np.ascontiguousarray(samples), collect(turned, icc, exif, on_side, name, left_out)


def _exif_is_cut(image: Image.Image, turned: bool, data: bytes) -> bool:
    """Whether Pillow, which writes the EXIF of TIFFs and of turned images anew, has skipped some of its values."""
    tiff = data if image.format == "TIFF" else image.info.get("exif") if turned else b""
    if not isinstance(tiff, bytes) or not tiff:
        return False
    return not directories_fit(io.BytesIO(tiff.removeprefix(EXIF_PREFIX)))


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
        return read_16_bit(image, image)  # type: ignore[arg-type]
    with Image.open(io.BytesIO(data)) as one, Image.open(io.BytesIO(data)) as again:
        return read_16_bit(one, again)


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


def has_frames(file: BinaryIO) -> bool:
    """Whether frames of an animation follow the default image: chunks fdAT (PNG 3rd edition, section 11.3.6.3)."""
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, tag = struct.unpack(">I4s", head)
        if tag in (b"fdAT", b"IEND"):
            return bool(tag == b"fdAT")
        file.seek(length + 4, 1)
    return False


def raw_mode(image: Image.Image) -> str:
    """How samples lie in the file, in Pillow's words ("L;4", "RGB;16B"); "" once loaded, or where it does not say."""
    for _, _, _, arguments in getattr(image, "tile", ()):
        for value in arguments if isinstance(arguments, tuple) else (arguments,):
            if isinstance(value, str):
                return value
    return ""


def bit_depth(image: Image.Image, data: bytes = b"") -> int:
    """Bits a sample in the file `data`: where more than 8, Pillow's own pixels may be less than that."""
    raw = raw_mode(image)
    if image.mode in GREY_16_MODES or (";16" in raw and not raw.startswith("BGR")):  # BGR;16 is 16 bits a pixel
        return 16
    if image.mode[0] in "IF":
        return 16 if image.format == "PPM" else 32
    if image.format == "PPM":  # decoders that scale have the maximum as their last argument
        maxima = [tile.args[-1] for tile in getattr(image, "tile", ()) if tile.codec_name.startswith("ppm")]
        return 16 if max(maxima, default=255) > 255 else 8
    if image.format == "AVIF":  # AV1 Codec ISO Media File Format Binding 1.2, 2.3.3
        at = data.find(b"av1C")
        flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
        return 12 if flags & 0x60 == 0x60 else 10 if flags & 0x40 else 8
    if image.format == "JPEG2000":  # ISO/IEC 15444-1, A.5.1
        at = data.find(b"\xff\x4f\xff\x51")
        return (data[at + 42] & 0x7F) + 1 if 0 <= at < len(data) - 42 else 8
    return 8


def read_16_bit(image: ImageFile, again: ImageFile) -> np.ndarray | None:
    """u16[H, W] or u16[H, W, 2, 3 or 4] of a file that was opened twice; None where Pillow cannot give 16 bits.

    Loads both; raises Pillow's errors on damage.
    """
    raw, maximum = raw_mode(image), 65535
    if image.mode in GREY_16_MODES or image.mode == "I":
        return np.asarray(image).astype(np.uint16)
    if raw == "LA;16B":  # a pixel has as many bits as one of RGBA, so that all come at once
        _set_raw_mode(image, "RGBA")
        wide = np.asarray(image).astype(np.uint16)
        return wide[..., 0::2] << 8 | wide[..., 1::2]
    if raw == "RGB" and image.tile[0].codec_name == "ppm":
        arguments = image.tile[0].args
        raw, maximum = "RGB;16B", int(arguments[1]) if isinstance(arguments, tuple) else maximum
        image.tile = again.tile = [image.tile[0]._replace(codec_name="raw", args=(raw, 0, 1))]
    if raw[:-1] not in ("RGB;16", "RGBA;16"):
        return None
    _set_raw_mode(again, raw[:-1] + OTHER_BYTE[raw[-1]])
    samples = np.asarray(image).astype(np.uint16) << 8
    samples |= np.asarray(again)
    if maximum != 65535:
        samples = ((samples.astype(np.uint32) * 65535 + maximum // 2) // maximum).astype(np.uint16)
    return samples


def _set_raw_mode(image: ImageFile, raw: str) -> None:
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
    ]


def is_image(file: BinaryIO, name: str = "") -> bool:
    """Whether a seekable binary file, from its start, is a picture that may be coded as one; reads only its head.

    Says nothing on whether it is a whole or an undamaged one.
    """
    from PIL import Image

    head = _head(file)
    suffix = SUFFIXES.get(os.path.splitext(name)[1].lower())
    for load in (Image.preinit, Image.init):  # the usual formats; all there are, which takes a while
        load()
        formats = [format for format in (*DETECTED_FORMATS, suffix) if format in Image.OPEN]
        try:
            with Image.open(file, formats=formats) as image:
                return image.format != "TIFF" or (head[8:10] != CANON_RAW and not _is_preview(image))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return True  # too large to be decoded, but a picture
        except Exception:  # on what is not theirs Pillow's readers raise nearly anything
            continue
        finally:
            file.seek(0)
    return False


def trailing_bytes(data: bytes | mmap) -> int:
    """How many bytes follow the end of a JPEG or PNG file, padding aside: phones append films to photographs."""
    end = len(data)
    if data[:2] == b"\xff\xd8":
        end = _jpeg_end(data)
    elif data[:4] == b"\x89PNG":
        end = _png_end(data)
    return len(data[end:].strip(b"\0\t\r\n "))


def _png_end(data: bytes | mmap) -> int:
    """Where IEND ends, or the end of the data where there is none (PNG 3rd edition, section 5)."""
    position, tag = 8, b""
    while tag != b"IEND" and position + 12 <= len(data):
        tag = data[position + 4 : position + 8]
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return position if tag == b"IEND" else len(data)


def _jpeg_end(data: bytes | mmap) -> int:
    """Where the end of image lies, or the end of the data where there is none (ITU-T T.81, B.1.1)."""
    position = 2
    while position + 2 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xD9:  # EOI
            return position + 2
        if marker == 0xFF:  # fill
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # those without a length
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # SOS: compressed data up to the next marker that is no restart
            following = NEXT_MARKER.search(data, position)
            position = following.start() if following else len(data)
    return len(data)


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(16)
    file.seek(0)
    return head


def _is_preview(image: Image.Image) -> bool:
    """Whether a TIFF's first picture stands for another one in the same file."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(NEW_SUBFILE_TYPE, 0) & REDUCED) or SUB_IFDS in tags or DNG_VERSION in tags


def read_samples(channels: int, image: Any) -> tuple[np.ndarray, dict[str, bytes]]:
    """(samples, metadata) of what a model of so many channels is to code; raises CodecError, or as check_array does."""
    if channels in IMAGE_CHANNELS:
        return read_image(image)
    check_array(channels, image)
    return image, {}
