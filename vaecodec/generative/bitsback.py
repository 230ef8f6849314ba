"""Bits back: sets of small pictures <-> words, without loss, by a latent-variable model and a stack.

    a batch   pop z under q(z | x)      bits that are there already choose the latent, and come back in decoding
              push x under p(x | z)
              push z under p(z)

so that a picture costs -log2 p(x | z) - log2 p(z) + log2 q(z | x), on average its negative ELBO (Hinton and van Camp
1993; Townsend, Bird and Barber 2019, section 2).  Batches double from one picture on: each finds bits enough in what
the ones before it have left, and only the first draws on bits that nobody needs back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator

import numpy as np

from vaecodec.entropy import coding
from vaecodec.errors import CodecError, FormatError
from vaecodec.model import discrete, generative
from vaecodec.model.generative import ORDER, PHASES
from vaecodec.model.generator import Generator as Model

LARGEST = 64  # pictures of a batch
SPARE = 8  # words below those that coding has touched, which a decoder puts there
Draw = Callable[[np.ndarray], np.ndarray]  # frequencies i64[n, K] -> symbols i32[n]


def walk(model: Model, z: np.ndarray) -> Generator[np.ndarray, np.ndarray, np.ndarray]:
    """p(x | z), phase by phase: yields frequencies i64[n, K], is sent symbols i32[n], returns u8[B, S, S].

    z f32[B, L] are activations, unit 2**-8.  Two steps a phase: which pixels are not 0, and their values, less 1.
    """
    ops, config = model.ops, model.config
    features = generative.decoder(ops, config, z[:, None, None])
    shape = features.shape[:3]
    corners = np.zeros((*shape, PHASES), np.float32)
    before: list[np.ndarray] = []
    for number in range(PHASES):
        t = generative.phase(ops, config, number, features, np.concatenate(before, -1) if before else None)
        t = t.reshape(-1, t.shape[-1])
        inked = (yield discrete.ink(model.tables, t[:, 0])) != 0
        pixels = np.zeros(len(t), np.float32)
        pixels[inked] = (yield discrete.values(model.tables, model.layers["values"], t[inked, 1:])) + 1
        before.append(pixels.reshape(*shape, 1))
        corners[..., ORDER[number]] = before[-1][..., 0]
    return ops.shuffle(corners, 2)[..., 0].astype(np.uint8)


def symbols_of(pictures: np.ndarray) -> Iterator[np.ndarray]:
    """What an encoder sends `walk` for u8[B, S, S], in order."""
    for corner in ORDER:
        pixels = pictures[:, corner // 2 :: 2, corner % 2 :: 2].ravel().astype(np.int32)
        yield np.minimum(pixels, 1)
        yield pixels[pixels > 0] - 1


def drive(steps: Generator[np.ndarray, np.ndarray, np.ndarray], answer: Draw) -> np.ndarray:
    """The pictures at the end of a walk whose every question `answer` answers."""
    question = next(steps)
    while True:
        try:
            question = steps.send(answer(question))
        except StopIteration as end:
            return end.value


def likelihoods(model: Model, pictures: np.ndarray, z: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(symbols i32[n], frequencies i64[n, K]) of every step of p(x | z) for u8[B, S, S]."""
    parts, answers = [], symbols_of(pictures)

    def answer(freq: np.ndarray) -> np.ndarray:
        parts.append((next(answers), freq))
        return parts[-1][0]

    drive(walk(model, z), answer)
    return parts


def encoded(model: Model, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(means, log-scales) f32[B, L] of q(z | x), as activations, of u8[B, S, S]."""
    t = generative.encoder(model.ops, model.config, pictures[..., None].astype(np.float32))[:, 0, 0]
    return t[:, : model.config.latents], t[:, model.config.latents :]


def posterior(model: Model, pictures: np.ndarray) -> np.ndarray:
    """Frequencies i64[B * L, COUNT] of q(z | x) for u8[B, S, S]."""
    means, log_scales = encoded(model, pictures)
    return discrete.posterior(model.tables, means.ravel(), log_scales.ravel())


def latents(model: Model, bins: np.ndarray) -> np.ndarray:
    """Bins i32[B * L] -> z f32[B, L], activations."""
    return model.tables.centres[bins].astype(np.float32).reshape(-1, model.config.latents)


def sizes(count: int) -> Iterator[int]:
    """How many pictures are in each batch: 1, 2, 4, ..., LARGEST, LARGEST, ..."""
    size = 1
    while count:
        yield min(size, count)
        count -= min(size, count)
        size = min(2 * size, LARGEST)


def prior(model: Model, count: int) -> np.ndarray:
    """Frequencies of the bins of `count` latents: all the same."""
    return np.full((count, discrete.COUNT), 1 << (24 - discrete.BINS), np.int64)


def begin(count: int) -> np.ndarray:
    """u4[count]: the bottom of the stack before anything is coded, the same for all files; word 0 is on top."""
    return np.frombuffer(hashlib.shake_256(b"vaecodec bits back").digest(4 * count), "<u4")[::-1]


def encode(model: Model, pictures: np.ndarray) -> tuple[bytes, int]:
    """u8[N, S, S] -> (words, how many words of the beginning they go without); inverse of decode."""
    check(model, pictures)
    room = LARGEST * model.config.latents + SPARE
    while True:
        bottom = begin(room)
        data = np.frombuffer(_encode(model, pictures, bottom), "<u4")
        both = min(len(data), len(bottom))
        same = data[:both] == bottom[:both]
        untouched = both if same.all() else int(same.argmin())
        if untouched >= SPARE:
            return data[untouched:].tobytes(), room - untouched
        room *= 2


def _encode(model: Model, pictures: np.ndarray, bottom: np.ndarray) -> bytes:
    coder, at = coding.reader(bottom.tobytes()), 0
    for size in sizes(len(pictures)):
        batch = pictures[at : at + size]
        at += size
        bins = coding.pop_each(coder, posterior(model, batch))
        for symbols, freq in reversed(likelihoods(model, batch, latents(model, bins))):
            coding.push_each(coder, symbols, freq)
        coding.push_each(coder, bins, prior(model, len(bins)))
    return coding.words(coder)


def decode(model: Model, data: bytes, consumed: int, count: int) -> np.ndarray:
    """(words, words of the beginning they go without) -> u8[count, S, S].

    Raises FormatError on damage: the stack must end as every stack begins.
    """
    bottom = begin(consumed + SPARE)
    coder = coding.reader(bottom[:SPARE].tobytes() + data)
    pictures = np.zeros((count, model.config.side, model.config.side), np.uint8)
    end = count
    for size in reversed(list(sizes(count))):
        bins = coding.pop_each(coder, prior(model, size * model.config.latents))
        batch = drive(walk(model, latents(model, bins)), lambda freq: coding.pop_each(coder, freq))
        if coder.num_words() < SPARE:  # a wrong count would else be decoded from nothing, for as long as it says
            raise FormatError("the stack runs out before its pictures")
        coding.push_each(coder, bins, posterior(model, batch))
        pictures[end - size : end] = batch
        end -= size
    if coding.words(coder) != bottom.tobytes():
        raise FormatError("the stack does not end as it began")
    return pictures


def check(model: Model, pictures: np.ndarray) -> None:
    """Raises CodecError unless these are u8[N, S, S] of the model's side."""
    side = model.config.side
    if pictures.dtype != np.uint8 or pictures.ndim != 3 or pictures.shape[1:] != (side, side) or not len(pictures):
        raise CodecError(f"pictures are {pictures.dtype}{list(pictures.shape)}, expected uint8[N, {side}, {side}]")
