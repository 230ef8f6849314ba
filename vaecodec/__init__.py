"""vaecodec: learned image compression that decodes bit for bit on any machine.

    data  = vaecodec.encode(image, quality=50)     # u8[H, W, 3] array (or grey, alpha, 16 bits), PIL image -> bytes
    image = vaecodec.decode(data)                  # bytes -> u8[H, W, 3], or what the picture was

Heavy things load on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vaecodec.errors import CodecError, FormatError, LimitError, ModelError, TargetError
from vaecodec.limits import DEFAULT as DEFAULT_LIMITS
from vaecodec.limits import Limits
from vaecodec.version import __version__ as __version__

if TYPE_CHECKING:
    import numpy as np

    from vaecodec.codec.codec import Codec
    from vaecodec.generative.scoring import Score

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


def encode(
    image: Any,
    quality: float = 50,
    model: str = "small",
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    target_size: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    effort: int = 1,
) -> bytes:
    """Array, PIL image or path -> a .vae file, bytes; quality in 1..100, or one target in its place.

    Arrays are u8 or u16: [H, W] grey, [H, W, 2] grey + alpha, [H, W, 3] RGB, [H, W, 4] RGBA, alpha straight.  16 bits
    are kept without loss, and so is what costs less that way (screenshots, drawings).  `model` is a shipped one or a
    .vcm file; `limits` are those on what a path names, None for none; `threads` the cores to use, which the bytes do
    not depend on.  `target_size` is the most bytes that the file may have, metadata included, `target_bpp` the same
    in bits a pixel, `target_psnr` the least PSNR in dB over all colour samples.  `effort`, 1..9, spends more time for
    fewer bits at the same quality.  Raises CodecError on a picture it cannot take, TargetError on a target out of
    reach, ValueError on a value outside its range or two targets.  A model of other channels takes u8[H, W, C] alone.
    """
    from vaecodec.codec import modes
    from vaecodec.codec.rate_control import Target
    from vaecodec.images.reading import read_samples
    from vaecodec.limits import NONE, for_pillow

    wanted = Target.from_arguments(target_size, target_bpp, target_psnr, quality)
    codec = load(model, threads=threads)
    with for_pillow(limits or NONE):
        samples, metadata = read_samples(codec.model.config.channels, image)
    return modes.encode(codec, samples, wanted, metadata, effort=effort)


def decode(
    data: bytes,
    window: tuple[int, int, int, int] | None = None,
    reduce: int = 1,
    model: str | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    check: bool = False,
) -> np.ndarray:
    """A .vae file's bytes -> the picture, an array as encode takes them, or its (top, left, height, width) window.

    `reduce` is 1, 2, 4, 8 or 16: a preview at that fraction of the sides.  With `check` the pixels of each whole tile
    are compared with the checksum in the file.  Raises FormatError on damage, ModelError where neither `model` nor a
    shipped one made it, LimitError on a picture beyond `limits` (None: there are none).
    """
    from vaecodec.codec import modes

    return modes.decode(data, window, reduce, model, limits, threads, check=check)


def encode_batch(
    images: Sequence[Any],
    quality: float = 50,
    model: str = "small",
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    effort: int = 1,
) -> list[bytes]:
    """Arrays, PIL images or paths, of any sizes and kinds -> a .vae file each, bytes, in order; as encode makes them.

    Tiles of all of them share the threads, where there are enough pixels in all to pay for it.  Raises as encode
    does.
    """
    from vaecodec.codec import modes
    from vaecodec.images.reading import read_samples
    from vaecodec.limits import NONE, for_pillow

    codec = load(model, threads=threads)
    with for_pillow(limits or NONE):
        read = [read_samples(codec.model.config.channels, image) for image in images]
    samples, metadata = [one for one, _ in read], [kinds for _, kinds in read]
    return modes.encode_batch(codec, samples, quality, metadata, effort=effort)


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
    from vaecodec.codec import modes

    return modes.decode_batch(files, window, reduce, model, limits, threads)


def info(data: bytes) -> dict[str, Any]:
    """What a .vae file says of itself: size in pixels, quality, model id, bpp; raises FormatError.

    Or of the file stored in it: name, permissions, time, size; or of the set of pictures in it (encode_set).  `kind` is
    "picture", "array" (channels that are no picture's), "file" or "set".  Reads the header and checks the file is
    whole; loads no model and no heavy library.
    """
    from vaecodec.generative.info import info

    return info(data)


def load(name_or_path: str = "small", device: str = "cpu", threads: int | None = None) -> Codec:
    """The codec of a shipped model, by name, or of any .vcm file, by path; raises ModelError.

    `device` is "cpu", or "gpu" for transforms in TensorFlow (extra `train`) on a GPU: the files are the same.
    `threads` are the cores that one call may use: all of them where not given.
    """
    from vaecodec.codec import codec

    return codec.load(name_or_path, device, threads)


def compress_file(source: str, target: str, quality: float = 50, **options: Any) -> dict[str, Any]:
    """Any file -> .vae file, a picture lossily; returns bytes, bpp and seconds.  See files.compress_file."""
    from vaecodec.files import compression

    return compression.compress_file(source, target, quality, **options)


def decompress_file(source: str, target: str, **options: Any) -> dict[str, Any]:
    """The .vae file -> picture file, in the format of its suffix, or stored file.  See files.decompress_file."""
    from vaecodec.files import compression

    return compression.decompress_file(source, target, **options)


def register_pillow() -> None:
    """Make .vae a format of Pillow's Image.open and Image.save, as `import vaecodec.integrations.pillow` does."""
    import vaecodec.integrations.pillow  # noqa: F401


def encode_set(pictures: np.ndarray, model: str = "digits") -> bytes:
    """u8[N, S, S], small grey pictures -> a .vae file of all of them, bytes, without loss, by bits-back coding.

    `model` is a generative one, by name or .vcm file; "digits" takes S = 28.  Raises CodecError on another shape or
    type.  Townsend, Bird and Barber 2019 (arXiv:1901.04866).
    """
    from vaecodec.generative import image_sets

    return image_sets.encode(pictures, model)


def decode_set(data: bytes, model: str | None = None, limits: Limits | None = DEFAULT_LIMITS) -> np.ndarray:
    """A .vae file of encode_set -> u8[N, S, S], bit for bit.

    Raises FormatError on damage, ModelError where its model is not at hand, LimitError beyond `limits` (pixels of all).
    """
    from vaecodec.generative import image_sets

    return image_sets.decode(data, model, limits)


def sample(
    n: int,
    model: str = "digits",
    seed: int = 0,
    size: tuple[int, int] = (256, 256),
    quality: float = 50,
    noisy: bool = False,
) -> np.ndarray:
    """n new pictures from a model's prior: u8[n, 28, 28] of "digits", u8[n, H, W, 3] of a model of photographs.

    A seed gives the same pictures again.  `size` (H, W) and `quality` are for photographs, of which textures are all to
    be had; `noisy` draws the pixels of digits, too, where else each is at its median.  Raises ModelError, CodecError.
    """
    from vaecodec.generative import generation

    return generation.sample(n, model, seed, size, quality, noisy)


def vary(
    image: Any, strength: float, n: int = 1, model: str = "digits", seed: int = 0, quality: float = 50
) -> np.ndarray:
    """n pictures near an array, PIL image or path: u8[n, 28, 28] or u8[n, H, W, 3], as `sample`.

    `strength` 0 is the picture as its latent has it, 1 forgets it: of digits the share of randomness in the latent, of
    photographs the part of all latents that is drawn anew.  Raises CodecError on a picture that it does not take.
    """
    from vaecodec.generative import generation

    return generation.vary(image, strength, n, model, seed, quality)


def interpolate(a: Any, b: Any, n: int, model: str = "digits", quality: float = 50) -> np.ndarray:
    """n pictures from a to b, through the latent: u8[n, 28, 28] or u8[n, H, W, 3], as `sample`.

    Raises CodecError on pictures that the model does not take, or of two sizes.
    """
    from vaecodec.generative import generation

    return generation.interpolate(a, b, n, model, quality)


def score(image: Any, model: str = "digits") -> Score:
    """How unusual a picture is to a model: bpd (negative ELBO, bits per dimension), and its percentile in training.

    And `corrected`, the same less the bits per dimension of a PNG file (Serra et al. 2020, arXiv:1909.11480), with its
    own percentile.  `model` "digits" takes u8[28, 28], "small" any photograph.  Raises CodecError on others.
    """
    from vaecodec.generative import scoring

    return scoring.score(image, model)
