"""Split off what the model does not code, and code it by lossless WebP or PNG, or RGB or grey AVIF, from Pillow.

samples --split--> colours u8[H, W, 1 or 3]  + grey, deep, ALPH
colours of a decoder --join--> samples

lossless    u32 CRC-32 of the samples, little-endian, row by row
            a WebP (RFC 9649), or for 16 bits, sides above 16383 and large graphics a PNG (ISO/IEC 15948)
            or the rest of a payload of vaecodec.lossless, which begins with that CRC, too
AVIF        the file alone
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

from vaecodec import lossless
from vaecodec.arguments import NO_LIMITS
from vaecodec.config import LAST_ANCHOR
from vaecodec.container import ALPHA, DEEP, GREY, FallbackHeader
from vaecodec.container.image_file import Contents, pack_fallback
from vaecodec.errors import CodecError, FormatError
from vaecodec.images import check_still_avif
from vaecodec.images.channels import alpha_channel, count_bits, count_channels, to_array
from vaecodec.images.colours import ColourRows, bit_depth, read_16_bit
from vaecodec.images.writing import encode_png16
from vaecodec.threads import ONE_THREAD, Threads

CRC = struct.Struct("<I")
WEBP_SIDE = 16383
# Its encoder takes 11 bytes a pixel of what hardly needs any bits, and up to 39 of others: larger images become PNG.
WEBP_PIXELS, WEBP_FLAT_PIXELS = 1 << 23, 1 << 24
FLAT_BITS = 1 / 64  # a pixel, as estimated
STRIP = 256  # rows converted at a time
MASK_SAMPLES = 20  # of a bit of a WebP, from which on a plane is a mask, which the adaptive coding does not shorten
AVIF_SIDE = 16384  # so that libavif's limit on pixels, the square of it, is kept too
AVIF_PIXELS = {1: 1 << 22, 3: 2_500_000}  # that are tried, by channels: its encoder takes 40 and 65 bytes a pixel
AVIF_THREADS = 2  # one thread and several give different bytes, which must not depend on the machine
AVIF_MAX = 98  # quality; 100 is another mode
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # of Pillow, by channels


def encode_lossless(samples: np.ndarray) -> bytes:
    """Encode u8 or u16 [H, W] or [H, W, 2, 3 or 4] (grey, grey + alpha, RGB, RGBA); inverse of decode_lossless."""
    from PIL import Image

    file = io.BytesIO()
    if samples.dtype == np.uint16:
        file.write(encode_png16(samples))
    elif not _suits_webp(samples):
        Image.fromarray(samples).save(file, "PNG", compress_level=9)
    else:
        # Without `exact`, colours under alpha 0 would change, and the CRC with them.
        Image.fromarray(samples).save(file, "WEBP", lossless=True, exact=True)
    return CRC.pack(_crc(samples)) + file.getvalue()


def _suits_webp(samples: np.ndarray) -> bool:
    """Whether a WebP can hold u8 samples, and its encoder needs little memory for them."""
    height, width = samples.shape[:2]
    if max(height, width) > WEBP_SIDE or height * width > WEBP_FLAT_PIXELS:
        return False
    if height * width <= WEBP_PIXELS:
        return True
    parts = (samples[top : top + STRIP] for top in range(0, height, STRIP))
    return 8 * sum(map(estimate_lossless_size, parts)) <= FLAT_BITS * height * width


def encode_plane(samples: np.ndarray, threads: Threads = ONE_THREAD) -> bytes:
    """Encode u8 or u16 [H, W] losslessly in the shorter of all ways; inverse of decode_lossless."""
    data = encode_lossless(samples)
    if len(data) * 8 * MASK_SAMPLES > samples.size and max(samples.shape) <= lossless.SIDE_MAX:
        bits = max(9, int(samples.max()).bit_length()) if samples.dtype == np.uint16 else 8
        data = min(data, lossless.encode(samples, 0, bits, threads), key=len)
    return data


def header(coding: str, samples: np.ndarray) -> FallbackHeader:
    """The header of samples in a coding, "lossless" or "avif"."""
    height, width = samples.shape[:2]
    return FallbackHeader(coding, height, width, count_channels(samples), 8 * samples.itemsize)


def pack_lossless(samples: np.ndarray, metadata: dict[str, bytes] | None = None) -> bytes:
    """Encode samples losslessly to a .vae file; colours must be 0 where alpha is 0."""
    return pack_fallback(header("lossless", samples), encode_lossless(samples), metadata)


def estimate_lossless_size(samples: np.ndarray) -> int:
    """Estimate the bytes of encode_lossless for u8 samples, in a tenth of its time."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(samples[:, :WEBP_SIDE]).save(file, "WEBP", lossless=True, method=0, quality=0)
    return len(file.getvalue())


def decode_lossless(data: bytes | memoryview, shape: tuple[int, int], channels: int, depth: int) -> np.ndarray:
    """Decode samples u8 or u16 [H, W] or [H, W, C] that encode_lossless wrote.

    Raises FormatError where they are damaged, or not of this shape, (height, width), and depth in bits.
    """
    if bytes(data[CRC.size : CRC.size + 1]) == bytes([lossless.TAG]):
        return _read_adaptive(data, shape, channels, depth)
    try:
        samples = _read(bytes(memoryview(data)[CRC.size :]), shape, channels, depth)
    except FormatError:
        raise
    except Exception as exc:  # Pillow's readers raise almost any exception on damaged files
        raise FormatError(f"the lossless part is damaged ({type(exc).__name__}: {exc})") from exc
    if samples.shape != (*shape, channels)[: 2 + (channels > 1)] or CRC.unpack_from(data)[0] != _crc(samples):
        raise FormatError("the lossless part is damaged (the CRC of its samples does not match)")
    return samples


def _read_adaptive(data: bytes | memoryview, shape: tuple[int, int], channels: int, depth: int) -> np.ndarray:
    about = lossless.read_header(data)
    is_deep = about.depth > 8
    if (about.height, about.width, about.channels) != (*shape, channels) or is_deep != (depth > 8) or about.max_error:
        raise FormatError("the lossless part is not of the size and depth that the header gives")
    return lossless.decode(data, limits=NO_LIMITS)


def _read(file: bytes, shape: tuple[int, int], channels: int, depth: int) -> np.ndarray:
    # Image.open would apply a limit of its own on pixels, and try other readers.
    from PIL.PngImagePlugin import PngImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    kind = PngImageFile if file.startswith(PNG_MAGIC) else WebPImageFile
    with kind(io.BytesIO(file)) as image, kind(io.BytesIO(file)) as again:
        if image.size != shape[::-1] or (bit_depth(image, file) == 16) != (depth == 16):
            raise FormatError("the lossless part is not of the size and depth that the header gives")
        if depth == 16:
            samples = read_16_bit(image, again)
            assert samples is not None
            return samples
        if kind is PngImageFile and image.mode == MODES[channels]:
            return to_array(image)
        if kind is PngImageFile or image.mode not in ("RGB", "RGBA"):
            raise FormatError(f"the lossless part has colour mode {image.mode}")
        kept: Any = {1: 0, 2: slice(None, None, 3), 3: slice(3), 4: slice(4)}[channels]
        return to_array(image, lambda strip: np.asarray(strip.convert("RGBA"))[..., kept])


def _crc(samples: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(samples, samples.dtype.newbyteorder("<")).data)


def has_avif() -> bool:
    """Whether this Pillow was built with AVIF."""
    from PIL import features

    return bool(features.check("avif"))


def supports_avif(shape: tuple[int, ...], channels: int) -> bool:
    """Whether encode_avif can encode an image of this (height, width), with little memory, for every decode_avif."""
    return max(shape) <= AVIF_SIDE and shape[0] * shape[1] <= AVIF_PIXELS[channels] and has_avif()


def avif_quality(quality_index: int) -> int:
    """The quality of AVIF, 0..100, with about the lowest cost at a quality index."""
    return min(round(10 + 75 * quality_index / LAST_ANCHOR), AVIF_MAX)


def encode_avif(samples: np.ndarray, quality: int) -> bytes:
    """Encode u8[H, W] or u8[H, W, 3] to an AVIF of 4:0:0 or 4:4:4; quality in 0..100."""
    from PIL import Image

    file = io.BytesIO()
    sampling = "4:0:0" if samples.ndim == 2 else "4:4:4"
    options = {"quality": quality, "subsampling": sampling, "speed": 6, "max_threads": AVIF_THREADS}
    Image.fromarray(samples).save(file, "AVIF", **options)
    return file.getvalue()


def decode_avif(data: bytes | memoryview, shape: tuple[int, int]) -> np.ndarray:
    """Decode an AVIF of this shape, (height, width), to u8[H, W, 3].

    Raises FormatError where it is damaged or has another size, CodecError where this Pillow has no AVIF.
    """
    if not has_avif():
        raise CodecError("this file holds an AVIF, and this installation of Pillow was built without it")
    from PIL.AvifImagePlugin import AvifImageFile

    check_still_avif(data, shape[1], shape[0])
    try:
        with AvifImageFile(io.BytesIO(data)) as image:
            if image.size != shape[::-1]:
                raise FormatError("the AVIF part is not of the size that the header gives")
            return to_array(image, lambda strip: np.asarray(strip.convert("RGB")))
    except FormatError:
        raise
    except Exception as exc:  # as above
        raise FormatError(f"the AVIF part is damaged ({type(exc).__name__}: {exc})") from exc


class Parts(NamedTuple):
    """What the model codes of samples, and what is beside it."""

    colours: ColourRows
    chunks: list[tuple[bytes, bytes]]


def split(samples: np.ndarray, channels: int) -> Parts:
    """Split u8 or u16 samples, whatever they have under alpha 0, for a model of 1 or 3 channels."""
    alpha, colours = alpha_channel(samples), ColourRows(samples, channels)
    chunks = [(GREY, b"")] if count_channels(samples) < 3 and channels == 3 else []
    if samples.dtype == np.uint16:
        chunks.append((DEEP, bytes([count_bits(samples)])))
    if alpha is not None:
        chunks.append((ALPHA, encode_plane(np.ascontiguousarray(alpha))))
    return Parts(colours, chunks)


def decode_alpha(data: bytes, contents: Contents) -> np.ndarray | None:
    """Decode the alpha [H, W] of a file, u8 or u16 as its colours, if it is in a chunk of its own."""
    if contents.alpha is None:
        return None
    head, depth = contents.header, 8 if contents.depth == 8 else 16
    return decode_lossless(contents.alpha.of(data), (head.height, head.width), 1, depth)


def check_samples(samples: np.ndarray) -> None:
    """Raise CodecError on what no image is encoded from."""
    if samples.dtype not in (np.uint8, np.uint16):
        raise CodecError(f"pixels are {samples.dtype}, expected uint8 in [0, 255] or uint16 in [0, 65535]")
    if samples.ndim not in (2, 3) or samples.shape[2:] not in ((), (2,), (3,), (4,)) or not samples.size:
        raise CodecError(f"shape {samples.shape}, expected [H, W], or [H, W, 2, 3 or 4], none of them 0")
