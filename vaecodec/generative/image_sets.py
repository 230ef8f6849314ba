"""Code sets of small grey images of one size losslessly, by bits-back coding; read them, and show them on a sheet.

    a batch   pop z under q(z | x)      the words already on the stack choose the latent; decoding restores them
              push x under p(x | z)
              push z under p(z)

An image costs -log2 p(x | z) - log2 p(z) + log2 q(z | x) bits, on average its negative ELBO (Hinton and van Camp 1993;
Townsend, Bird and Barber 2019, section 2).  The first batch is one image and each next one is twice as large, so the
words left by earlier batches suffice for later ones, and only the first batch consumes initial words.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
from PIL import Image

from vaecodec.arguments import DEFAULT_LIMITS, NO_LIMITS, Limits
from vaecodec.container.info import SetHeader, pack_set, parse_set
from vaecodec.entropy import coding
from vaecodec.errors import CodecError, FormatError, LimitError, ModelError
from vaecodec.model import generative
from vaecodec.model.file import find_generator, load_generator
from vaecodec.model.generative import ORDER, PHASES
from vaecodec.model.generative import Generator as Model

MAX_BATCH = 64  # images
SPARE = 8  # initial words below those that coding has touched, which a decoder puts on the stack to check the end
Chooser = Callable[[np.ndarray], np.ndarray]  # frequencies i64[n, K] -> symbols i32[n]


def code_pixels(model: Model, z: np.ndarray) -> Generator[np.ndarray, np.ndarray, np.ndarray]:
    """Yield the frequencies i64[n, K] of p(x | z) phase by phase, receive symbols i32[n], and return u8[B, S, S].

    A phase has two stages: which pixels are not 0, then the values of these less 1.  z f32[B, L] are activations, in
    units of 2**-8.
    """
    ops, config = model.ops, model.config
    features = generative.decoder(ops, config, z[:, None, None])
    shape = features.shape[:3]
    corners = np.zeros((*shape, PHASES), np.float32)
    earlier: list[np.ndarray] = []
    for number in range(PHASES):
        t = generative.phase(ops, config, number, features, np.concatenate(earlier, -1) if earlier else None)
        t = t.reshape(-1, t.shape[-1])
        nonzero = (yield generative.ink(model.tables, t[:, 0])) != 0
        pixels = np.zeros(len(t), np.float32)
        pixels[nonzero] = (yield generative.values(model.tables, model.layers["values"], t[nonzero, 1:])) + 1
        earlier.append(pixels.reshape(*shape, 1))
        corners[..., ORDER[number]] = earlier[-1][..., 0]
    return ops.shuffle(corners, 2)[..., 0].astype(np.uint8)


def choose_pixels(model: Model, z: np.ndarray, choose: Chooser) -> np.ndarray:
    """The images u8[B, S, S] whose symbols `choose` picks, given the frequencies of each stage of p(x | z)."""
    stages = code_pixels(model, z)
    frequencies = next(stages)
    while True:
        try:
            frequencies = stages.send(choose(frequencies))
        except StopIteration as end:
            images: np.ndarray = end.value
            return images


def pixel_stages(model: Model, images: np.ndarray, z: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(symbols i32[n], frequencies i64[n, K]) of each stage of p(x | z), for images u8[B, S, S]."""
    symbols: list[np.ndarray] = []
    for corner in ORDER:
        pixels = images[:, corner // 2 :: 2, corner % 2 :: 2].ravel().astype(np.int32)
        symbols += [np.minimum(pixels, 1), pixels[pixels > 0] - 1]
    stages: list[tuple[np.ndarray, np.ndarray]] = []

    def choose(frequencies: np.ndarray) -> np.ndarray:
        stages.append((symbols[len(stages)], frequencies))
        return stages[-1][0]

    choose_pixels(model, z, choose)
    return stages


def posterior_parameters(model: Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(means, log-scales) f32[B, L] of q(z | x), as activations, for images u8[B, S, S]."""
    t = generative.encoder(model.ops, model.config, images[..., None].astype(np.float32))[:, 0, 0]
    return t[:, : model.config.latents], t[:, model.config.latents :]


def posterior(model: Model, images: np.ndarray) -> np.ndarray:
    """Frequencies i64[B * L, COUNT] of the bins of q(z | x), for images u8[B, S, S]."""
    means, log_scales = posterior_parameters(model, images)
    return generative.posterior(model.tables, means.ravel(), log_scales.ravel())


def prior(model: Model, count: int) -> np.ndarray:
    """Frequencies i64[count, COUNT] of the bins of p(z), which have equal mass."""
    return np.full((count, generative.COUNT), 1 << (24 - generative.BINS), np.int64)


def bin_centres(model: Model, bins: np.ndarray) -> np.ndarray:
    """The latents f32[B, L], as activations, that bins i32[B * L] represent."""
    return np.asarray(model.tables.centres[bins], np.float32).reshape(-1, model.config.latents)


def batch_sizes(count: int) -> Iterator[int]:
    """Images in each batch: 1, 2, 4, ..., MAX_BATCH, MAX_BATCH, ..."""
    size = 1
    while count:
        yield min(size, count)
        count -= min(size, count)
        size = min(2 * size, MAX_BATCH)


def initial_words(count: int) -> np.ndarray:
    """u4[count]: the stack before coding, the same for all files; word 0 is on top."""
    return np.frombuffer(hashlib.shake_256(b"vaecodec bits back").digest(4 * count), "<u4")[::-1]


def encode_words(model: Model, images: np.ndarray) -> tuple[bytes, int]:
    """Code u8[N, S, S] as (words, number of initial words consumed); raises CodecError for another shape or type."""
    check_images(model, images)
    count = MAX_BATCH * model.config.latents + SPARE
    while True:
        initial = initial_words(count)
        coder, start = coding.reader(initial.tobytes()), 0
        for size in batch_sizes(len(images)):
            batch = images[start : start + size]
            start += size
            bins = coding.pop_each(coder, posterior(model, batch))
            for symbols, frequencies in reversed(pixel_stages(model, batch, bin_centres(model, bins))):
                coding.push_each(coder, symbols, frequencies)
            coding.push_each(coder, bins, prior(model, len(bins)))
        words = np.frombuffer(coding.words(coder), "<u4")
        length = min(len(words), len(initial))
        same = words[:length] == initial[:length]
        untouched = length if same.all() else int(same.argmin())
        if untouched >= SPARE:
            return words[untouched:].tobytes(), count - untouched
        count *= 2


def decode_words(model: Model, data: bytes, consumed: int, count: int) -> np.ndarray:
    """Decode `count` images u8[N, S, S] from words and the number of initial words consumed.

    Raises FormatError on damage: decoding must end with the initial words on the stack.
    """
    initial = initial_words(consumed + SPARE)
    coder = coding.reader(initial[:SPARE].tobytes() + data)
    images = np.zeros((count, model.config.side, model.config.side), np.uint8)
    end = count
    for size in reversed(list(batch_sizes(count))):
        bins = coding.pop_each(coder, prior(model, size * model.config.latents))
        batch = choose_pixels(model, bin_centres(model, bins), lambda frequencies: coding.pop_each(coder, frequencies))
        if coder.num_words() < SPARE:  # stop here, because a false count would decode images from an empty stack
            raise FormatError("the stack runs out before the last image")
        coding.push_each(coder, bins, posterior(model, batch))
        images[end - size : end] = batch
        end -= size
    if coding.words(coder) != initial.tobytes():
        raise FormatError("the stack does not end with its initial words")
    return images


def check_images(model: Model, images: np.ndarray) -> None:
    """Raise CodecError unless images are u8[N, S, S] of the model's side."""
    side = model.config.side
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (side, side) or not len(images):
        raise CodecError(f"images are {images.dtype}{list(images.shape)}, expected uint8[N, {side}, {side}]")


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
MAX_BYTES = 1 << 31  # of an idx or .npy file
MARGIN = 2  # pixels between the images of a contact sheet
BACKGROUND = 128


def encode(images: np.ndarray, model: str = "digits") -> bytes:
    """Code u8[N, S, S] as a .vae file; raises CodecError for another shape or type."""
    generator = load_generator(model)
    words, consumed = encode_words(generator, images)
    crc = zlib.crc32(images.tobytes())
    return pack_set(SetHeader(generator.id, len(images), generator.config.side, consumed, crc), words)


def decode(data: bytes, model: str | None = None, limits: Limits | None = DEFAULT_LIMITS) -> np.ndarray:
    """Decode a .vae file to u8[N, S, S], with a model by name or path, or else the known one of the id in the header.

    Raises FormatError on damage, ModelError if the model is unknown or another one, and LimitError if the header
    announces more pixels than `limits` allow (None: any number).
    """
    header, words = parse_set(data)
    pixels, limit = header.images * header.side**2, (limits or NO_LIMITS).pixels
    if limit is not None and pixels > limit:
        raise LimitError(f"{header.images} images of {pixels} pixels in all exceed the limit of {limit}")
    generator = load_generator(model) if model else find_generator(header.model)
    if generator.id != header.model:
        raise ModelError(f"the file needs model {header.model}, but {generator.name} has id {generator.id}")
    if generator.config.side != header.side:
        raise FormatError(f"the header gives images of side {header.side}, but the model has {generator.config.side}")
    images = decode_words(generator, words, header.consumed, header.images)
    if zlib.crc32(images.data) != header.crc:
        raise FormatError("the CRC of the pixels does not match")
    return images


def read_set(path: str) -> tuple[np.ndarray, list[str]]:
    """Read a set of images as u8[N, H, W], and a name for each of them.

    `path` is an idx file (the format of MNIST), plain or gzipped; a .npy array u8[N, H, W] or u8[H, W]; an image; or a
    folder of images, read in order of name and converted to grey.  Raises CodecError if the images differ in size, or
    a file cannot be read as any of these.
    """
    if os.path.isdir(path):
        paths = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.lower().endswith(IMAGE_SUFFIXES)]
        if not paths:
            raise CodecError(f"{path}: contains no images (looked for {' '.join(IMAGE_SUFFIXES)})")
        images = [_read_grey(image_path) for image_path in paths]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise CodecError(f"{path}: images have {len(shapes)} sizes, expected one")
        return np.stack(images), paths
    if path.lower().endswith(IMAGE_SUFFIXES):
        return _read_grey(path)[None], [path]
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as exc:
            raise CodecError(f"{path}: damaged gzip ({exc})") from exc
    if len(data) > MAX_BYTES:
        raise CodecError(f"{path}: larger than {MAX_BYTES} bytes")
    array = _parse_npy_or_idx(data, path)
    return array, [f"{path}[{n}]" for n in range(len(array))]


def _parse_npy_or_idx(data: bytes, path: str) -> np.ndarray:
    from vaecodec.images.channels import NPY_MAGIC, read_npy

    if data.startswith(NPY_MAGIC):
        try:
            array = read_npy(data)
        except ValueError as exc:
            raise CodecError(f"{path}: damaged .npy ({exc})") from exc
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
            raise CodecError(f"{path}: {array.dtype}{list(array.shape)}, expected uint8[N, H, W]")
        return array if array.ndim == 3 else array[None]
    # idx: two zero bytes, type 8 for u8, rank 3, big-endian sizes, then the samples.
    if len(data) < 16 or data[:4] != b"\0\0\x08\x03":
        raise CodecError(f"{path}: not an image, nor an idx or .npy file of grey images")
    shape = struct.unpack(">3I", data[4:16])
    if 0 in shape or math.prod(shape) != len(data) - 16:
        raise CodecError(f"{path}: an idx file of {len(data) - 16} bytes, expected {list(shape)}")
    return np.frombuffer(data, np.uint8, offset=16).reshape(shape)


def _read_grey(path: str) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        raise CodecError(f"{path}: not a readable image ({exc})") from exc


def contact_sheet(images: Sequence[np.ndarray], columns: int = 0, cell: int = 0) -> np.ndarray:
    """Place images u8[h, w] or u8[h, w, 3] on a grid: u8[H, W], or u8[H, W, 3] if any has colour.

    `columns` 0 gives an approximately square sheet.  `cell` is the side of a cell in pixels, 0 for the largest side of
    an image; larger images are reduced, smaller ones enlarged by the largest whole factor that fits.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    cell = cell or max(max(image.shape[:2]) for image in images)
    fitted = []
    for image in images:
        height, width = image.shape[:2]
        factor = cell // max(height, width)
        if factor >= 1:
            fitted.append(image.repeat(factor, 0).repeat(factor, 1))
        else:
            size = max(1, width * cell // max(height, width)), max(1, height * cell // max(height, width))
            fitted.append(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)))
    height, width = (max(image.shape[axis] for image in fitted) + MARGIN for axis in (0, 1))
    grey = all(image.ndim == 2 for image in fitted)
    shape = (height * math.ceil(len(fitted) / columns) + MARGIN, width * min(columns, len(fitted)) + MARGIN)
    sheet = np.full(shape if grey else (*shape, 3), BACKGROUND, np.uint8)
    for n, image in enumerate(fitted):
        top, left = n // columns * height + MARGIN, n % columns * width + MARGIN
        place = sheet[top : top + image.shape[0], left : left + image.shape[1]]
        place[...] = image if image.ndim == sheet.ndim else image[..., None]
    return sheet
