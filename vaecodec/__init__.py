"""Learned image compression that decodes to the same pixels, bit for bit, on any machine.

    data = vaecodec.encode(image, quality=50)  # u8[H, W, 3] array (or grey, alpha, 16 bits), PIL image or path -> bytes
    image = vaecodec.decode(data)              # bytes -> array, as the image was

Modules that take time to import are imported on first use.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vaecodec.errors import CodecError, FormatError, LimitError, ModelError, TargetError
from vaecodec.limits import DEFAULT as DEFAULT_LIMITS
from vaecodec.limits import Limits
from vaecodec.version import __version__ as __version__

if TYPE_CHECKING:
    import numpy as np

    from vaecodec.codec import Codec
    from vaecodec.generative.generation import Score

    StrPath = str | os.PathLike[str]
    Buffer = bytes | bytearray | memoryview

__all__ = [
    "CodecError",
    "FormatError",
    "LimitError",
    "Limits",
    "ModelError",
    "TargetError",
    "compress_file",
    "decode",
    "decode_batch",
    "decode_set",
    "decompress_file",
    "encode",
    "encode_batch",
    "encode_set",
    "info",
    "interpolate",
    "load",
    "register_pillow",
    "sample",
    "score",
    "vary",
]


def _to_bytes(data: Buffer) -> bytes:
    return data if isinstance(data, bytes) else memoryview(data).tobytes()


def _to_path(model: StrPath | None) -> str | None:
    return None if model is None else os.fspath(model)


def encode(
    image: Any,
    quality: float = 50,
    model: StrPath = "small",
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    target_size: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    effort: int = 1,
) -> bytes:
    """Encode an image to a .vae file.

    Args:
        image: an array, a PIL image or a path.  Arrays are u8 or u16: [H, W] grey, [H, W, 2] grey and alpha, [H, W, 3]
            RGB, [H, W, 4] RGBA with straight alpha.  16 bits are kept losslessly, and so are images that cost fewer
            bits that way (screenshots, drawings).  A model of other channels takes u8[H, W, C].
        quality: 1..100.
        model: an installed model's name, or a .vcm file.
        limits: limits on the size of images read from paths; None for none.
        threads: cores to use; without, all.  The bytes do not depend on it.
        target_size: in place of a quality, bytes that the file may have at most, metadata included.
        target_bpp: the same in bits per pixel.
        target_psnr: in place of a quality, the least PSNR in dB over all colour samples.
        effort: 1..9: more time, fewer bits at the same squared error.

    Raises:
        CodecError: the image cannot be encoded.
        TargetError: no quality meets the target.
        ValueError: an argument is out of range, or there are two targets.
    """
    from vaecodec.codec import modes
    from vaecodec.codec.rate_control import Target
    from vaecodec.images.reading import read_samples
    from vaecodec.limits import NONE, for_pillow

    goal = Target.from_arguments(target_size, target_bpp, target_psnr, quality)
    codec = load(model, threads=threads)
    with for_pillow(limits or NONE):
        samples, metadata = read_samples(codec.model.config.channels, image)
    return modes.encode(codec, samples, goal, metadata, effort=effort)


def decode(
    data: Buffer,
    window: tuple[int, int, int, int] | None = None,
    reduce: int = 1,
    model: StrPath | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    check: bool = False,
) -> np.ndarray:
    """Decode a .vae file, or a window of it, to an array of the kind that was encoded.

    Args:
        data: the file.
        window: (top, left, height, width) in pixels; only the tiles it needs are decoded.
        reduce: 1, 2, 4, 8 or 16: a preview at this fraction of the sides.
        model: a .vcm file or a name; without, the installed model that the file names.
        limits: limits on the size of images; None for none.
        threads: cores to use; without, all.
        check: compare the pixels of each whole tile with the checksum in the file.

    Raises:
        FormatError: the file is damaged.
        ModelError: the model is not installed, or is not the one that the file was encoded with.
        LimitError: the image exceeds the limits.
        ValueError: the window or the reduction is invalid.
    """
    from vaecodec.codec import modes

    return modes.decode(_to_bytes(data), window, reduce, _to_path(model), limits, threads, check=check)


def encode_batch(
    images: Sequence[Any],
    quality: float = 50,
    model: StrPath = "small",
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    effort: int = 1,
) -> list[bytes]:
    """Encode images of any sizes and kinds to a .vae file each, in order; arguments and errors as of `encode`.

    Tiles of all images share the threads where there are enough pixels in all to pay for it.
    """
    from vaecodec.codec import modes
    from vaecodec.images.reading import read_samples
    from vaecodec.limits import NONE, for_pillow

    codec = load(model, threads=threads)
    with for_pillow(limits or NONE):
        pairs = [read_samples(codec.model.config.channels, image) for image in images]
    samples, metadata = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return modes.encode_batch(codec, samples, quality, metadata, effort=effort)


def decode_batch(
    files: Sequence[Buffer],
    window: tuple[int, int, int, int] | None = None,
    reduce: int = 1,
    model: StrPath | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
) -> list[np.ndarray]:
    """Decode .vae files of any sizes, kinds and models, in order; arguments and errors as of `decode`.

    Error messages begin with the number of the file.
    """
    from vaecodec.codec import modes

    return modes.decode_batch(list(map(_to_bytes, files)), window, reduce, _to_path(model), limits, threads)


def info(data: Buffer) -> dict[str, Any]:
    """Describe a .vae file by its header, without its model: size in pixels, quality, model id, bits per pixel.

    `kind` is "picture", "array" (an image with other channels than images have), "file" (a stored file: name,
    permissions, time, size) or "set" (of encode_set).  The file is checked to be complete.  Raises FormatError.
    """
    from vaecodec.container.info import info

    return info(_to_bytes(data))


def load(name_or_path: StrPath = "small", device: str = "cpu", threads: int | None = None) -> Codec:
    """Load the codec of an installed model, by name, or of a .vcm file, by path.

    Args:
        name_or_path: the model.
        device: "cpu", or "gpu" for transforms in TensorFlow (extra `train`) on a GPU; files and pixels are the same.
        threads: cores that one call may use; without, all.

    Raises:
        ModelError: there is no such model, or the file is damaged.
    """
    from vaecodec import codec

    return codec.load(os.fspath(name_or_path), device, threads)


def compress_file(source: StrPath, target: StrPath | None, quality: float = 50, **options: Any) -> dict[str, Any]:
    """Compress any file to a .vae file, images lossily; see vaecodec.files.compression.compress_file.

    `target` None is a file beside `source`.  Returns a report with bytes, bits per pixel and seconds.
    """
    from vaecodec.files import compression

    return compression.compress_file(
        os.fspath(source), None if target is None else os.fspath(target), quality, **options
    )


def decompress_file(source: StrPath, target: StrPath | None, **options: Any) -> dict[str, Any]:
    """Decompress a .vae file to an image file, in the format of its suffix, or to the stored file.

    `target` None is a file beside `source`; see vaecodec.files.compression.decompress_file.
    """
    from vaecodec.files import compression

    return compression.decompress_file(os.fspath(source), None if target is None else os.fspath(target), **options)


def register_pillow() -> None:
    """Make .vae a format of Pillow's Image.open and Image.save, as `import vaecodec.integrations.pillow` does."""
    import vaecodec.integrations.pillow  # noqa: F401


def encode_set(images: np.ndarray, model: StrPath = "digits") -> bytes:
    """Encode a set of small grey images losslessly to one .vae file, by bits-back coding.

    Source: Townsend, Bird and Barber 2019, Practical lossless compression with latent variables using bits back coding.

    Args:
        images: u8[N, S, S]; the model "digits" has S = 28.
        model: a generative model's name or .vcm file.

    Raises:
        CodecError: the images have another shape or type.
        ModelError: there is no such model.
    """
    from vaecodec.generative import image_sets

    return image_sets.encode(images, os.fspath(model))


def decode_set(data: Buffer, model: StrPath | None = None, limits: Limits | None = DEFAULT_LIMITS) -> np.ndarray:
    """Decode a .vae file of encode_set to u8[N, S, S], bit for bit.

    Raises FormatError on damage, ModelError where its model is not installed, LimitError where its images together
    exceed the limits.
    """
    from vaecodec.generative import image_sets

    return image_sets.decode(_to_bytes(data), _to_path(model), limits)


def sample(
    n: int,
    model: StrPath = "digits",
    seed: int = 0,
    size: tuple[int, int] = (256, 256),
    quality: float = 50,
    noisy: bool = False,
) -> np.ndarray:
    """Sample images from a model's prior.

    Args:
        n: number of images.
        model: "digits" or another generative model; a model of photographs samples textures.
        seed: the same seed samples the same images.
        size: (H, W) of photographs.
        quality: 1..100, of photographs.
        noisy: draw the pixels of digits, too; without, each is the median of its distribution.

    Returns:
        u8[n, 28, 28] of digits, u8[n, H, W, 3] of photographs.

    Raises:
        ModelError: there is no such model.
        CodecError: an argument does not go with the model.
    """
    from vaecodec.generative import generation

    return generation.sample(n, os.fspath(model), seed, size, quality, noisy)


def vary(
    image: Any, strength: float, n: int = 1, model: StrPath = "digits", seed: int = 0, quality: float = 50
) -> np.ndarray:
    """Vary an image (array, PIL image or path) in the latent space; returns and raises as `sample` does.

    `strength` 0 reconstructs the image and 1 forgets it: for digits it is the share of noise in the latent, for
    photographs the part of the latents that are sampled again.
    """
    from vaecodec.generative import generation

    return generation.vary(image, strength, n, os.fspath(model), seed, quality)


def interpolate(a: Any, b: Any, n: int, model: StrPath = "digits", quality: float = 50) -> np.ndarray:
    """Interpolate between two images of one size in the latent space, in n images; returns as `sample` does.

    Raises CodecError on images that the model does not take, or of two sizes.
    """
    from vaecodec.generative import generation

    return generation.interpolate(a, b, n, os.fspath(model), quality)


def score(image: Any, model: StrPath = "digits") -> Score:
    """Score how unusual an image is for a model: its negative ELBO in bits per dimension, and percentiles.

    Percentiles are among training images.  `corrected` subtracts the bits per dimension of a PNG file (Serra et al.
    2020, Input complexity and out-of-distribution detection with likelihood-based generative models).  The model
    "digits" takes u8[28, 28], "small" any photograph; raises CodecError on others.
    """
    from vaecodec.generative import generation

    return generation.score(image, os.fspath(model))
