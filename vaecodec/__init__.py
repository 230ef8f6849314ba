"""Learned image compression that decodes to the same pixels, bit for bit, on any machine.

    data = vaecodec.encode(image, quality=75)  # path, array u8[H, W, 3] (or grey, alpha, 16 bits), PIL image -> bytes
    image = vaecodec.decode(data)              # bytes or path -> array, as the image was

one image     encode, decode, open, info      sets of small images   encode_set, decode_set
many images   encode_batch, decode_batch      generative functions   sample, vary, interpolate, score
files         compress_file, decompress_file  numbers with a bound   vaecodec.arrays
one model     load                            Pillow                 register_pillow

Errors are CodecError and its subclasses; a missing file is FileNotFoundError, a wrong argument TypeError or ValueError.
Modules that take time to import are imported on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vaecodec import arguments
from vaecodec.arguments import DEFAULT_LIMITS, DEFAULT_MODEL, Limits, Readable, StrPath
from vaecodec.errors import CodecError, FormatError, LimitError, ModelError, TargetError
from vaecodec.errors import __version__ as __version__

if TYPE_CHECKING:
    import numpy as np

    from vaecodec import arrays as arrays
    from vaecodec.arguments import ImageLike
    from vaecodec.codec import Codec, OpenedImage
    from vaecodec.container.info import Info
    from vaecodec.files.compression import compress_file, decompress_file
    from vaecodec.generative import Score

__all__ = [
    "Codec", "CodecError", "FormatError", "Info", "LimitError", "Limits", "ModelError", "OpenedImage",
    "TargetError", "compress_file", "decode", "decode_batch", "decode_set", "decompress_file", "encode",
    "encode_batch", "encode_set", "info", "interpolate", "load", "open", "register_pillow", "sample", "score",
    "vary",
]  # fmt: skip

# Names that are imported on first use, and their modules.
_LAZY = {
    "Codec": "vaecodec.codec",
    "Info": "vaecodec.container.info",
    "OpenedImage": "vaecodec.codec",
    "compress_file": "vaecodec.files.compression",
    "decompress_file": "vaecodec.files.compression",
}
_LAZY_MODULES = ("arrays",)


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(f"vaecodec.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'vaecodec' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_LAZY_MODULES})


def encode(
    image: ImageLike,
    quality: float | None = None,
    *,
    model: StrPath = DEFAULT_MODEL,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    target_size: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    effort: int = 1,
    lossless: bool = False,
    max_error: int | None = None,
    roi: ImageLike | None = None,
    tune: str | None = None,
) -> bytes:
    """Encode an image to a .vae file.

    Args:
        image: an array, a PIL image, or an image file by path, as bytes or as a binary file.  Arrays are u8 or u16:
            [H, W] grey, [H, W, 2] grey and alpha, [H, W, 3] RGB, [H, W, 4] RGBA with straight alpha; [H, W, 1] comes
            back as [H, W].  Images that cost fewer bits losslessly (screenshots, drawings) are kept that way.  Of u16
            errors are relative to the bits that the largest sample needs.  A model of other channels takes u8[H, W, C].
        quality: 1..100; 75 without a target.  Give one of quality, targets, `lossless` and `max_error`.
        model: an installed model's name, or a .vcm file.
        limits: limits on the size of images read from files; None for none.
        threads: cores to use; without, all.  The bytes do not depend on it.
        target_size: bytes that the file may have at most, metadata included.
        target_bpp: the same in bits per pixel.
        target_psnr: the least PSNR in dB over all colour samples; of u16 the peak is that of the bits in use.
        effort: 1..9: more time, fewer bits at the same squared error.  With the two below decoding takes longer, too.
        lossless: keep every sample, without the model.
        max_error: 1..16, the largest error of a colour sample, in units of the samples; alpha is kept.
        roi: how much the squared error counts at each pixel: floats [H, W] of 0..1, or a grey image, where white is 1.
            `quality` holds where it is 1; elsewhere there are fewer bits.  Not with the two above.
        tune: "eye" lets errors be larger where they are seen less, "psnr" has the least squared error for the bits.
            By default "psnr" with `target_psnr`, else "eye".

    Raises:
        CodecError: the image cannot be encoded.
        FileNotFoundError: there is no such file.
        TargetError: no quality meets the target.
        ValueError, TypeError: an argument is wrong, or two exclude each other.
    """
    from vaecodec.arguments import NO_LIMITS, pillow_limits
    from vaecodec.codec import exact, modes
    from vaecodec.codec.mode_decision import Target
    from vaecodec.images.reading import read_image, read_samples, read_weights

    goal = Target.from_arguments(target_size, target_bpp, target_psnr, quality, lossless, max_error)
    effort, tune = arguments.check_effort(effort), arguments.check_tune(tune, target_psnr)
    arguments.check_limits(limits)
    if isinstance(goal, Target) and goal.is_bound:
        if roi is not None:
            raise ValueError("roi excludes lossless and max_error")
        arguments.check_model(model)
        with pillow_limits(limits or NO_LIMITS):
            samples, metadata = read_image(image)
        return exact.encode(samples, int(goal.value), metadata, arguments.check_threads(threads), effort=effort)
    codec = load(model, threads=threads)
    with pillow_limits(limits or NO_LIMITS):
        samples, metadata = read_samples(codec.model.config.channels, image)
        weights = None if roi is None else read_weights(roi, samples.shape[:2])
    return modes.encode(codec, samples, goal, metadata, effort=effort, weights=weights, tune=tune)


def decode(
    data: Readable,
    window: tuple[int, int, int, int] | None = None,
    reduce: int = 1,
    *,
    model: StrPath | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    check: bool = False,
) -> np.ndarray:
    """Decode a .vae file, or a window of it, to an array of the kind that was encoded.

    Args:
        data: the file: its path, its bytes or a binary file.
        window: (top, left, height, width) in pixels; only the tiles it needs are decoded.
        reduce: 1, 2, 4, 8 or 16: a preview at this fraction of the sides.
        model: a .vcm file or a name; without, the installed model that the file names.
        limits: limits on the size of images; None for none.
        threads: cores to use; without, all.
        check: compare the pixels of each whole tile with the checksum in the file.

    Raises:
        FormatError: the file is damaged.
        FileNotFoundError: there is no such file.
        ModelError: the model is not installed, or is not the one that the file was encoded with.
        LimitError: the image exceeds the limits.
        ValueError, TypeError: an argument is wrong, or the window lies outside the image.
    """
    from vaecodec.codec import modes

    options = arguments.check_decoding(window, reduce, model, limits, threads)
    check = arguments.check_flag("check", check)
    return modes.decode(arguments.to_bytes(data), *options, check=check)


def encode_batch(
    images: Sequence[ImageLike],
    quality: float | None = None,
    *,
    model: StrPath = DEFAULT_MODEL,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    effort: int = 1,
    lossless: bool = False,
    max_error: int | None = None,
    tune: str | None = None,
) -> list[bytes]:
    """Encode images of any sizes and kinds to a .vae file each, in order; arguments and errors as of `encode`.

    Tiles of all images share the threads where there are enough pixels in all to pay for it.
    """
    from vaecodec.arguments import NO_LIMITS, pillow_limits
    from vaecodec.codec import modes
    from vaecodec.images.reading import read_samples

    given, quality = quality, arguments.quality_or_default(quality)
    effort, tune = arguments.check_effort(effort), arguments.check_tune(tune)
    arguments.check_limits(limits)
    images = arguments.check_sequence("images", images, "images")
    if lossless is not False or max_error is not None:
        options: dict[str, Any] = {"model": model, "limits": limits, "threads": threads}
        options |= {"effort": effort, "tune": tune}
        return [encode(image, given, lossless=lossless, max_error=max_error, **options) for image in images]
    codec = load(model, threads=threads)
    with pillow_limits(limits or NO_LIMITS):
        pairs = [read_samples(codec.model.config.channels, image) for image in images]
    samples, metadata = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return modes.encode_batch(codec, samples, quality, metadata, effort=effort, tune=tune)


def decode_batch(
    files: Sequence[Readable],
    window: tuple[int, int, int, int] | None = None,
    reduce: int = 1,
    *,
    model: StrPath | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
) -> list[np.ndarray]:
    """Decode .vae files of any sizes, kinds and models, in order; arguments and errors as of `decode`.

    Error messages begin with the number of the file.
    """
    from vaecodec.codec import modes

    options = arguments.check_decoding(window, reduce, model, limits, threads)
    files = arguments.check_sequence("files", files, "files")
    contents = [arguments.to_bytes(data, f"file {n}") for n, data in enumerate(files)]
    return modes.decode_batch(contents, *options)


def open(
    source: Readable,
    *,
    model: StrPath | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
) -> OpenedImage:
    """Open the image in a .vae file: its header is read now, and pixels are decoded as they are asked for.

        image = vaecodec.open("photo.vae")
        image.size, image.info.quality, image.metadata  # no pixel is decoded
        image.preview(8)                                # an eighth of each side
        image.crop((0, 0, 256, 256))                    # top, left, height, width
        numpy.asarray(image)                            # all pixels

    Arguments and errors are those of `decode`.  Notebooks show the image as a preview.
    """
    from vaecodec.codec import OpenedImage

    _, _, model_name, limits, threads = arguments.check_decoding(None, 1, model, limits, threads)
    return OpenedImage(source, model_name, limits, threads)


def info(data: Readable) -> Info:
    """Describe a .vae file by its header, without its model: size in pixels, quality, model id, bits per pixel.

    `data` is the path of the file, its bytes or a binary file; the file is checked to be complete.  `kind` is
    "picture", "array" (an image with other channels than images have), "file" (a stored file: name, permissions, time,
    size) or "set" (of encode_set).

    Raises FormatError on damage, FileNotFoundError where there is no such file.
    """
    from vaecodec.container.info import info

    return info(data)


def load(name_or_path: StrPath = DEFAULT_MODEL, device: str = "cpu", threads: int | None = None) -> Codec:
    """Load the codec of an installed model, by name, or of a .vcm file, by path.

    Args:
        name_or_path: the model.
        device: "cpu", or "gpu" for transforms in TensorFlow (extra `train`) on a GPU; files and pixels are the same.
        threads: cores that one call may use; without, all.

    Raises:
        ModelError: there is no such model, or the file is damaged.
        FileNotFoundError: there is no such .vcm file.
        ValueError, TypeError: an argument is wrong.
    """
    from vaecodec import codec

    if not isinstance(device, str):
        arguments.wrong_type("device", device, "'cpu', 'gpu' or 'tensorflow'")
    return codec.load(arguments.check_model(name_or_path), device, arguments.check_threads(threads))


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

    images = arguments.check_array("images", images, "an array u8[N, S, S]")
    return image_sets.encode(images, arguments.check_model(model))


def decode_set(data: Readable, model: StrPath | None = None, *, limits: Limits | None = DEFAULT_LIMITS) -> np.ndarray:
    """Decode a .vae file of encode_set, by path, as bytes or as a binary file, to u8[N, S, S], bit for bit.

    Raises FormatError on damage, ModelError where its model is not installed, LimitError where its images together
    exceed the limits.
    """
    from vaecodec.generative import image_sets

    arguments.check_limits(limits)
    return image_sets.decode(arguments.to_bytes(data), arguments.check_optional_model(model), limits)


def sample(
    n: int,
    model: StrPath = "digits",
    seed: int = 0,
    size: tuple[int, int] = (256, 256),
    quality: float | None = None,
    noisy: bool = False,
) -> np.ndarray:
    """Sample images from a model's prior.

    Args:
        n: number of images.
        model: "digits" or another generative model; a model of photographs samples textures.
        seed: the same seed samples the same images.
        size: (H, W) of photographs.
        quality: 1..100, of photographs; 75 without.
        noisy: draw the pixels of digits, too; without, each is the median of its distribution.

    Returns:
        u8[n, 28, 28] of digits, u8[n, H, W, 3] of photographs.

    Raises:
        ModelError: there is no such model.
        CodecError: an argument does not go with the model.
        ValueError, TypeError: an argument is wrong.
    """
    from vaecodec import generative

    n, seed = arguments.check_integer("n", n), arguments.check_integer("seed", seed, 0)
    height, width = arguments.check_numbers("size", size, ("height", "width"), (1, 1))
    quality, noisy = arguments.quality_or_default(quality), arguments.check_flag("noisy", noisy)
    return generative.sample(n, arguments.check_model(model), seed, (height, width), quality, noisy)


def vary(
    image: ImageLike,
    strength: float,
    n: int = 1,
    model: StrPath | None = None,
    seed: int = 0,
    quality: float | None = None,
) -> np.ndarray:
    """Vary an image (array, PIL image or image file) in the latent space; returns and raises as `sample` does.

    `strength` 0 reconstructs the image and 1 forgets it: for digits it is the share of noise in the latent, for
    photographs the part of the latents that are sampled again.  Without `model` it is "digits" for grey images of
    28 x 28 pixels and "small" for others.
    """
    from vaecodec import generative

    strength, n = arguments.check_number("strength", strength, 0, 1), arguments.check_integer("n", n)
    seed, quality = arguments.check_integer("seed", seed, 0), arguments.quality_or_default(quality)
    return generative.vary(image, strength, n, arguments.check_optional_model(model), seed, quality)


def interpolate(
    a: ImageLike, b: ImageLike, n: int, model: StrPath | None = None, quality: float | None = None
) -> np.ndarray:
    """Interpolate between two images of one size in the latent space, in n images; returns as `sample` does.

    The model is chosen as for `vary`.  Raises CodecError on images that the model does not take, or of two sizes.
    """
    from vaecodec import generative

    n, quality = arguments.check_integer("n", n, 2), arguments.quality_or_default(quality)
    return generative.interpolate(a, b, n, arguments.check_optional_model(model), quality)


def score(image: ImageLike, model: StrPath | None = None) -> Score:
    """Score how unusual an image is for a model: its negative ELBO in bits per dimension, and percentiles.

    Percentiles are among training images.  `corrected` subtracts the bits per dimension of a PNG file (Serra et al.
    2020, Input complexity and out-of-distribution detection with likelihood-based generative models).  The model is
    chosen as for `vary`; "digits" takes u8[28, 28], "small" any photograph.  Raises CodecError on others.
    """
    from vaecodec import generative

    return generative.score(image, arguments.check_optional_model(model))
