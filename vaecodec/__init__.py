"""vaecodec: learned image compression that decodes bit for bit on any machine.

    data  = vaecodec.encode(image, quality=50)     # u8[H, W, 3] array (or grey, alpha, 16 bits), PIL image -> bytes
    image = vaecodec.decode(data)                  # bytes -> u8[H, W, 3], or what the picture was

Heavy things load on first use.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vaecodec.errors import CodecError, FormatError, LimitError, ModelError
from vaecodec.limits import DEFAULT as DEFAULT_LIMITS
from vaecodec.limits import Limits

if TYPE_CHECKING:
    import numpy as np

    from vaecodec.codec import Codec

__version__ = "0.1.0"
__all__ = [
    "CodecError",
    "FormatError",
    "LimitError",
    "Limits",
    "ModelError",
    "compress_file",
    "decode",
    "decode_batch",
    "decompress_file",
    "encode",
    "encode_batch",
    "info",
    "load",
    "register_pillow",
]


def encode(
    image: Any,
    quality: float = 50,
    model: str = "small",
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
) -> bytes:
    """Array, PIL image or path -> a .vae file, bytes; quality in 1..100.

    Arrays are u8 or u16: [H, W] grey, [H, W, 2] grey + alpha, [H, W, 3] RGB, [H, W, 4] RGBA, alpha straight.  16 bits
    are kept without loss, and so is what costs less that way (screenshots, drawings).  `model` is a shipped one or a
    .vcm file; `limits` are those on what a path names, None for none; `threads` the cores to use, which the bytes do
    not depend on.  Raises CodecError on a picture it cannot take, ValueError on a quality outside its range.
    """
    from vaecodec import modes
    from vaecodec.images import read_image
    from vaecodec.limits import NONE, for_pillow

    with for_pillow(limits or NONE):
        samples, metadata = read_image(image)
    return modes.encode(load(model, threads=threads), samples, quality, metadata)


def decode(
    data: bytes,
    window: tuple[int, int, int, int] | None = None,
    reduce: int = 1,
    model: str | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
) -> np.ndarray:
    """A .vae file's bytes -> the picture, an array as encode takes them, or its (top, left, height, width) window.

    `reduce` is 1, 2, 4, 8 or 16: a preview at that fraction of the sides.  Raises FormatError on damage, ModelError
    where neither `model` nor a shipped one made it, LimitError on a picture beyond `limits` (None: there are none).
    """
    from vaecodec import modes

    return modes.decode(data, window, reduce, model, limits, threads)


def encode_batch(
    images: Sequence[Any],
    quality: float = 50,
    model: str = "small",
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
) -> list[bytes]:
    """Arrays, PIL images or paths, of any sizes and kinds -> a .vae file each, bytes, in order; as encode makes them.

    One set of worker processes serves them all, where there are enough pixels in all to pay for it.  Raises as encode
    does.
    """
    from vaecodec import modes
    from vaecodec.images import read_image
    from vaecodec.limits import NONE, for_pillow

    with for_pillow(limits or NONE):
        read = [read_image(image) for image in images]
    samples, metadata = [one for one, _ in read], [kinds for _, kinds in read]
    return modes.encode_batch(load(model, threads=threads), samples, quality, metadata)


def decode_batch(
    files: Sequence[bytes],
    window: tuple[int, int, int, int] | None = None,
    reduce: int = 1,
    model: str | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
) -> list[np.ndarray]:
    """The bytes of .vae files, of any sizes, kinds and models -> the pictures, in order; as decode gives them.

    `window` and `reduce` are for all.  Raises as decode does; the message begins with the number of the file.
    """
    from vaecodec import modes

    return modes.decode_batch(files, window, reduce, model, limits, threads)


def info(data: bytes) -> dict[str, Any]:
    """What a .vae file says of itself: size in pixels, quality, model id, bpp; raises FormatError.

    Or of the file stored in it: name, permissions, time, size; `kind` is "picture" or "file".  Reads the header and
    checks the file is whole; loads no model, no LiteRT and no TensorFlow.
    """
    from vaecodec import container, stored

    return stored.info(io.BytesIO(data)) if stored.is_stored(data[:16]) else container.info(data)


def load(name_or_path: str = "small", device: str = "cpu", threads: int | None = None) -> Codec:
    """The codec of a shipped model, by name, or of any .vcm file, by path; raises ModelError.

    `device` is "cpu", or "gpu" for transforms in TensorFlow (extra `train`) on a GPU: the files are the same.
    `threads` are the cores that one call may use: all of them where not given.
    """
    from vaecodec.codec import cached_codec
    from vaecodec.weights import load_model

    return cached_codec(load_model(name_or_path), device, threads)


def compress_file(source: str, target: str, quality: float = 50, **options: Any) -> dict[str, Any]:
    """Any file -> .vae file, a picture lossily; returns bytes, bpp and seconds.  See files.compress_file."""
    from vaecodec import files

    return files.compress_file(source, target, quality, **options)


def decompress_file(source: str, target: str, **options: Any) -> dict[str, Any]:
    """The .vae file -> picture file, in the format of its suffix, or stored file.  See files.decompress_file."""
    from vaecodec import files

    return files.decompress_file(source, target, **options)


def register_pillow() -> None:
    """Makes .vae a format of Pillow's, for Image.open and Image.save; the same as `import vaecodec.pillow`."""
    import vaecodec.pillow  # noqa: F401
