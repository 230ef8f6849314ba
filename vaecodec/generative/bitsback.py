"""Code sets of small images losslessly by bits-back coding with a latent-variable model.

    a batch   pop z under q(z | x)      the words already on the stack choose the latent; decoding restores them
              push x under p(x | z)
              push z under p(z)

An image costs -log2 p(x | z) - log2 p(z) + log2 q(z | x) bits, on average its negative ELBO (Hinton and van Camp 1993;
Townsend, Bird and Barber 2019, section 2).  The first batch is one image and each next one is twice as large, so the
words left by earlier batches suffice for later ones, and only the first batch consumes initial words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator

import numpy as np

from vaecodec.entropy import coding
from vaecodec.errors import CodecError, FormatError
from vaecodec.model import generative
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


def encode(model: Model, images: np.ndarray) -> tuple[bytes, int]:
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


def decode(model: Model, data: bytes, consumed: int, count: int) -> np.ndarray:
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
